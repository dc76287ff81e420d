"""Flow `preprocess`: decode a dataset on Dask and write its spectrograms to the store."""

import errno
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import Outcome, dask_client, map_items
from flows.reporting import ProgressArtifact, SomeFailed, failing_in_one_line, result_of, say_what_to_do
from flows.stores import StoreLocation
from storage.files import is_disk_full
from storage.lock import require_free
from storage.manifest import TrackRecord
from storage.remote.store import RemoteStore
from storage.store import SpectrogramStore
from storage.track_writer import Compression
from vocsep.config import Settings
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset, Song
from vocsep.demo.dataset import make_demo
from vocsep.paths import DEMO, STORE
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.plan import Plan, check_store
from vocsep.preprocessing.remote import check_remote_store, preprocess_song_to, updating_remote
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import updating
from vocsep.progress import progress_bar
from vocsep.spectrograms.config import load_spectrogram_config


class PreprocessConfig(Settings):
    """Parameters of the flow.

    Attributes
    ----------
    dataset
        Root folder of the songs; None makes and uses the demo dataset.
    kind
        `auto`, `musdb18`, `musdb18-hq`, `folder` or `karaoke`.
    preset
        A spectral preset's name or a YAML file.
    dtype
        Stored type.
    compression
        `none` (patches are read through memory maps), `zstd` or `blosc` (10-15 % smaller, read far slower).
    store
        Where the store is or will be: a folder, or a URL of object storage.
    workers
        Processes of the local Dask cluster; None: one per core.
    prune
        Drop tracks whose songs are no longer in the dataset.
    """

    dataset: Path | None = None
    kind: str = "auto"
    preset: str = "fine"
    dtype: Literal["float16", "float32"] = "float16"
    compression: Compression = "none"
    store: StoreLocation = STORE
    workers: int | None = None
    prune: bool = False


class PreprocessResult(Settings):
    """What the flow did."""

    store: str
    made: int
    unchanged: int
    gone: tuple[str, ...]
    songs_hours: float
    seconds: float


def store_config(config: PreprocessConfig) -> StoreConfig:
    """The store's configuration that the flow's parameters name."""
    spectrogram = load_spectrogram_config(config.preset)
    return StoreConfig(spectrogram=spectrogram, dtype=config.dtype, compression=config.compression)


def check(config: PreprocessConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    expected = store_config(config)
    if isinstance(config.store, Path):
        require_free(config.store)
    if config.dataset is not None:
        dataset = open_dataset(config.dataset, config.kind)
        if isinstance(config.store, Path):
            check_store(config.store, dataset, expected)
        else:
            check_remote_store(config.store, dataset, expected)


@task(name="make demo dataset", cache_policy=NO_CACHE)
@failing_in_one_line
def make_demo_dataset(root: Path) -> Path:
    """Make the demo dataset unless it is there."""
    with progress_bar(16, "demo songs", "songs") as bar:
        make_demo(root, on_song=lambda _: bar.update(1))
    return root


@task(name="preprocess songs", cache_policy=NO_CACHE)
@failing_in_one_line
def preprocess_songs(root: Path, config: PreprocessConfig) -> PreprocessResult:
    """Bring the store up to date with the dataset; finished songs are named in the manifest a moment later."""
    started = time.monotonic()
    dataset = open_dataset(root, config.kind)
    expected = store_config(config)
    failures = dict(dataset.problems)
    outcomes: list[Outcome[Song, TrackRecord | None]] = []
    with _updating(config, dataset, expected) as (update, work):
        if work.pending:
            target = config.store.resolve() if isinstance(config.store, Path) else config.store
            outcomes = _write_tracks(update, target, work.pending, expected, config.workers)
    failures |= {outcome.item.name: outcome.error for outcome in outcomes if outcome.error is not None}
    create_table_artifact(_table(dataset, outcomes), key="preprocess-songs", description="Songs of this run")
    if failures:
        raise SomeFailed(failures, len(dataset.songs) + len(dataset.problems), "songs")
    return PreprocessResult(
        store=str(config.store),
        made=len(outcomes),
        unchanged=work.finished,
        gone=work.gone,
        songs_hours=sum(track.seconds for track in update.manifest.tracks.values()) / 3600,
        seconds=time.monotonic() - started,
    )


def _updating(
    config: PreprocessConfig, dataset: Dataset, expected: StoreConfig
) -> AbstractContextManager[tuple[SpectrogramStore | RemoteStore, Plan]]:
    if isinstance(config.store, Path):
        return updating(config.store, dataset, expected, prune=config.prune)
    return updating_remote(config.store, dataset, expected, prune=config.prune)


def _write_tracks(
    update: SpectrogramStore | RemoteStore,
    target: Path | str,
    songs: tuple[Song, ...],
    config: StoreConfig,
    workers: int | None,
) -> list[Outcome[Song, TrackRecord | None]]:
    artifact = ProgressArtifact("preprocess-progress", "Share of the songs that are done")

    def on_outcome(outcome: Outcome[Song, TrackRecord | None], finished: int) -> None:
        if outcome.result is not None:
            update.add(outcome.result)
        elif outcome.error is None:
            # Every other song would meet the same; those that wait are dropped with the cluster.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        artifact.update(finished / len(songs))

    with dask_client(workers, len(songs)) as client:
        return map_items(
            client,
            write_song,
            songs,
            (target, config),
            description="preprocess",
            unit="songs",
            on_outcome=on_outcome,
        )


def write_song(song: Song, store: Path | str, config: StoreConfig) -> TrackRecord | None:
    """Runs on the worker: the song's track, or None if the disk is full, which trying again would not change."""
    try:
        if isinstance(store, str):
            return preprocess_song_to(song, store, config)
        return preprocess_song(song, store, config)
    except OSError as error:
        if is_disk_full(error):
            return None
        raise


def _table(dataset: Dataset, outcomes: list[Outcome[Song, TrackRecord | None]]) -> list[dict[str, str]]:
    rows = [
        {
            "song": outcome.item.name,
            "split": outcome.item.split,
            "seconds": f"{outcome.result.seconds:.1f}" if outcome.result else "",
            "frames": str(outcome.result.frames) if outcome.result else "",
            "megabytes": f"{outcome.result.bytes / 1e6:.1f}" if outcome.result else "",
            "state": outcome.error or "written",
        }
        for outcome in sorted(outcomes, key=lambda outcome: (outcome.error is None, outcome.item.name))
    ]
    return [{"song": name, "state": reason} for name, reason in dataset.problems.items()] + rows


@flow(name="preprocess", on_failure=[say_what_to_do], on_crashed=[say_what_to_do])
@failing_in_one_line
def preprocess(config: PreprocessConfig = PreprocessConfig()) -> PreprocessResult:  # noqa: B008 (Prefect reads it)
    """Write the spectrograms of a dataset to the store; only what is missing or changed is made."""
    root = config.dataset if config.dataset is not None else result_of(make_demo_dataset, DEMO)
    return result_of(preprocess_songs, root, config)
