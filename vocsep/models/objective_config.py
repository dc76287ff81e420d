"""Names of what training minimizes: input scaling, output, target, loss and bins, each an independent choice."""

from typing import Literal

from pydantic import Field, model_validator

from vocsep.config import Settings

InputName = Literal["root", "raw", "log", "log-unit", "raw-unit", "peak"]
OutputName = Literal["mask", "log-mask", "magnitude"]
# Half a training patch: how far around itself a frame of a longer song looks for its peak, with the input `peak`.
PEAK_REACH = 64


class Objective(Settings):
    """What training minimizes, as five choices and a starting point; formulas: `vocsep.models.objective`."""

    input: InputName = Field(
        default="root",
        description="What the network sees: root (square roots, scaled per bin by learned figures), raw, log, log-unit "
        "and raw-unit (clipped, scaled to 0...1), peak (divided by the patch's largest).",
    )
    output: OutputName = Field(
        default="mask", description="What the network outputs: mask (sigmoid), log-mask, or magnitude."
    )
    target: Literal["in-phase", "source", "oracle", "log-ratio"] = Field(
        default="in-phase",
        description="What is compared: source (magnitudes), in-phase (the part of them that is in phase with the "
        "mixture), oracle (masks), or log-ratio (logarithms of masks).",
    )
    loss: Literal["snr", "l1", "mse"] = Field(
        default="snr",
        description="How they are compared: snr (logarithm of squared errors, per patch), l1, or mse.",
    )
    bins: Literal["even", "all"] = Field(
        default="even", description="even: n_fft / 2, one is left out; all: n_fft / 2 + 1, as the store must have them."
    )
    bias: float | Literal["oracle"] | None = Field(
        default=None,
        description="Bias of the output layer at the start: a number, or oracle (fits the oracle masks' mean).",
    )

    @model_validator(mode="after")
    def _check(self) -> "Objective":
        if self.bias == "oracle" and self.output == "magnitude":
            raise ValueError("bias oracle fits outputs that are masks, not magnitude")
        if self.loss == "snr" and self.target not in ("in-phase", "source"):
            raise ValueError(f"loss snr compares magnitudes; with target {self.target} take l1 or mse")
        return self
