"""Flow `preprocess`: decode a dataset on Dask and write its spectrograms to the store."""

import contextlib

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import dask_map
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name, task_run_name
from flows.reporting import ProgressArtifact, shown
from storage.errors import UserError
from vocsep.datasets.layouts import open_dataset
from vocsep.preprocessing import step
from vocsep.preprocessing.step import PreprocessConfig, PreprocessResult
from vocsep.tables import plain_rows


def _name(config: PreprocessConfig) -> str:
    """As in `preprocess 119 songs of musdb18, fine`."""
    songs = "demo songs"
    if config.dataset is not None:
        songs = f"songs of {config.dataset.resolve().name}"
        with contextlib.suppress(UserError, OSError):  # the run itself says what is wrong
            songs = f"{len(open_dataset(config.dataset, config.kind).songs)} {songs}"
    return f"preprocess {songs}, {config.preset}"


@task(name="preprocess songs", task_run_name=task_run_name(_name), cache_policy=NO_CACHE)
@failing_in_one_line
def preprocess_songs(config: PreprocessConfig) -> PreprocessResult:
    """Bring the store up to date, a song per Dask task."""
    artifact = ProgressArtifact("preprocess-progress", "Share of the songs that are done")
    with dask_map(config.workers, "preprocess") as mapped:
        return shown(lambda: step.preprocess(config, progress=artifact.update, map=mapped), _show)


def _show(result: PreprocessResult) -> None:
    create_table_artifact(plain_rows(result.songs), key="preprocess-songs", description="Songs of this run")


@flow(name="preprocess", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def preprocess(config: PreprocessConfig = PreprocessConfig()) -> PreprocessResult:  # noqa: B008 (Prefect reads it)
    """Write the spectrograms of a dataset to the store; only what is missing or changed is made."""
    return result_of(preprocess_songs, config)
