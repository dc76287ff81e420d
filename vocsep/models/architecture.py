"""What a model file says of its network: enough to build it again."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from storage.errors import UserError
from vocsep.config import Settings
from vocsep.models.objective_config import PEAK_REACH, InputName, OutputName
from vocsep.spectrograms.config import SpectrogramConfig

NetworkName = Literal["unet", "tfc-tdf"]
# Far beyond what is useful: a file from elsewhere must not ask for all memory.
MOST_MAPS, MOST_BINS = 1024, 1 << 16


class NetworkArchitecture(Settings):
    """What all networks have in common.

    Attributes
    ----------
    channels
        Audio channels that one example holds: 1 treats every channel of a song on its own, 2 sees stereo.
    width
        Feature maps of the first block.
    targets
        How many sources there are masks for.
    scaled_bins
        Bins of an input that goes through `InputScaling`; None where `input` is another than `root`.
    input, output
        What the network makes of raw magnitudes, and what its numbers mean: names in `vocsep.models.objective`.
    drops_dc
        Whether the lowest of the bins that come in stays outside; it gets the mask of the second.
    """

    reached_frames: ClassVar[int]
    """How far the layers reach from a multiple of their strides, and from the frame after one; a multiple of them."""

    channels: Literal[1, 2]
    width: int = Field(ge=1, le=MOST_MAPS)
    targets: Literal[1, 2] = 1
    scaled_bins: int | None = Field(default=None, ge=1, le=MOST_BINS)
    input: InputName = "raw"
    output: OutputName = "mask"
    drops_dc: bool = False

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        """Files of version 0.1.0 may lack `input`."""
        if isinstance(content, dict) and "input" not in content:
            return content | {"input": "raw" if content.get("scaled_bins") is None else "root"}
        return content

    @model_validator(mode="after")
    def _check(self) -> "NetworkArchitecture":
        if (self.input == "root") != (self.scaled_bins is not None):
            raise ValueError("scaled_bins goes with the input root, and with no other")
        return self

    @property
    def context_frames(self) -> int:
        """Frames before and after a block that decide its masks; it begins at a multiple of the strides."""
        return self.reached_frames + (PEAK_REACH if self.input == "peak" else 0)


class UNetArchitecture(NetworkArchitecture):
    """Of `vocsep.models.unet.UNet`."""

    reached_frames = 192
    name: Literal["unet"] = "unet"
    width: int = Field(default=16, ge=1, le=MOST_MAPS)


class TfcTdfArchitecture(NetworkArchitecture):
    """Of `vocsep.models.tfc_tdf.TfcTdf`; its layers along frequency are made for this number of `bins`."""

    reached_frames = 96
    name: Literal["tfc-tdf"] = "tfc-tdf"
    width: int = Field(default=24, ge=1, le=MOST_MAPS)
    bins: int = Field(ge=1, le=MOST_BINS)


Architecture = Annotated[UNetArchitecture | TfcTdfArchitecture, Field(discriminator="name")]
_ARCHITECTURE: TypeAdapter[UNetArchitecture | TfcTdfArchitecture] = TypeAdapter(Architecture)


def parse_architecture(content: Any) -> UNetArchitecture | TfcTdfArchitecture:
    """A model file's `architecture`.

    Raises
    ------
    UserError
        If it is not one that this version knows.
    """
    try:
        return _ARCHITECTURE.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"architecture is not known to this version of vocsep ({': '.join(filter(None, [place, first['msg']]))})"
        ) from None


def require_bins(architecture: UNetArchitecture | TfcTdfArchitecture, spectrogram: SpectrogramConfig) -> None:
    """Raise `UserError` if a network is made for other bins than its spectrogram has."""
    seen = spectrogram.bins - architecture.drops_dc
    for name in ("scaled_bins", "bins"):
        made_for = getattr(architecture, name, None)
        if made_for not in (None, seen):
            raise UserError(f"architecture does not fit the spectrogram ({name} is {made_for}, not {seen})")
