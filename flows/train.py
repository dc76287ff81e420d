"""Flow `train`: train a model from the store and add it to the registry."""

import time
from dataclasses import asdict
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.reporting import PictureArtifact, ProgressArtifact, failing_in_one_line, result_of, say_what_to_do
from flows.stores import StoreLocation, on_disk, require_store
from vocsep.paths import MODELS, RUNS, STORE
from vocsep.tables import markdown_table
from vocsep.training import launch
from vocsep.training.config import TrainConfig
from vocsep.training.fit import TrainResult
from vocsep.training.plot import learning_curves, newest_run

CURVES_INTERVAL_SECONDS = 60.0


class TrainFlowConfig(TrainConfig):
    """Parameters of the flow: those of training, where things are, and whether an unfinished run goes on.

    `resume` is `auto` (the newest unfinished run of the same settings and songs goes on), `never`, or a run's folder.
    """

    store: StoreLocation = STORE
    models: Path = MODELS
    runs: Path = RUNS
    resume: str = "auto"


def check(config: TrainFlowConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    require_store(config.store)


@task(name="fit", cache_policy=NO_CACHE)
@failing_in_one_line
def fit_model(config: TrainFlowConfig, promote: bool = True) -> TrainResult:
    """Train in this process: never on a Dask worker, which may not have child processes."""
    artifact = ProgressArtifact("train-progress", "Used share of the training budget")
    curves = PictureArtifact("train-curves", "Loss, validation SDR and learning rate over the steps")
    drawn = time.monotonic()

    def on_progress(used: float) -> None:
        nonlocal drawn
        artifact.update(used)
        if time.monotonic() - drawn >= CURVES_INTERVAL_SECONDS and (run := newest_run(config.runs)):
            curves.show(learning_curves(run))
            drawn = time.monotonic()

    training = TrainConfig.model_validate(config.model_dump(include=set(TrainConfig.model_fields)))
    store = on_disk(config.store, ("train", "valid"))
    result = launch.train(training, store, config.models, config.runs, config.resume, on_progress, promote)
    assert result is not None
    curves.show(learning_curves(Path(result.run_folder)))
    table = [[name, str(value)] for name, value in asdict(result).items()]
    create_markdown_artifact(markdown_table([["", ""], *table]), key="train-result")
    return result


@flow(name="train", on_failure=[say_what_to_do], on_crashed=[say_what_to_do])
@failing_in_one_line
def train(config: TrainFlowConfig = TrainFlowConfig()) -> TrainResult:  # noqa: B008 (Prefect reads it)
    """Train a U-Net from random patches of the store; the best weights by validation SDR enter the registry."""
    return result_of(fit_model, config)
