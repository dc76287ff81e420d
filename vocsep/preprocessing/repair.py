"""Making the damaged tracks of a store again, and no others."""

from pathlib import Path

from storage.errors import UserError
from storage.files import is_disk_full
from storage.integrity import drop_damaged
from storage.lock import store_lock
from storage.manifest import TrackRecord
from storage.store import SpectrogramStore
from vocsep.datasets.layouts import open_dataset
from vocsep.preprocessing.config import store_settings
from vocsep.preprocessing.location import dataset_root
from vocsep.preprocessing.track import preprocess_song
from vocsep.progress import Progress


def repair(path: Path, progress: Progress | None = None) -> list[str]:
    """Drop what is damaged in the store at `path` and make these tracks again from its own dataset, under its lock.

    Damaged tracks leave the manifest before anything is made: all that it names is intact at any time.

    Parameters
    ----------
    progress
        Called with how many of how many tracks are done; first with `(0, count)`.

    Returns
    -------
    names
        Of the songs that were made again; empty if no track was damaged.

    Raises
    ------
    UserError
        If there is no store or another process writes it, or some tracks could not be made again: they are named, and
        all else is done.
    """
    report = progress or (lambda done, total: None)
    try:
        with store_lock(path):
            store, damaged, half_written = drop_damaged(path)
            names: list[str] = []
            failures: list[str] = []
            if damaged or half_written:
                names, failures = _make_again(store, damaged, half_written, report)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise UserError(f"{path}: disk full; make room, then preprocessing makes what is missing") from None
    if failures:
        raise UserError(f"{path}: {len(failures)} damaged tracks are dropped and not made again: {'; '.join(failures)}")
    return names


def _make_again(
    store: SpectrogramStore,
    damaged: list[TrackRecord],
    half_written: set[str],
    progress: Progress,
) -> tuple[list[str], list[str]]:
    """Names of the songs that were made, and why the others were not."""
    path, manifest = store.path, store.manifest
    config = store_settings(store)
    dataset = open_dataset(dataset_root(manifest, path), manifest.kind)
    songs = {song.id: song for song in dataset.songs}
    failures = [f"{track.name}: no longer in {dataset.root}" for track in damaged if track.id not in songs]
    wanted = [song for key, song in songs.items() if key in half_written | {track.id for track in damaged}]
    names = []
    try:
        for number, song in enumerate(wanted):
            progress(number, len(wanted))
            try:
                store.add(preprocess_song(song, path, config))
                names.append(song.name)
            except UserError as error:
                failures.append(str(error))
        progress(len(wanted), len(wanted))
    finally:
        store.discard_unfinished()
    return names, failures
