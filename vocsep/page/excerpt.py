"""A part of a song as a file of its own, cut without holding the song in memory."""

from pathlib import Path

from storage.errors import UserError
from vocsep.audio.reading import audio_info, decode_blocks
from vocsep.audio.writing import AudioWriter


def cut_excerpt(path: Path, target: Path, start: float, stop: float | None, *, accept_damaged: bool = False) -> None:
    """Write the seconds from `start` to `stop` (None: the end) of a file to a 32-bit float wav file.

    Raises `UserError` if the file cannot be read or ends before `start`.
    """
    info = audio_info(path)
    first = round(start * info.sample_rate)
    last = None if stop is None else round(stop * info.sample_rate)
    position = written = 0
    with AudioWriter(target, "wav", info) as writer:
        for block in decode_blocks(path, (info.stream,), accept_damaged=accept_damaged):
            waveform = block.waveforms[0]
            inside = waveform[:, max(0, first - position) : None if last is None else max(0, last - position)]
            writer.write(inside)
            written += inside.shape[1]
            position += waveform.shape[1]
            if last is not None and position >= last:
                break
        if not written:
            raise UserError(f"{path}: is {position / info.sample_rate:.1f} s long; the excerpt begins at {start:.1f} s")
