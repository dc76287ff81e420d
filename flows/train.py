"""Flow `train`: train a model from the store and add it to the registry."""

from dataclasses import asdict
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.paths import MODELS, RUNS, STORE
from flows.reporting import ProgressArtifact, failing_in_one_line
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from vocsep.report_text import markdown_table
from vocsep.training import TrainConfig, TrainResult, fit


class TrainFlowConfig(TrainConfig):
    """Parameters of the flow: those of training, and where things are."""

    store: Path = STORE
    models: Path = MODELS
    runs: Path = RUNS


def check(config: TrainFlowConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    SpectrogramStore.open(config.store)


@task(name="fit", cache_policy=NO_CACHE)
@failing_in_one_line
def fit_model(config: TrainFlowConfig) -> TrainResult:
    """Train in this process: never on a Dask worker, which may not have child processes."""
    artifact = ProgressArtifact("train-progress", "Used share of the training budget")
    training = TrainConfig.model_validate(config.model_dump(include=set(TrainConfig.model_fields)))
    store = SpectrogramStore.open(config.store)
    result = fit(training, store, ModelRegistry(config.models), config.runs, on_progress=artifact.update)
    table = [[name, str(value)] for name, value in asdict(result).items()]
    create_markdown_artifact(markdown_table([["", ""], *table]), key="train-result")
    return result


@flow(name="train")
@failing_in_one_line
def train(config: TrainFlowConfig = TrainFlowConfig()) -> TrainResult:  # noqa: B008 (Prefect reads it)
    """Train a U-Net from random patches of the store; the best weights by validation SDR enter the registry."""
    return fit_model(config)
