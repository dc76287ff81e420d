"""How a model is trained: the settings, and the budget that a run has."""

from typing import Any, Literal

from pydantic import Field, model_validator

from vocsep.config import Settings
from vocsep.models.architecture import MOST_MAPS, NetworkName
from vocsep.models.objective_config import Objective
from vocsep.models.precision import WantedPrecision
from vocsep.patches.sampling import Augmentation
from vocsep.training.songs import ExtraStore

# A run resumes after these have changed: none of them decides what a step does.
FREE_ON_RESUME = (
    "steps",
    "epochs",
    "max_minutes",
    "validations",
    "shown_songs",
    "patience",
    "checkpoint_seconds",
    "device",
    "devices",
    "data",
    # Stores may move; what they hold, and their shares, are in the digest of the data.
    "extra",
)


class TrainConfig(Settings):
    """How a model is trained.

    The budget is `steps`, `epochs` and `max_minutes`; whichever is used up first ends the run. An epoch is as many
    patches as fit side by side into the training songs. With none of them: 1600 steps, or 15 minutes on a slow machine.
    """

    steps: int | None = Field(default=None, ge=1, description="Budget in training steps.")
    epochs: float | None = Field(default=None, gt=0, description="Budget in passes over the training songs.")
    max_minutes: float | None = Field(
        default=None,
        gt=0,
        description="Budget in minutes. Without any budget: 1600 steps, at most 15 minutes.",
    )
    batch_size: int = Field(default=8, ge=1, description="Patches of 128 frames per step, over all processes.")
    optimizer: Literal["muon", "adam", "adamw"] = Field(
        default="muon", description="muon, adam or adamw; default: muon for tfc-tdf, adam for unet."
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="Highest learning rate.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay, for adamw only.")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine",
        description="Learning rate after the warm-up: cosine (half of one, to 0 over the budget), plateau (halved "
        "after two validations in a row without a better score), or constant.",
    )
    warmup: float = Field(default=0.03, ge=0, lt=1, description="Share of the budget in which the rate rises.")
    gradient_clip: float | None = Field(default=None, gt=0, description="Largest norm of the gradient; off by default.")
    ema: float = Field(
        default=0.998, ge=0, lt=1, description="Decay per step of the averaged weights that are validated; 0: none."
    )
    objective: Objective = Field(default=Objective(), description="What the network learns: five choices.")
    targets: tuple[Literal["vocals", "accompaniment"], ...] = Field(
        default=("vocals",), description="What the network has masks for: vocals, or vocals,accompaniment."
    )
    augmentation: Augmentation = Field(default=Augmentation(), description="How patches are varied.")
    channels: Literal[1, 2] = Field(
        default=2, description="1: each channel on its own; 2: stereo, where the store has it."
    )
    extra: tuple[ExtraStore, ...] = Field(
        default=(),
        description="Further stores to draw training patches from: STORE, STORE=SHARE, or STORE=VOCALS:ACCOMPANIMENT "
        "(shares of all drawn vocals and accompaniments; default: by hours).",
    )
    network: NetworkName = Field(
        default="tfc-tdf", description="tfc-tdf (small, sees all frequencies at once), or unet (Jansson et al. 2017)."
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=MOST_MAPS,
        description="Feature maps of the network's first block; default: 24 for tfc-tdf, 16 for unet.",
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="In the first three decoder blocks of unet.")
    fine_tune: str | None = Field(default=None, description="Model to start from: champion, a number or a folder.")
    validations: int = Field(default=10, ge=1, description="How often validation songs are scored.")
    shown_songs: int = Field(
        default=2, ge=0, description="Validation songs whose sounds and pictures are kept at every validation."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop after this number of validations in a row without a better score."
    )
    checkpoint_seconds: float = Field(default=60.0, gt=0, description="Time between two checkpoints.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of weights and patches.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto uses a GPU if there is one."
    )
    devices: int = Field(default=1, ge=1, description="Processes, one per GPU or share of the CPU, on this machine.")
    precision: WantedPrecision = Field(
        default="auto", description="auto takes bfloat16 where the machine computes it natively."
    )
    data: Literal["auto", "device", "host", "stream"] = Field(
        default="auto", description="Where patches are read from; auto takes the fastest that fits."
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_optimizer(cls, content: Any) -> Any:
        # The matrices of the U-Net are so large that Muon's steps would take twice the time.
        if isinstance(content, dict) and content.get("network") == "unet":
            return {"optimizer": "adam", **content}
        return content

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.targets not in (("vocals",), ("vocals", "accompaniment")):
            raise ValueError("targets must be vocals, or vocals and accompaniment")
        if self.batch_size % self.devices:
            raise ValueError(f"devices {self.devices} cannot share a batch_size of {self.batch_size} evenly")
        return self

    @property
    def compares_accompaniment(self) -> bool:
        """Whether what the network gives is compared with something that the accompaniment is needed for."""
        return "accompaniment" in self.targets or self.objective.target == "in-phase"

    def identity(self) -> dict[str, Any]:
        """All settings that decide what a step does, as JSON-like values; a run cannot resume with others."""
        return self.model_dump(mode="json", exclude=set(FREE_ON_RESUME))
