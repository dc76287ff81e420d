"""What a visitor of the page may choose for a separation, and the library's settings that correspond to it."""

from typing import Literal

from pydantic import Field, model_validator

from vocsep.audio.formats import AudioFormat, BitDepth, BitRate
from vocsep.config import Settings
from vocsep.separation.settings import SeparationSettings

Stem = Literal["vocals", "accompaniment"]

MOST_SECONDS = 86_400.0


class TakeOptions(Settings):
    """Which model, what is written, and of which excerpt; models by name or number, never by a path."""

    model: str = Field(default="champion", pattern=r"^(champion|latest|bundled|[0-9]{1,9})$")
    stems: tuple[Stem, ...] = Field(default=("vocals", "accompaniment"), min_length=1, max_length=2)
    format: AudioFormat = "wav"
    bit_depth: BitDepth | None = None
    bit_rate: BitRate | None = None
    start: float = Field(default=0.0, ge=0.0, le=MOST_SECONDS)
    stop: float | None = Field(default=None, gt=0.0, le=MOST_SECONDS)
    wiener: bool = False
    accept_damaged: bool = False

    @model_validator(mode="after")
    def _check(self) -> "TakeOptions":
        if self.stop is not None and self.stop <= self.start:
            raise ValueError("the excerpt must end after it begins")
        self.settings()
        return self

    def settings(self) -> SeparationSettings:
        """The settings of the separation, as of the command line."""
        return SeparationSettings(
            stems=self.stems,
            format=self.format,
            bit_depth=self.bit_depth,
            bit_rate=self.bit_rate,
            start=self.start,
            duration=None if self.stop is None else self.stop - self.start,
            name="{stem}",
            wiener=self.wiener,
            accept_damaged=self.accept_damaged,
            model=self.model,
            overwrite=True,
        )
