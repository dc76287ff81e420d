"""What a sound file says of itself."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of an audio stream, before anything is decoded.

    Attributes
    ----------
    sample_rate
        In Hz.
    layout
        FFmpeg's name of the channel layout: `mono`, `stereo`, `5.1`, ...
    channel_names
        FFmpeg's names of the channels: `FL`, `FR`, `FC`, `LFE`, ...
    seconds
        Length as far as the file tells, 0 if it does not.
    tags
        Title, artist and the like, by FFmpeg's names.
    has_cover
        Whether a picture is attached.
    stream
        Index among the file's audio streams.
    """

    path: Path
    sample_rate: int
    layout: str
    channel_names: tuple[str, ...]
    seconds: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)
    has_cover: bool = False
    stream: int = 0

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.channel_names)
