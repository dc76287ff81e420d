"""From songs to spectrograms in the store: what there is to do, and naming what is done.

Songs are independent: `track.preprocess_song` runs in any process on any machine that sees the files; the
one process that is in `updating` names finished tracks in the manifest.
"""

import contextlib
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from storage.errors import UserError
from storage.files import free_bytes, is_disk_full
from storage.lock import store_lock
from storage.manifest import MANIFEST_NAME, Manifest
from storage.store import SpectrogramStore, is_intact, temporary_beside
from vocsep.datasets.songs import Dataset
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.plan import Plan, check_store, plan
from vocsep.preprocessing.room import estimated_bytes, megabytes, require_room


@contextlib.contextmanager
def updating(
    path: Path, dataset: Dataset, config: StoreConfig, *, prune: bool = False
) -> Iterator[tuple[SpectrogramStore, Plan]]:
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
    with store_lock(path), _telling_need(path, dataset, config):
        store = open_store(path, dataset, config)
        work = plan(store, dataset)
        if prune:
            held = store.manifest.tracks
            store.manifest.tracks = {key: track for key, track in held.items() if track.name not in work.gone}
        store.discard_unfinished()
        require_room(store, work.pending, config)
        changed = [store.manifest.tracks.pop(song.id) for song in work.pending if song.id in store.manifest.tracks]
        if changed:
            store.save()
        try:
            yield store, work
        finally:
            for track in changed:
                if track.id not in store.manifest.tracks and is_intact(store.path, track):
                    store.add(track)
            store.discard_unfinished()


@contextlib.contextmanager
def _telling_need(path: Path, dataset: Dataset, config: StoreConfig) -> Iterator[None]:
    """Say in one line what is stored and what is still needed when the disk is full."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        held = Manifest.load(path).tracks if (path / MANIFEST_NAME).exists() else {}
        left = [song for song in dataset.songs if song.id not in held]
        raise UserError(
            f"{path}: disk full; {len(dataset.songs) - len(left)} of {len(dataset.songs)} songs are in the store and "
            f"stay, the others need {megabytes(estimated_bytes(left, config))}, {megabytes(free_bytes(path))} are "
            "free; make room and run again"
        ) from None


def open_store(path: Path, dataset: Dataset, config: StoreConfig) -> SpectrogramStore:
    """Open or create the store for a dataset.

    A store of demo songs, which can be made again in a minute, is replaced by one of other songs.

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
