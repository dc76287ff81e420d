"""Flow `train`: train a model from the store and add it to the registry."""

import time
from dataclasses import asdict
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name, task_run_name
from flows.reporting import PictureArtifact, ProgressArtifact
from vocsep.tables import markdown_table, plain
from vocsep.training import step
from vocsep.training.config import TrainConfig
from vocsep.training.fit import TrainResult
from vocsep.training.plot import learning_curves, newest_run
from vocsep.training.step import TrainJob

CURVES_INTERVAL_SECONDS = 60.0


def budget(config: TrainConfig) -> str:
    """In words, as in `60 min`."""
    parts = ((config.steps, "steps"), (config.epochs, "epochs"), (config.max_minutes, "min"))
    return " or ".join(f"{value:.6g} {unit}" for value, unit in parts if value is not None) or "default budget"


def _name(config: TrainJob) -> str:
    """As in `train tfc-tdf, 60 min`."""
    return f"train {config.training.network}, {budget(config.training)}"


@task(name="fit", task_run_name=task_run_name(_name), cache_policy=NO_CACHE)
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
    create_markdown_artifact(
        markdown_table([["", ""], *table]),
        key="train-result",
        description="What was trained, its score, and where it is",
    )
    return result


@flow(name="train", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def train(config: TrainJob = TrainJob()) -> TrainResult:  # noqa: B008 (Prefect reads it)
    """Train a network from random patches of the store; the best weights by validation SDR enter the registry."""
    return result_of(fit_model, config)
