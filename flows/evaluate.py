"""Flow `evaluate`: score a model on a dataset's songs on Dask, and write the report."""

from pathlib import Path
from typing import Any

from distributed import Client
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import Outcome, dask_client, map_items
from flows.reporting import ProgressArtifact, SomeFailed, failing_in_one_line, picture, result_of, say_what_to_do
from vocsep.config import Settings
from vocsep.datasets.songs import Song
from vocsep.evaluation.exhibits import Exhibit, make_exhibit
from vocsep.evaluation.report.text import report_markdown, song_table
from vocsep.evaluation.report.writing import best_first, report_folder, songs_to_exhibit, write_report
from vocsep.evaluation.score_files import read_scores, save_scores
from vocsep.evaluation.scores import Engine, SongScores, evaluate_song
from vocsep.evaluation.target import Target, resolve_evaluation
from vocsep.paths import MODELS, REPORTS, STORE
from vocsep.preprocessing.location import StoreLocation, on_disk


class EvaluateConfig(Settings):
    """Parameters of the flow.

    Attributes
    ----------
    model
        `latest`, `champion`, a version's number or a model folder.
    estimates
        A folder of estimates made elsewhere, scored in the model's place.
    against
        A model to compare with, song by song; None: the champion, where it is another model.
    dataset, kind
        Songs with known stems; None: the dataset that the store was made from.
    split
        Which of its songs.
    engine
        `fast`, or `museval` for the reference implementation.
    """

    model: str = "latest"
    estimates: Path | None = None
    against: str | None = None
    dataset: Path | None = None
    kind: str = "auto"
    split: str = "test"
    engine: Engine = "fast"
    store: StoreLocation = STORE
    models: Path = MODELS
    reports: Path = REPORTS
    workers: int | None = None


class EvaluateResult(Settings):
    """Where the report is, and its figures."""

    report: str
    summary: dict[str, Any]


def resolve(config: EvaluateConfig) -> Target:
    """What the parameters name; `UserError` if a part of it is missing."""
    return resolve_evaluation(
        config.models,
        config.model,
        config.dataset,
        config.kind,
        config.split,
        on_disk(config.store, ()),
        estimates=config.estimates,
        against=config.against,
    )


def check(config: EvaluateConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    resolve(config)


@task(name="score songs", cache_policy=NO_CACHE)
@failing_in_one_line
def score_songs(config: EvaluateConfig, folder: Path | None = None) -> EvaluateResult:
    """Score every song on a Dask worker, then write the report from the small records that come back.

    Parameters
    ----------
    folder
        Of a report that was begun: songs that have their scores in it are not scored again. None: a new one.
    """
    target = resolve(config)
    folder = (folder or report_folder(config.reports, target)).resolve()
    held = read_scores(folder)
    scored = [held[song.id] for song in target.songs if song.id in held]
    songs = [song for song in target.songs if song.id not in held]
    artifact = ProgressArtifact("evaluate-progress", "Share of the songs that are scored")

    def on_outcome(outcome: Outcome[Song, SongScores], finished: int) -> None:
        if outcome.result is not None:
            save_scores(folder, outcome.result)
        artifact.update((len(target.songs) - len(songs) + finished) / len(target.songs))

    with dask_client(config.workers, len(target.songs)) as client:
        outcomes = map_items(
            client,
            evaluate_song,
            songs,
            (target.subjects, folder, config.engine),
            description="evaluate",
            unit="songs",
            on_outcome=on_outcome,
        )
        scored += [outcome.result for outcome in outcomes if outcome.result is not None]
        failures = {outcome.item.name: outcome.error for outcome in outcomes if outcome.error is not None}
        exhibits = _exhibits(client, target, scored, folder)
    summary = write_report(folder, target, scored, failures, exhibits)
    pictures = [picture((folder / name).read_bytes(), name) for name in ("songs.png", "over_time.png")]
    text = report_markdown(summary, best_first(scored), pictures=False)
    create_markdown_artifact("\n\n".join([text, *pictures]), key="evaluation-report")
    header, *lines = song_table(best_first(scored))
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    create_table_artifact(rows, key="evaluation-songs", description="Medians in dB")
    if failures:
        raise SomeFailed(failures, len(target.songs), "songs")
    return EvaluateResult(report=str(config.reports / folder.name), summary=summary)


def _exhibits(client: Client, target: Target, scored: list[SongScores], folder: Path) -> dict[str, Exhibit]:
    """Draw and cut the songs that the report shows, on the workers too."""
    songs = {song.id: song for song in target.songs}
    chosen = {title: songs[scores.track_id] for title, scores in songs_to_exhibit(scored).items()}
    outcomes = map_items(
        client,
        make_exhibit,
        list(chosen.values()),
        (target.subjects["model"], folder / "exhibits"),
        description="pictures",
        unit="songs",
        on_outcome=lambda outcome, finished: None,
    )
    made = {outcome.item.id: outcome.result for outcome in outcomes if outcome.result is not None}
    return {title: made[song.id] for title, song in chosen.items() if song.id in made}


@flow(name="evaluate", on_failure=[say_what_to_do], on_crashed=[say_what_to_do])
@failing_in_one_line
def evaluate(config: EvaluateConfig = EvaluateConfig()) -> EvaluateResult:  # noqa: B008 (Prefect reads it)
    """Score a model beside the mixture and the ideal ratio mask, and write a report."""
    return result_of(score_songs, config)
