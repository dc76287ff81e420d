"""Beginning to decode in the middle of a file."""

import contextlib
from fractions import Fraction
from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from storage.errors import UserError

# Formats that tell the time of every sample exactly, at every sample rate.
_EXACT_TIMES = ("wav", "w64", "aiff", "au", "caf", "flac")


def go_to(container: InputContainer, stream: AudioStream, start: int) -> int:
    """Go to a sample, or to one before it, where that is exact; returns it, 0 for the beginning.

    Frames of lossless codecs need nothing of those before them; what lossy ones give would differ a little.
    """
    is_exact = container.format.name in _EXACT_TIMES and stream.codec_context.codec.lossless
    if not start or not is_exact or stream.time_base != Fraction(1, stream.rate or 1):
        return 0
    position = 0
    with contextlib.suppress(FFmpegError):
        container.seek(start, stream=stream)
        there = next(container.demux(stream)).pts
        position = there if there is not None and 0 <= there <= start else 0
    container.seek(position, stream=stream)
    return position


def refuse_late(path: Path, start: int, samples: int, sample_rate: int) -> None:
    """Raise `UserError` if an excerpt would begin behind the last sample of a file."""
    if start and start >= samples:
        length, asked = samples / sample_rate, start / sample_rate
        raise UserError(f"{path}: is {length:.1f} s long; the excerpt begins at {asked:.1f} s")
