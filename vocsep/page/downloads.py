"""What downloaded files are called, and several of them as one zip file, made while it is sent."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_BLOCK_BYTES = 1 << 18
# Of the 255 that most file systems take, with room for " - accompaniment.flac" and a number.
_MOST_TITLE_BYTES = 200
# What some file system refuses, or a shell takes for more than a name.
_UNUSABLE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


def title(name: str) -> str:
    """A song's name without its ending, as a part of a file's name on any system."""
    plain = _UNUSABLE.sub("_", name.removesuffix(".stem.mp4"))
    stem = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", plain).strip(" .")
    return stem.encode()[:_MOST_TITLE_BYTES].decode(errors="ignore").rstrip() or "song"


def download_name(song: str, stem: str, file: str) -> str:
    """Name of a downloaded stem."""
    return f"{title(song)} - {stem}{Path(file).suffix}"


class _Sent:
    """What zipfile writes to, and the response takes away."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._blocks.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        """What was written since the last time."""
        content = b"".join(self._blocks)
        self._blocks.clear()
        return content


def zipped(files: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip file, in blocks, of files by the names that they get in it; names that come twice are numbered."""
    sent, used = _Sent(), set[str]()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, path in files:
            unique, number = name, 1
            while unique in used:
                number += 1
                unique = f"{Path(name).parent}-{number}/{Path(name).name}" if "/" in name else f"{number}-{name}"
            used.add(unique)
            entry = zipfile.ZipInfo.from_file(path, unique, strict_timestamps=False)
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
                    yield sent.take()
    yield sent.take()
