"""Flow `preprocess`: decode a dataset on Dask and write its spectrograms to the store."""

import time
from pathlib import Path
from typing import Literal

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import Outcome, dask_client, map_items
from flows.paths import DEMO, STORE
from flows.reporting import ProgressArtifact, SomeFailed, failing_in_one_line
from storage.manifest import TrackRecord
from storage.store import SpectrogramStore
from vocsep.config import Settings, load_spectrogram_config
from vocsep.dataset import Dataset, Song, open_dataset
from vocsep.demo import make_demo
from vocsep.preprocessing import StoreConfig, check_store, open_store, plan
from vocsep.progress import progress_bar
from vocsep.song_spectrograms import preprocess_song

SAVE_INTERVAL_SECONDS = 1.0


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
    store
        Where the store is or will be.
    workers
        Processes of the local Dask cluster; None: one per core.
    """

    dataset: Path | None = None
    kind: str = "auto"
    preset: str = "fine"
    dtype: Literal["float16", "float32"] = "float16"
    store: Path = STORE
    workers: int | None = None


class PreprocessResult(Settings):
    """What the flow did."""

    store: str
    made: int
    unchanged: int
    gone: int
    songs_hours: float
    seconds: float


def store_config(config: PreprocessConfig) -> StoreConfig:
    """The store's configuration that the flow's parameters name."""
    return StoreConfig(spectrogram=load_spectrogram_config(config.preset), dtype=config.dtype)


def check(config: PreprocessConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    expected = store_config(config)
    if config.dataset is not None:
        check_store(config.store, open_dataset(config.dataset, config.kind), expected)


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
    """Bring the store up to date with the dataset; finished songs are named in the manifest within a second."""
    started = time.monotonic()
    dataset = open_dataset(root, config.kind)
    expected = store_config(config)
    store = open_store(config.store, dataset, expected)
    store.discard_unfinished()
    work = plan(store, dataset)
    failures = dict(dataset.problems)
    outcomes = _write_tracks(store, work.pending, expected, config.workers) if work.pending else []
    store.discard_unfinished()
    store.save()
    failures |= {outcome.item.name: outcome.error for outcome in outcomes if outcome.error is not None}
    create_table_artifact(_table(dataset, outcomes), key="preprocess-songs", description="Songs of this run")
    if failures:
        raise SomeFailed(failures, len(dataset.songs) + len(dataset.problems), "songs")
    return PreprocessResult(
        store=str(config.store),
        made=len(outcomes),
        unchanged=work.finished,
        gone=len(work.gone),
        songs_hours=sum(track.seconds for track in store.manifest.tracks.values()) / 3600,
        seconds=time.monotonic() - started,
    )


def _write_tracks(
    store: SpectrogramStore, songs: tuple[Song, ...], config: StoreConfig, workers: int | None
) -> list[Outcome[Song, TrackRecord]]:
    artifact = ProgressArtifact("preprocess-progress", "Share of the songs that are done")
    saved = time.monotonic()

    def on_outcome(outcome: Outcome[Song, TrackRecord], finished: int) -> None:
        nonlocal saved
        if outcome.result is not None:
            store.add(outcome.result)
        if time.monotonic() - saved >= SAVE_INTERVAL_SECONDS:
            store.save()
            saved = time.monotonic()
        artifact.update(finished / len(songs))

    with dask_client(workers, len(songs)) as client:
        return map_items(
            client,
            preprocess_song,
            songs,
            (store.path.resolve(), config),
            description="preprocess",
            unit="songs",
            on_outcome=on_outcome,
        )


def _table(dataset: Dataset, outcomes: list[Outcome[Song, TrackRecord]]) -> list[dict[str, str]]:
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


@flow(name="preprocess", log_prints=False)
@failing_in_one_line
def preprocess(config: PreprocessConfig = PreprocessConfig()) -> PreprocessResult:  # noqa: B008 (Prefect reads it)
    """Write the spectrograms of a dataset to the store; only what is missing or changed is made."""
    root = config.dataset if config.dataset is not None else make_demo_dataset(DEMO)
    return preprocess_songs(root, config)
