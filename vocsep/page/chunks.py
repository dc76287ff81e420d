"""Pieces of the copies for listening, as plain samples: a player needs no more than a few of them at a time."""

from pathlib import Path

import soundfile

from vocsep.audio.opening import system_name

CHUNK_SECONDS = 4


def chunk(path: Path, number: int) -> bytes | None:
    """Samples of a piece of `CHUNK_SECONDS`, counted from 0: 16-bit, little-endian, channels interleaved.

    None if the file is not that long.
    """
    with soundfile.SoundFile(system_name(path)) as file:
        start = number * CHUNK_SECONDS * file.samplerate
        if not 0 <= start < file.frames:
            return None
        file.seek(start)
        samples = file.read(CHUNK_SECONDS * file.samplerate, dtype="int16", always_2d=True)
        content: bytes = samples.astype("<i2", copy=False).tobytes()
        return content
