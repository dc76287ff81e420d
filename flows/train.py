"""Flow `train`: train a model from the store and add it to the registry."""

import time
from dataclasses import asdict
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.reporting import PictureArtifact, ProgressArtifact
from vocsep.tables import markdown_table, plain
from vocsep.training import step
from vocsep.training.fit import TrainResult
from vocsep.training.plot import learning_curves, newest_run
from vocsep.training.step import TrainJob

CURVES_INTERVAL_SECONDS = 60.0


@task(name="fit", cache_policy=NO_CACHE)
@failing_in_one_line
def fit_model(config: TrainJob, promote: bool = True) -> TrainResult:
    """Train in this process: never on a Dask worker, which may not have child processes."""
    artifact = ProgressArtifact("train-progress", "Used share of the training budget")
    curves = PictureArtifact("train-curves", "Loss, validation SDR and learning rate over the steps")
    drawn = time.monotonic()

    def progress(used: float, whole: float) -> None:
        nonlocal drawn
        artifact.update(used, whole)
        if time.monotonic() - drawn >= CURVES_INTERVAL_SECONDS and (run := newest_run(config.runs)):
            curves.show(learning_curves(run))
            drawn = time.monotonic()

    result = step.train(config, progress=progress, promote=promote)
    assert result is not None
    curves.show(learning_curves(Path(result.run_folder)))
    table = [[name, plain(str(value))] for name, value in asdict(result).items()]
    create_markdown_artifact(markdown_table([["", ""], *table]), key="train-result")
    return result


@flow(name="train", **HOOKS)
@failing_in_one_line
def train(config: TrainJob = TrainJob()) -> TrainResult:  # noqa: B008 (Prefect reads it)
    """Train a network from random patches of the store; the best weights by validation SDR enter the registry."""
    return result_of(fit_model, config)
