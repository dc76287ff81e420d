"""Flow `evaluate`: score a model on a dataset's songs on Dask, and write the report."""

import contextlib
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import dask_map
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name, task_run_name
from flows.reporting import ProgressArtifact, picture, shown
from storage.errors import UserError
from vocsep.evaluation import step
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.report.text import report_markdown, song_table
from vocsep.evaluation.report.writing import best_first
from vocsep.evaluation.step import EvaluateResult
from vocsep.models.registry import open_registry
from vocsep.tables import plain_rows


def _name(config: EvaluateConfig) -> str:
    """As in `evaluate model 3`."""
    subject = f"estimates in {config.estimates.resolve().name}" if config.estimates else f"model {config.model}"
    with contextlib.suppress(UserError, OSError):  # the run itself says what is wrong
        if config.estimates is None:
            model = open_registry(config.models).open(config.model)
            subject = f"model {model.path.name if model.version is None else model.version}"
    return f"evaluate {subject}" + ("" if config.split == "test" else f", {config.split} songs")


@task(name="score songs", task_run_name=task_run_name(_name), cache_policy=NO_CACHE)
@failing_in_one_line
def score_songs(config: EvaluateConfig, folder: Path | None = None) -> EvaluateResult:
    """Score every song on a Dask worker, and write the report into `folder`, by default a new one."""
    artifact = ProgressArtifact("evaluate-progress", "Share of the songs that are scored")
    with dask_map(config.workers, "evaluate") as mapped:
        return shown(lambda: step.evaluate(config, progress=artifact.update, map=mapped, folder=folder), _show)


def _show(result: EvaluateResult) -> None:
    ordered = best_first(result.songs)
    pictures = [picture((Path(result.report) / name).read_bytes(), name) for name in ("songs.png", "over_time.png")]
    text = report_markdown(result.summary, ordered, pictures=False)
    create_markdown_artifact(
        "\n\n".join([text, *pictures]), key="evaluation-report", description="Scores between floor and ceiling"
    )
    header, *lines = song_table(ordered)
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    create_table_artifact(plain_rows(rows), key="evaluation-songs", description="Scores of every song: medians in dB")


@flow(name="evaluate", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def evaluate(config: EvaluateConfig = EvaluateConfig()) -> EvaluateResult:  # noqa: B008 (Prefect reads it)
    """Score a model, the mixture and the ideal ratio mask, and write a report."""
    return result_of(score_songs, config)
