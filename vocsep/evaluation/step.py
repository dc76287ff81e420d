"""The step `evaluate`: a model's scores on songs with known stems, and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import UserError
from storage.files import remove
from vocsep.datasets.songs import Song
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.examples import Example, make_example
from vocsep.evaluation.report.text import summary_lines
from vocsep.evaluation.report.writing import example_songs, report_folder, write_report
from vocsep.evaluation.score_files import read_scores, save_scores
from vocsep.evaluation.scores import SongScores
from vocsep.evaluation.song import evaluate_song
from vocsep.evaluation.target import Target, resolve
from vocsep.mapping import Map, Outcome, SomeFailed, failures_of, serial
from vocsep.progress import Progress


@dataclass(frozen=True)
class EvaluateResult:
    """Where the report is, its figures (see `summary.json`), and the scores of every song."""

    report: str
    summary: dict[str, Any]
    songs: tuple[SongScores, ...]

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"evaluate: {self.summary['songs']} {self.summary['split']} songs",
            *summary_lines(self.summary),
            f"  report: {self.report}/report.html, report.md (also in {Path(self.report).parent}/latest)",
        ]

    def to_json(self) -> dict[str, Any]:
        """Report and summary."""
        return {"report": self.report, "summary": self.summary}


def check(config: EvaluateConfig) -> None:
    """Raise `UserError` if model, songs or estimates are missing."""
    resolve(config)


def evaluate(
    config: EvaluateConfig, *, progress: Progress | None = None, map: Map = serial, folder: Path | None = None
) -> EvaluateResult:
    """Score a model, the mixture and the ideal ratio masks, and write a report.

    Parameters
    ----------
    progress
        Called with the songs that are scored, of how many.
    map
        What songs are spread over; each is read, separated and scored where it runs.
    folder
        Of a report that was begun: songs that have their scores in it are not scored again. None: a new one.

    Raises
    ------
    UserError
        If model, songs or estimates are missing, or no song at all could be scored.
    SomeFailed
        If some songs could not be scored; the report is of the others.

    Examples
    --------
    >>> result = evaluate(EvaluateConfig(model="champion"))  # doctest: +SKIP
    >>> result.summary["rows"]["model"]["vocals"]["SDR"]["median"]  # doctest: +SKIP
    """
    target = resolve(config)
    is_new = folder is None
    folder = (folder or report_folder(config.reports, target)).resolve()
    held = read_scores(folder)
    scored = [held[song.id] for song in target.songs if song.id in held]
    pending = [song for song in target.songs if song.id not in held]

    def on_outcome(outcome: Outcome[Song, SongScores], finished: int) -> None:
        if outcome.result is not None:
            save_scores(folder, outcome.result)
        if progress is not None:
            progress(len(target.songs) - len(pending) + finished, len(target.songs))

    outcomes = map(evaluate_song, pending, (target.subjects, folder, config.engine), on_outcome=on_outcome)
    scored += [outcome.result for outcome in outcomes if outcome.result is not None]
    failures = failures_of(outcomes)
    if not scored:
        if is_new:
            remove(folder)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(f"none of {len(target.songs)} songs could be scored, so there is no report ({reasons})")
    summary = write_report(folder, target, scored, failures, _examples(map, target, scored, folder))
    result = EvaluateResult(str(config.reports / folder.name), summary, tuple(scored))
    if failures:
        raise SomeFailed(failures, len(target.songs), "songs", result)
    return result


def _examples(map: Map, target: Target, scored: Sequence[SongScores], folder: Path) -> dict[str, Example]:
    """The songs that the report shows, drawn and cut."""
    songs = {song.id: song for song in target.songs}
    chosen = {title: songs[scores.track_id] for title, scores in example_songs(scored).items()}
    outcomes = map(make_example, list(chosen.values()), (target.subjects, folder / "examples"))
    made = {outcome.item.id: outcome.result for outcome in outcomes if outcome.result is not None}
    return {title: made[song.id] for title, song in chosen.items() if song.id in made}
