"""Scores of songs on disk, one file per song, so that a killed evaluation resumes."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from storage.files import read_json, write_atomically
from vocsep.evaluation.scores import SongScores

FOLDER = "scores"


def save_scores(report: Path, scores: SongScores) -> None:
    """Write a song's scores, whole, into the folder of a report."""
    # NaN and infinite values are values here; Python reads them back.
    write_atomically(report / FOLDER / f"{scores.track_id}.json", json.dumps(asdict(scores)).encode())


def read_scores(report: Path) -> dict[str, SongScores]:
    """Scores in the folder of a report, by track id; of a damaged file none, so that its song is scored again."""
    found = {}
    # A hidden one is what a killed process left half-written, or writes now.
    for path in sorted((report / FOLDER).glob("[!.]*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            scores = SongScores(**read_json(path))
            found[scores.track_id] = scores
    return found
