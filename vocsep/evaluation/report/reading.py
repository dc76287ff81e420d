"""What reports say of models."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files import read_json
from storage.registry import WEIGHTS_DIGEST


@dataclass(frozen=True)
class SongsScore:
    """Median over test songs of the vocals SDR in dB."""

    vocals_sdr_db: float
    songs: int


def scores_on_test_songs(reports: Path) -> dict[str, SongsScore]:
    """Scores on test songs, from the newest report of each model, by the SHA-256 of its weights."""
    found: dict[str, SongsScore] = {}
    for path in sorted(reports.glob("*/summary.json")):  # their names begin with the time
        if path.parent.is_symlink():
            continue
        with contextlib.suppress(OSError, ValueError):
            summary = read_json(path)
            score = score_on_test_songs(summary)
            if score is not None and isinstance(digest := summary.get(WEIGHTS_DIGEST), str):
                found[digest] = score
    return found


def score_on_test_songs(summary: Any) -> SongsScore | None:
    """The score in a report's summary, None if it is of no test songs or does not hold one."""
    try:
        value, songs = summary["rows"]["model"]["vocals"]["SDR"]["median"], summary["songs"]
        is_one = summary["split"] == "test" and math.isfinite(value) and isinstance(songs, int)
    except (KeyError, TypeError, OverflowError):
        return None
    return SongsScore(float(value), songs) if is_one else None
