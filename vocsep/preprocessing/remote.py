"""Preprocessing into object storage: workers upload their tracks, one process names them in the manifest.

Workers share no disk with that process or with each other; they need the dataset's files, and the object store's
address and credentials in their environment.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from storage.errors import UserError
from storage.manifest import TrackRecord
from storage.remote.store import RemoteStore, upload_track
from storage.store import SpectrogramStore, require_config
from vocsep.datasets.songs import Dataset, Song
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.plan import Plan, is_same_dataset, plan
from vocsep.preprocessing.track import preprocess_song


def check_remote_store(url: str, dataset: Dataset, config: StoreConfig) -> None:
    """Raise `UserError` if the store at `url` is of another configuration or dataset, or cannot be reached."""
    held = RemoteStore.find(url)
    if held is not None:
        require_config(url, held.manifest, config.model_dump(mode="json"))
        _require_dataset(held, dataset)


def _require_dataset(held: RemoteStore, dataset: Dataset) -> None:
    if not is_same_dataset(held.manifest, dataset):
        other = held.manifest
        raise UserError(
            f"{held.url}: holds {other.kind} songs of {other.root}, not of {dataset.root}; give another URL"
        )


@contextlib.contextmanager
def updating_remote(
    url: str, dataset: Dataset, config: StoreConfig, *, prune: bool = False
) -> Iterator[tuple[RemoteStore, Plan]]:
    """Bring the store at `url` up to date with a dataset, as `update.updating` does with one on disk.

    The body has `preprocess_song_to` run for the plan's pending songs, and adds the tracks that it returns. Tracks of
    changed songs leave the manifest before they are made again. However the body ends, what it added is saved, if the
    object store can still be reached.

    Parameters
    ----------
    prune
        Drop tracks whose songs the dataset no longer has.

    Raises
    ------
    UserError
        As `check_remote_store`; if another process changes the store meanwhile.
    """
    described = {"kind": dataset.kind, "root": str(dataset.root)}
    remote = RemoteStore.open_or_create(
        url, config=config.model_dump(mode="json"), dataset=described, tool=f"vocsep {version('vocsep')}"
    )
    _require_dataset(remote, dataset)
    remote.manifest.dataset = described
    held = dict(remote.manifest.tracks)
    planned = SpectrogramStore(Path(), remote.manifest.model_copy(update={"tracks": dict(held)}))
    work = plan(planned, dataset)
    stays = {
        key
        for key, track in planned.manifest.tracks.items()
        if key not in {song.id for song in work.pending} and not (prune and track.name in work.gone)
    }
    remote.drop(held.keys() - stays)
    try:
        yield remote, work
    except BaseException:
        with contextlib.suppress(UserError):
            remote.save()
        raise
    remote.save()
    remote.sweep()


def preprocess_song_to(song: Song, url: str, config: StoreConfig) -> TrackRecord:
    """Decode one song, write its track to a temporary folder on this machine, and upload it whole.

    Raises
    ------
    UserError
        If the song's files cannot be read or do not go together, or the object store cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="vocsep-") as folder:
        store = Path(folder)
        (store / song.split).mkdir()
        record = preprocess_song(song, store, config)
        upload_track(store / record.folder, url, record)
    return record
