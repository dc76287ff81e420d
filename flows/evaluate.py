"""Flow `evaluate`: score a model on a dataset's songs on Dask, and write the report."""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import Outcome, dask_client, map_items
from flows.paths import MODELS, REPORTS, STORE
from flows.reporting import ProgressArtifact, SomeFailed, failing_in_one_line
from vocsep.config import Settings
from vocsep.dataset import Song
from vocsep.evaluation import Engine, SongScores, Target, evaluate_song, resolve_evaluation
from vocsep.report import decibels, report_folder, report_markdown, write_report


class EvaluateConfig(Settings):
    """Parameters of the flow.

    Attributes
    ----------
    model
        `latest`, `champion`, a version's number or a model folder.
    dataset, kind
        Songs with known stems; None: the dataset that the store was made from.
    split
        Which of its songs.
    engine
        `fast`, or `museval` for the reference implementation.
    """

    model: str = "latest"
    dataset: Path | None = None
    kind: str = "auto"
    split: str = "test"
    engine: Engine = "fast"
    store: Path = STORE
    models: Path = MODELS
    reports: Path = REPORTS
    workers: int | None = None


class EvaluateResult(Settings):
    """Where the report is, and its rows."""

    report: str
    songs: int
    rows: dict[str, Any]


def resolve(config: EvaluateConfig) -> Target:
    """What the parameters name; `UserError` if a part of it is missing."""
    return resolve_evaluation(config.models, config.model, config.dataset, config.kind, config.split, config.store)


def check(config: EvaluateConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    resolve(config)


@task(name="score songs", cache_policy=NO_CACHE)
@failing_in_one_line
def score_songs(config: EvaluateConfig) -> EvaluateResult:
    """Score every song on a Dask worker, then write the report from the small records that come back."""
    target = resolve(config)
    folder = report_folder(config.reports, target.model)
    artifact = ProgressArtifact("evaluate-progress", "Share of the songs that are scored")

    def on_outcome(outcome: Outcome[Song, SongScores], finished: int) -> None:
        artifact.update(finished / len(target.songs))

    with dask_client(config.workers, len(target.songs)) as client:
        outcomes = map_items(
            client,
            evaluate_song,
            target.songs,
            (config.models.resolve(), target.model_name, folder.resolve(), config.engine),
            description="evaluate",
            unit="songs",
            on_outcome=on_outcome,
        )
    scored = [outcome.result for outcome in outcomes if outcome.result is not None]
    failures = {outcome.item.name: outcome.error for outcome in outcomes if outcome.error is not None}
    summary = write_report(folder, target, scored, failures)
    create_markdown_artifact(report_markdown(summary, scored, pictures=False), key="evaluation-report")
    create_table_artifact(_table(scored), key="evaluation-songs", description="Medians in dB")
    if failures:
        raise SomeFailed(failures, len(target.songs), "songs")
    return EvaluateResult(report=str(folder), songs=len(scored), rows=summary["rows"])


def _table(songs: list[SongScores]) -> list[dict[str, str]]:
    return [
        {
            "song": song.name,
            "vocals SDR": decibels(song.median("model", "vocals", "SDR")),
            "floor": decibels(song.median("mixture", "vocals", "SDR")),
            "ceiling": decibels(song.median("irm1", "vocals", "SDR")),
            "accompaniment SDR": decibels(song.median("model", "accompaniment", "SDR")),
        }
        for song in sorted(songs, key=lambda song: song.name)
    ]


@flow(name="evaluate")
@failing_in_one_line
def evaluate(config: EvaluateConfig = EvaluateConfig()) -> EvaluateResult:  # noqa: B008 (Prefect reads it)
    """Score a model beside the mixture and the ideal ratio mask, and write a report."""
    return score_songs(config)
