"""Songs that are in two splits under different names: a model would be scored on songs that it was trained on."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from storage.errors import UserError
from storage.files import file_digest
from storage.manifest import SourceFile, TrackRecord
from vocsep.datasets.songs import Dataset, Song


def require_distinct(dataset: Dataset, held: Iterable[TrackRecord] = ()) -> None:
    """Refuse a song whose files are, byte by byte, those of a song in another split.

    Only files that have the size of one in another split are read, and of those that a store has a record of, and that
    were not touched since, none.

    Raises
    ------
    UserError
        That names both songs.
    """
    sizes = {song: _sizes(song) for song in dataset.songs}
    splits: dict[int, set[str]] = defaultdict(set)
    for song, files in sizes.items():
        for size in files.values():
            splits[size].add(song.split)
    shared = {size for size, found in splits.items() if len(found) > 1}
    suspects = [song for song, files in sizes.items() if files and shared.issuperset(files.values())]
    wanted = {size for song in suspects for size in sizes[song].values()}
    known = {(file.path, file.bytes, file.modified_ns): file for track in held for file in track.sources}
    digests = {
        song: {_digest(path, known) for path, size in files.items() if size in wanted} for song, files in sizes.items()
    }
    for song in sorted(suspects, key=lambda song: (song.split, song.name)):
        for other in dataset.songs:
            if other.split != song.split and digests[song] <= digests[other]:
                raise UserError(
                    f"{dataset.root}: songs {song.name!r} of {song.split} and {other.name!r} of {other.split} are the "
                    "same files; remove one, or the scores would be of songs that were trained on"
                )


def _sizes(song: Song) -> dict[Path, int]:
    """Bytes of each of a song's files; none if one is missing, which is told when the song is read."""
    try:
        return {path: path.stat().st_size for path in song.feature_paths}
    except OSError:
        return {}


def _digest(path: Path, known: dict[tuple[str, int, int], SourceFile]) -> str:
    try:
        status = path.stat()
        recorded = known.get((str(path), status.st_size, status.st_mtime_ns))
        return recorded.sha256 if recorded else file_digest(path)
    except OSError:
        return str(path)
