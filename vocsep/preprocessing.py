"""From songs to spectrograms in the store: what there is to do, and naming what is done.

Songs are independent: `song_spectrograms.preprocess_song` runs in any process on any machine that sees the files; the
one process that is in `updating` names finished tracks in the manifest.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.error import FFmpegError

from storage.errors import UserError
from storage.files import file_digest, free_bytes, is_disk_full
from storage.lock import StoreLock, store_lock
from storage.manifest import MANIFEST_NAME, Manifest, TrackRecord
from storage.shards import shard_bytes
from storage.store import SPECTROGRAMS, SpectrogramStore, is_intact, require_usable, temporary_beside
from storage.track_writer import FRAMES_PER_CHUNK, SAMPLES_PER_CHUNK, Compression
from vocsep.config import Settings, SpectrogramConfig
from vocsep.dataset import DEMO_KIND, Dataset, Song

SAVE_INTERVAL_SECONDS = 1.0
SAVE_SHARE = 0.05
"""Of the time, at most this share goes into saving the manifest, which takes longer the more tracks there are."""

_SMALL_FILES_BYTES = 100_000  # of a track: folders, metadata, and the last block of every file
_MARGIN = 1.02


class StoreConfig(Settings):
    """All that decides the bytes in a store: the spectrogram's settings, the stored type and its compression."""

    spectrogram: SpectrogramConfig
    dtype: Literal["float16", "float32"] = "float16"
    compression: Compression = "none"


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


class StoreUpdate:
    """A store to which this process, which holds its lock, adds tracks."""

    def __init__(self, store: SpectrogramStore, lock: StoreLock) -> None:
        self.store = store
        self._lock = lock
        self._saved = time.monotonic()
        self._save_seconds = 0.0
        self._unsaved: list[TrackRecord] = []

    @property
    def manifest(self) -> Manifest:
        """The store's manifest."""
        return self.store.manifest

    def add(self, track: TrackRecord) -> None:
        """Name a finished track, and save the manifest unless that was done a moment ago."""
        self.store.add(track)
        self._unsaved.append(track)
        interval = max(SAVE_INTERVAL_SECONDS, self._save_seconds / SAVE_SHARE)
        if time.monotonic() - self._saved >= interval:
            self.save()

    def save(self) -> None:
        """Save the manifest.

        Raises
        ------
        UserError
            If the lock was lost.
        """
        self._lock.require()
        started = time.monotonic()
        self.store.save()
        self._saved = time.monotonic()
        self._save_seconds = self._saved - started
        self._unsaved.clear()

    def discard_unfinished(self) -> None:
        """Save the manifest and delete what it does not name.

        On a disk so full that no manifest can be saved, tracks that no saved one names make room, the newest first.

        Raises
        ------
        UserError
            If the lock was lost.
        """
        self._lock.require()
        while True:
            try:
                self.store.discard_unfinished()
                return
            except OSError as error:
                if not (is_disk_full(error) and self._unsaved):
                    raise
                newest = self._unsaved.pop()
                del self.store.manifest.tracks[newest.id]
                shutil.rmtree(self.store.path / newest.split / newest.id)


@contextlib.contextmanager
def updating(
    path: Path, dataset: Dataset, config: StoreConfig, *, prune: bool = False
) -> Iterator[tuple[StoreUpdate, Plan]]:
    """Bring a store up to date with a dataset: the body makes the plan's pending songs and adds their tracks.

    The store is locked, opened or made, and cleared of what killed runs left. Tracks of changed songs leave the
    manifest before they are made again, so that what it names is true at every instant; where that fails, and the old
    track is still there, it is named again. However the body ends, what it added is saved.

    Parameters
    ----------
    prune
        Drop tracks whose songs the dataset no longer has.

    Raises
    ------
    UserError
        As `check_store`; if the disk has no room for the pending songs, or becomes full.
    """
    with store_lock(path) as lock, _telling_need(path, dataset, config):
        store = open_store(path, dataset, config)
        update = StoreUpdate(store, lock)
        work = plan(store, dataset)
        if prune:
            held = store.manifest.tracks
            store.manifest.tracks = {key: track for key, track in held.items() if track.name not in work.gone}
        update.discard_unfinished()
        require_room(store, work.pending, config)
        changed = [store.manifest.tracks.pop(song.id) for song in work.pending if song.id in store.manifest.tracks]
        if changed:
            update.save()
        try:
            yield update, work
        finally:
            for track in changed:
                if track.id not in store.manifest.tracks and is_intact(store.path, track):
                    store.add(track)
            update.discard_unfinished()


@contextlib.contextmanager
def _telling_need(path: Path, dataset: Dataset, config: StoreConfig) -> Iterator[None]:
    """Say in one line what is there and what is still needed when the disk is full."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        held = Manifest.load(path).tracks if (path / MANIFEST_NAME).exists() else {}
        left = [song for song in dataset.songs if song.id not in held]
        raise UserError(
            f"{path}: disk full; {len(dataset.songs) - len(left)} of {len(dataset.songs)} songs are in the store and "
            f"stay, the others need {_megabytes(estimated_bytes(left, config))}, {_megabytes(free_bytes(path))} are "
            "free; make room and run again"
        ) from None


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
        if not is_same_dataset(held, dataset):
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
        replaced = temporary_beside(path)
        path.resolve().rename(replaced)
        shutil.rmtree(replaced)
    store = SpectrogramStore.open_or_create(
        path,
        config=config.model_dump(mode="json"),
        dataset={"kind": dataset.kind, "root": str(dataset.root)},
        tool=f"vocsep {version('vocsep')}",
    )
    store.manifest.dataset = {"kind": dataset.kind, "root": str(dataset.root)}
    return store


def is_same_dataset(held: Manifest, dataset: Dataset) -> bool:
    """Whether a store was made from this dataset, which may have moved."""
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


def require_room(store: SpectrogramStore, songs: Iterable[Song], config: StoreConfig) -> None:
    """Raise `UserError` if the tracks of `songs` do not fit on the store's disk beside what stays in the store."""
    songs = tuple(songs)
    held = store.manifest.tracks
    replaced = sum(held[song.id].bytes for song in songs if song.id in held)
    needed, free = estimated_bytes(songs, config) - replaced, free_bytes(store.path)
    if needed > free:
        raise UserError(
            f"{store.path}: {len(songs)} songs need {_megabytes(needed)}, {_megabytes(free)} are free; make room or "
            "give another store path"
        )


def estimated_bytes(songs: Iterable[Song], config: StoreConfig) -> int:
    """Bytes that the tracks of `songs` take, with a little to spare, from what the headers of their files say.

    Songs whose files cannot be read count as nothing.
    """
    spectrogram, item_bytes = config.spectrogram, np.dtype(config.dtype).itemsize
    total = 0
    for song in songs:
        channels, seconds = _extent(song)
        if channels == 0:
            continue
        channels = min(channels, spectrogram.channels)
        samples = math.ceil(seconds * spectrogram.sample_rate)
        frames = 1 + samples // spectrogram.hop_length
        track = len(SPECTROGRAMS) * shard_bytes((channels, frames, spectrogram.bins), FRAMES_PER_CHUNK, item_bytes)
        if song.split == "valid":
            track += 2 * shard_bytes((channels, samples), SAMPLES_PER_CHUNK, np.dtype(np.float32).itemsize)
        total += math.ceil(_MARGIN * track) + _SMALL_FILES_BYTES
    return total


def _extent(song: Song) -> tuple[int, float]:
    """Channels and seconds of a song; zeros if they cannot be told."""
    channels, seconds = 0, 0.0
    for source in song.mixture + song.vocals:
        try:
            with av.open(source.path, mode="r", metadata_errors="replace") as container:
                seconds = max(seconds, (container.duration or 0) / av.time_base)
                channels = max(
                    channels, 1 if source.channel is not None else container.streams.audio[source.stream].channels
                )
        except (FFmpegError, OSError, IndexError):
            continue
    return channels, seconds


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
