"""How sure a score is: bootstrap intervals over songs, and paired comparison of two systems."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0

_STATISTICS = {"median": np.median, "mean": np.mean}


def bootstrap_interval(values: Sequence[float], statistic: Literal["median", "mean"]) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of the median or mean (Efron 1979), resampling songs.

    The same values always give the same interval. None for fewer than two values.

    Parameters
    ----------
    values
        One finite figure per song, in dB.
    """
    if len(values) < 2:
        return None
    import scipy.stats  # late: a second of every worker that scores songs

    result = scipy.stats.bootstrap(
        (np.asarray(values, dtype=np.float64),),
        _STATISTICS[statistic],
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


@dataclass(frozen=True)
class PairedDifference:
    """First minus second system, song by song, in dB: the mean, its 95 % interval, and how many songs gain."""

    songs: int
    better: int
    mean: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference | None:
    """Compare two systems on the same songs; songs that either has no score (NaN) for are left out.

    Pairing removes what songs differ in by themselves, so that far smaller differences show than between two medians.
    None if no song is left.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    return PairedDifference(
        songs=len(differences),
        better=int((differences > 0).sum()),
        mean=float(differences.mean()),
        interval=bootstrap_interval(differences.tolist(), "mean"),
    )


def lower_bound(values: Sequence[float], confidence: float) -> float | None:
    """The least that the mean is with a confidence: the lower end of Student's one-sided interval, in dB.

    Where the true mean is 0, it is above 0 in a share of `1 - confidence` of all samples, few values or many (if they
    are normally distributed; with heavier tails less often). None for fewer than two values.

    Parameters
    ----------
    values
        One finite figure per song, in dB.
    confidence
        In (0.5, 1).
    """
    if len(values) < 2:
        return None
    import scipy.stats

    sample = np.asarray(values, dtype=np.float64)
    error = sample.std(ddof=1) / np.sqrt(len(sample))
    return float(sample.mean() - scipy.stats.t.ppf(confidence, len(sample) - 1) * error)
