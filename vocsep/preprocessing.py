"""From songs to spectrograms in the store: what there is to do.

Songs are independent: `song_spectrograms.preprocess_song` runs in any process on any machine that sees the files; the
one process that called `open_store` names finished tracks in the manifest.
"""

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from storage.errors import UserError
from storage.files import file_digest
from storage.manifest import MANIFEST_NAME, Manifest, TrackRecord
from storage.store import SpectrogramStore, require_usable
from vocsep.config import Settings, SpectrogramConfig
from vocsep.dataset import DEMO_KIND, Dataset, Song


class StoreConfig(Settings):
    """All that decides the values in a store: the spectrogram's settings and the stored type."""

    spectrogram: SpectrogramConfig
    dtype: Literal["float16", "float32"] = "float16"


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
        Names of tracks in the store whose songs the dataset no longer has; they are kept.
    """

    pending: tuple[Song, ...]
    finished: int
    gone: tuple[str, ...]


def check_store(path: Path, dataset: Dataset, config: StoreConfig) -> bool:
    """Whether a store of the demo dataset lies at `path` that gives way to real songs; nothing is written.

    Raises
    ------
    UserError
        If the store was made with another configuration or from another dataset, or `path` is something else.
    """
    if (path / MANIFEST_NAME).exists():
        held = Manifest.load(path)
        if held.dataset["kind"] == DEMO_KIND != dataset.kind:
            return True
        if not _is_same_dataset(held, dataset):
            raise UserError(
                f"{path}: holds {held.dataset['kind']} songs of {held.dataset['root']}, not of {dataset.root}; "
                "give another store path (STORE=...), or delete this store"
            )
    require_usable(path, config.model_dump(mode="json"))
    return False


def open_store(path: Path, dataset: Dataset, config: StoreConfig) -> SpectrogramStore:
    """Open or create the store for a dataset.

    A store of the demo dataset, which anybody can make again in a minute, gives way to one of real songs.

    Raises
    ------
    UserError
        As `check_store`.
    """
    if check_store(path, dataset, config):
        shutil.rmtree(path)
    store = SpectrogramStore.open_or_create(
        path,
        config=config.model_dump(mode="json"),
        dataset={"kind": dataset.kind, "root": str(dataset.root)},
        tool=f"vocsep {version('vocsep')}",
    )
    store.manifest.dataset = {"kind": dataset.kind, "root": str(dataset.root)}
    return store


def _is_same_dataset(held: Manifest, dataset: Dataset) -> bool:
    if held.dataset["kind"] != dataset.kind:
        return False
    moved = held.dataset["root"] != str(dataset.root)
    return not (moved and held.tracks) or any(song.id in held.tracks for song in dataset.songs)


def plan(store: SpectrogramStore, dataset: Dataset) -> Plan:
    """Compare dataset and store; forget tracks of songs that moved to another split, so that none is in two."""
    ids = {song.id for song in dataset.songs}
    names = {song.name for song in dataset.songs}
    tracks = store.manifest.tracks
    for track in [track for track in tracks.values() if track.id not in ids and track.name in names]:
        del tracks[track.id]
    pending = tuple(song for song in dataset.songs if not _is_current(song, tracks.get(song.id)))
    gone = tuple(sorted(track.name for track in tracks.values() if track.name not in names))
    return Plan(pending=pending, finished=len(dataset.songs) - len(pending), gone=gone)


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
