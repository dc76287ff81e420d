"""Sound files opened with FFmpeg as what they are: files on a disk, of kinds that contain their sound themselves."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError, PatchWelcomeError

from storage.errors import NotFound, UserError, one_line
from vocsep.audio.damage import WAV_KINDS, missing_sizes, refuse_cut
from vocsep.audio.tags import refuse_too_many_tags

# FFmpeg's readers of sound and films. Those of playlists, streams over a network, pictures and devices open what a file
# names, and are not among them; nor are those (nut, wtv, nsv) whose tags nothing bounds.
_READERS = (
    *("wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "ogg", "matroska", "mov", "avi", "asf", "flv", "mpeg"),
    *("mpegts", "ac3", "eac3", "ac4", "dts", "dtshd", "truehd", "mlp", "tta", "ape", "wv", "mpc", "mpc8", "tak", "shn"),
    *("dsf", "iff", "voc", "amr", "amrnb", "amrwb", "rm", "oma", "mxf", "dv", "loas", "ircam"),
    *("nistsphere", "sox", "xwma", "spdif", "gxf", "swf", "osq", "bonk", "qoa", "avr", "epaf", "pvf", "sds"),
)
_OPTIONS = {"format_whitelist": ",".join(_READERS), "protocol_whitelist": "file"}
# That a file may take to be opened, or until the next packet: for music it is far less than one.
_SECONDS = 30.0
# In a wav file's 16-bit samples FFmpeg looks for DTS that may be stored as such, by default in 5 MB of them, for 20 ms.
_WAV_PROBE_BYTES = 65_536


def file_url(path: Path) -> str:
    """What FFmpeg opens as the file of this name: `http:song.mp3` alone would be asked for in a network."""
    return f"file:{path.absolute()}"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file; an error of FFmpeg becomes one line."""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise UserError(f"{path}: a pipe or device cannot be read as audio; save its sound as a file first")
        refuse_too_many_tags(path)
        options = _OPTIONS | ({"probesize": str(_WAV_PROBE_BYTES)} if _is_wav(path) else {})
        with _source(path) as source:
            try:
                container = av.open(source, mode="r", metadata_errors="replace", options=options, timeout=_SECONDS)
            except ArgumentError:
                raise UserError(
                    f"{path}: cannot be read as audio (a playlist, a picture, or of a kind that is not read)"
                ) from None
            except FFmpegError:
                refuse_cut(path)  # a better reason
                raise
            with container:
                yield container
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except PatchWelcomeError:
        raise UserError(
            f"{path}: cannot be read as audio (FFmpeg does not know such sound, or its rate or channels change midway)"
        ) from None
    except (FFmpegError, OSError) as error:
        raise one_line(path, "read as audio", error) from None


@contextlib.contextmanager
def _source(path: Path) -> "Iterator[str | _Completed]":
    """What FFmpeg opens: the file by its name, or with the sizes that a pipe left unknown."""
    if sizes := missing_sizes(path):
        with _Completed(path, sizes) as file:
            yield file
    else:
        yield file_url(path)


class _Completed(io.FileIO):
    """A file with other bytes at some positions."""

    def __init__(self, path: Path, others: dict[int, bytes]) -> None:
        super().__init__(path)
        self._others = others

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes of the file."""
        start = self.tell()
        content = bytearray(super().read(-1 if size is None else size) or b"")
        for place, other in self._others.items():
            for index, value in enumerate(other, place - start):
                if 0 <= index < len(content):
                    content[index] = value
        return bytes(content)


def _is_wav(path: Path) -> bool:
    with path.open("rb") as file:
        riff = file.read(12)
    if riff[:4] == b"RIFX":  # FFmpeg takes its samples for those of a plain wav file, and gives noise
        raise UserError(f"{path}: is a big-endian wav file (RIFX), which cannot be read; convert it")
    return riff[:4] in WAV_KINDS and riff[8:] == b"WAVE"


def system_name(path: Path) -> bytes:
    """What libsndfile opens: text that is not UTF-8 it refuses, and the name `-` would be standard input."""
    return os.fsencode(path.absolute())
