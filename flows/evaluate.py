"""Flow `evaluate`: score a model on a dataset's songs on Dask, and write the report."""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import dask_map
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.reporting import ProgressArtifact, picture, shown
from vocsep.evaluation import step
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.report.text import report_markdown, song_table
from vocsep.evaluation.report.writing import best_first
from vocsep.evaluation.step import EvaluateResult
from vocsep.tables import plain_rows


@task(name="score songs", cache_policy=NO_CACHE)
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
    create_markdown_artifact("\n\n".join([text, *pictures]), key="evaluation-report")
    header, *lines = song_table(ordered)
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    create_table_artifact(plain_rows(rows), key="evaluation-songs", description="Medians in dB")


@flow(name="evaluate", **HOOKS)
@failing_in_one_line
def evaluate(config: EvaluateConfig = EvaluateConfig()) -> EvaluateResult:  # noqa: B008 (Prefect reads it)
    """Score a model beside the mixture and the ideal ratio mask, and write a report."""
    return result_of(score_songs, config)
