"""Scores of songs, and how they are summed up over songs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vocsep.metrics.bsseval import METRICS

SOURCES = ("vocals", "accompaniment")
WHOLE_SONG_METRICS = ("SI-SDR", "song SDR")


@dataclass(frozen=True)
class SongScores:
    """Scores of one song in dB.

    Attributes
    ----------
    rows
        Row (`model`, `mixture`, `irm1`, ...) to source to metric to the values of its 1-s frames (NaN: not counted).
    whole
        Row to source to `SI-SDR` and `song SDR` of the whole song.
    """

    track_id: str
    name: str
    seconds: float
    rows: dict[str, dict[str, dict[str, list[float]]]]
    whole: dict[str, dict[str, dict[str, float]]]

    def median(self, row: str, source: str, metric: str) -> float:
        """Median over the counted frames, NaN if there is none or no such row."""
        counted = finite(self.rows[row][source][metric] if row in self.rows else [])
        return float(np.median(counted)) if len(counted) else float("nan")

    def value(self, row: str, source: str, metric: str) -> float:
        """The song's one figure of a metric: its median over frames, or that of the whole song."""
        if metric in METRICS:
            return self.median(row, source, metric)
        return self.whole.get(row, {}).get(source, {}).get(metric, float("nan"))

    def counted(self, row: str, source: str, metric: str) -> int:
        """How many frames are counted."""
        return len(finite(self.rows[row][source][metric]))

    def frames(self, row: str) -> tuple[int, int, int]:
        """Frames by BSSEval's rule for a row: counted, silent in the song itself, silent only in the row's estimate.

        A frame in which any source is silent counts for none; neither does one without any error (infinite dB).
        """
        values = np.array(self.rows[row]["vocals"]["SDR"])
        silent = np.isnan(self.rows["mixture"]["vocals"]["SDR"])
        dropped = np.isnan(values)
        return int(np.isfinite(values).sum()), int((dropped & silent).sum()), int((dropped & ~silent).sum())


def summarize(songs: Sequence[SongScores]) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """Median and mean over songs: row to source to metric to both, in dB.

    BSSEval's metrics enter as the songs' medians over frames. Songs without a finite figure are left out; None where
    none is left. Rows are in the order in which the songs have them.
    """
    rows = dict.fromkeys(row for song in songs for row in song.rows)
    metrics = (*METRICS, *WHOLE_SONG_METRICS)
    return {
        row: {
            source: {metric: _summed_up([song.value(row, source, metric) for song in songs]) for metric in metrics}
            for source in SOURCES
        }
        for row in rows
    }


def _summed_up(values: Sequence[float]) -> dict[str, float | None]:
    counted = finite(values)
    if not len(counted):
        return {"median": None, "mean": None}
    return {"median": float(np.median(counted)), "mean": float(np.mean(counted))}


def finite(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """The values that are numbers."""
    return np.asarray(values)[np.isfinite(values)]
