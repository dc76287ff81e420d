"""Flow `separate`: separate files and folders of songs on Dask."""

from pathlib import Path
from typing import Literal

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.cluster import Outcome, dask_client, map_items
from flows.paths import MODELS, SEPARATED
from flows.reporting import ProgressArtifact, SomeFailed, failing_in_one_line, result_of
from storage.registry import ModelRegistry
from vocsep.config import Settings
from vocsep.separation import inputs_to_separate, separate_file


class SeparateConfig(Settings):
    """Parameters of the flow.

    Attributes
    ----------
    inputs
        Audio files, and folders that are searched for them.
    output
        Folder that gets `<song>/vocals` and `<song>/accompaniment`.
    model
        `champion`, `latest`, a version's number or a model folder.
    container
        Format of the outputs.
    """

    inputs: tuple[Path, ...] = Field(min_length=1)
    output: Path = SEPARATED
    model: str = "champion"
    container: Literal["wav", "flac"] = "wav"
    models: Path = MODELS
    workers: int | None = None


class SeparateResult(Settings):
    """What was written."""

    output: str
    files: tuple[str, ...]


def check(config: SeparateConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    ModelRegistry(config.models).open(config.model)
    inputs_to_separate(config.inputs, config.output)


@task(name="separate songs", cache_policy=NO_CACHE)
@failing_in_one_line
def separate_songs(config: SeparateConfig) -> SeparateResult:
    """Separate every file on a Dask worker; paths go there and come back."""
    model = ModelRegistry(config.models).open(config.model)
    songs = [path.resolve() for path in inputs_to_separate(config.inputs, config.output)]
    artifact = ProgressArtifact("separate-progress", "Share of the files that are separated")

    def on_outcome(outcome: Outcome[Path, list[Path]], finished: int) -> None:
        artifact.update(finished / len(songs))

    name = str(model.version) if model.version is not None else str(model.path.resolve())
    with dask_client(config.workers, len(songs)) as client:
        outcomes = map_items(
            client,
            separate_file,
            songs,
            (config.models.resolve(), name, config.output.resolve(), config.container),
            description="separate",
            unit="songs",
            on_outcome=on_outcome,
        )
    table = [{"file": str(outcome.item), "state": outcome.error or "separated"} for outcome in outcomes]
    create_table_artifact(table, key="separated-files")
    failures = {outcome.item.name: outcome.error for outcome in outcomes if outcome.error is not None}
    if failures:
        raise SomeFailed(failures, len(songs), "files")
    return SeparateResult(
        output=str(config.output), files=tuple(str(path) for outcome in outcomes for path in outcome.result or [])
    )


@flow(name="separate")
@failing_in_one_line
def separate(config: SeparateConfig) -> SeparateResult:
    """Separate songs into vocals and accompaniment with a trained model."""
    return result_of(separate_songs, config)
