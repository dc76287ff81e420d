"""Flow `separate`: separate files and folders of songs on Dask."""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.cluster import Outcome, dask_client, map_items
from flows.reporting import ProgressArtifact, SomeFailed, failing_in_one_line, result_of, say_what_to_do
from storage.registry import ModelRegistry
from vocsep.config import Settings
from vocsep.paths import MODELS, SEPARATED
from vocsep.separation.cache import cached_separator
from vocsep.separation.files import Separated, separate_file
from vocsep.separation.outputs import inputs_to_separate
from vocsep.separation.settings import SeparationSettings


class SeparateConfig(SeparationSettings):
    """Parameters of the flow, beside those of every separation.

    Attributes
    ----------
    inputs
        Audio files, and folders that are searched for them.
    output
        Folder that gets the stems.
    models
        Model registry.
    workers
        Dask processes; None takes one per core.
    """

    inputs: tuple[Path, ...] = Field(min_length=1)
    output: Path = SEPARATED
    models: Path = MODELS
    workers: int | None = None


class SeparateResult(Settings):
    """What was written."""

    output: str
    files: tuple[str, ...]


def check(config: SeparateConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    if config.engine == "torch":
        ModelRegistry(config.models).open(config.model)
    inputs_to_separate(config.inputs, config.output, config.name)


def separate_on_worker(path: Path, output: Path, models: Path, settings: SeparationSettings) -> Separated:
    """Separate one file; the model stays loaded for the worker's next one."""
    separator = cached_separator(
        models,
        settings.model,
        device=settings.device,
        engine=settings.engine,
        overlap=settings.overlap,
        wiener=settings.wiener,
    )
    return separate_file(path, output, separator, settings)


@task(name="separate songs", cache_policy=NO_CACHE)
@failing_in_one_line
def separate_songs(config: SeparateConfig) -> SeparateResult:
    """Separate every file on a Dask worker; paths go there and come back."""
    settings = SeparationSettings(**{name: getattr(config, name) for name in SeparationSettings.model_fields})
    if config.engine == "torch":
        # One model for all songs, even if the champion moves meanwhile.
        model = ModelRegistry(config.models).open(config.model)
        settings = settings.model_copy(update={"model": str(model.path.resolve())})
    songs = [path.resolve() for path in inputs_to_separate(config.inputs, config.output, config.name)]
    artifact = ProgressArtifact("separate-progress", "Share of the files that are separated")

    def on_outcome(outcome: Outcome[Path, Separated], finished: int) -> None:
        artifact.update(finished / len(songs))

    with dask_client(config.workers, len(songs)) as client:
        outcomes = map_items(
            client,
            separate_on_worker,
            songs,
            (config.output.resolve(), config.models.resolve(), settings),
            description="separate",
            unit="songs",
            on_outcome=on_outcome,
        )
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    table = [{"file": str(result.path), **_figures(result)} for result in results]
    failures = {outcome.item.name: outcome.error for outcome in outcomes if outcome.error is not None}
    create_table_artifact(
        table + [{"file": name, "state": error} for name, error in failures.items()], key="separated-files"
    )
    if failures:
        raise SomeFailed(failures, len(songs), "files")
    return SeparateResult(
        output=str(config.output), files=tuple(str(file) for result in results for file in result.outputs.values())
    )


def _figures(result: Separated) -> dict[str, str]:
    if not result.is_new:
        return {"state": "was there already"}
    return {
        "state": "separated",
        "length": f"{result.seconds:.1f} s",
        "took": f"{result.wall_seconds:.1f} s",
        "cut off": f"{result.clipped_samples} samples",
    }


@flow(name="separate", on_failure=[say_what_to_do], on_crashed=[say_what_to_do])
@failing_in_one_line
def separate(config: SeparateConfig) -> SeparateResult:
    """Separate songs into vocals and accompaniment with a trained model."""
    return result_of(separate_songs, config)
