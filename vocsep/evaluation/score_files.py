"""Scores of songs on disk, one file per song, so that an evaluation that was killed goes on with the others."""

import json
from dataclasses import asdict
from pathlib import Path

from storage.files import write_atomically
from vocsep.evaluation.scores import SongScores

FOLDER = "scores"


def save_scores(report: Path, scores: SongScores) -> None:
    """Write a song's scores, whole, into the folder of a report."""
    # NaN and infinite values are values here; Python reads them back.
    write_atomically(report / FOLDER / f"{scores.track_id}.json", json.dumps(asdict(scores)).encode())


def read_scores(report: Path) -> dict[str, SongScores]:
    """Scores in the folder of a report, by track id."""
    files = sorted((report / FOLDER).glob("*.json"))
    found = [SongScores(**json.loads(path.read_text(encoding="utf-8"))) for path in files]
    return {scores.track_id: scores for scores in found}
