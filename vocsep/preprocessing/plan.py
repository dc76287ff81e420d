"""What a run of preprocessing has to do: dataset and store compared."""

from dataclasses import dataclass
from pathlib import Path

from storage.errors import UserError
from storage.files import file_digest
from storage.manifest import MANIFEST_NAME, Manifest, TrackRecord
from storage.store import SpectrogramStore, require_usable
from vocsep.datasets.layouts import DEMO_KIND
from vocsep.datasets.songs import Dataset, Song
from vocsep.preprocessing.config import StoreConfig


@dataclass(frozen=True)
class Plan:
    """What one preprocess run has to do.

    Attributes
    ----------
    pending
        Songs that are not in the store yet, or whose files changed.
    finished
        How many songs need nothing.
    gone
        Names of tracks in the store whose songs the dataset no longer has.
    """

    pending: tuple[Song, ...]
    finished: int
    gone: tuple[str, ...]


def check_store(path: Path, dataset: Dataset, config: StoreConfig) -> bool:
    """Whether `path` holds a store of demo songs that other songs may replace; nothing is written.

    Raises
    ------
    UserError
        If the store was made with another configuration or from another dataset, or `path` is something else.
    """
    if (path / MANIFEST_NAME).exists():
        held = Manifest.load(path)
        if not is_same_dataset(held, dataset):
            if held.kind == DEMO_KIND:
                return True
            raise UserError(
                f"{path}: holds {held.kind} songs of {held.root}, not of {dataset.root}; "
                "give another store path (STORE=...), or delete this store"
            )
    require_usable(path, config.model_dump(mode="json"))
    return False


def is_same_dataset(held: Manifest, dataset: Dataset) -> bool:
    """Whether a store was made from this dataset, which may have moved."""
    if held.kind != dataset.kind:
        return False
    moved = held.root != str(dataset.root)
    return not (moved and held.tracks) or any(song.id in held.tracks for song in dataset.songs)


def plan(store: SpectrogramStore, dataset: Dataset) -> Plan:
    """Compare dataset and store; forget tracks of songs that moved to another split, so that none is in two."""
    ids = {song.id for song in dataset.songs}
    names = {song.name for song in dataset.songs}
    tracks = store.manifest.tracks
    for track in [track for track in tracks.values() if track.id not in ids and track.name in names]:
        del tracks[track.id]
    pending = tuple(song for song in dataset.songs if not _is_current(song, tracks.get(song.id)))
    # A song that cannot be used just now is not gone.
    gone = {track.name for track in tracks.values()} - names - dataset.problems.keys()
    return Plan(pending=pending, finished=len(dataset.songs) - len(pending), gone=tuple(sorted(gone)))


def _is_current(song: Song, track: TrackRecord | None) -> bool:
    """Whether a track was made from the files that the song has now; only files that were touched are read."""
    if track is None or len(track.sources) != len(song.feature_paths):
        return False
    for path, recorded in zip(song.feature_paths, track.sources, strict=True):
        if not path.is_file():
            return False
        status = path.stat()
        same_file = (str(path), status.st_size, status.st_mtime_ns) == (
            recorded.path,
            recorded.bytes,
            recorded.modified_ns,
        )
        if not same_file and file_digest(path) != recorded.sha256:
            return False
    return True
