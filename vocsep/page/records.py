"""What is known of the page's songs and their separations, as it is on disk."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vocsep.page.options import TakeOptions

State = Literal["waiting", "running", "done", "failed"]
STEMS = ("mixture", "vocals", "accompaniment")


class Sound(BaseModel):
    """What can be listened to of a take.

    Attributes
    ----------
    sample_rate, channels, frames
        Of the copies for listening, all of one length.
    rms
        Root mean square of each stem, 1 is full scale.
    hertz
        The band that the spectrograms show, on a logarithmic scale.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sample_rate: int = Field(gt=0)
    channels: int = Field(ge=1, le=2)
    frames: int = Field(ge=1)
    rms: dict[str, float]
    hertz: tuple[float, float]


class Take(BaseModel):
    """One separation of a song.

    Attributes
    ----------
    id
        Number within the song, from 1.
    asked
        When it was asked for, in seconds since 1970: first come, first served.
    model
        What the model is called that was used, once it is known.
    seconds, wall_seconds
        Length of what was separated, and what that took.
    files
        Stem to the name of its file.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: int = Field(ge=1)
    options: TakeOptions
    asked: float
    state: State = "waiting"
    error: str = ""
    model: str = ""
    seconds: float = 0.0
    wall_seconds: float = 0.0
    note: str = ""
    files: dict[Literal["vocals", "accompaniment"], str] = {}
    sound: Sound | None = None


class Song(BaseModel):
    """An uploaded file. `name` is what its owner calls it, and never a path; `created` is in seconds since 1970."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    name: str
    size: int = Field(ge=0)
    created: float
    takes: list[Take] = []

    def take(self, number: int) -> Take | None:
        """The take of a number."""
        return next((take for take in self.takes if take.id == number), None)
