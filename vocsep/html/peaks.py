"""The outline of a sound: lowest and highest sample of each of many short stretches."""

import numpy as np
import numpy.typing as npt

from vocsep.arrays import Waveform

COLUMNS = 1500
_FINE = 512


class Peaks:
    """Lowest and highest samples of a sound that comes in blocks, in little memory."""

    def __init__(self) -> None:
        self._lowest: list[npt.NDArray[np.float32]] = []
        self._highest: list[npt.NDArray[np.float32]] = []
        self._waiting: Waveform | None = None

    def add(self, block: Waveform) -> None:
        """Append `(channels, samples)`."""
        joined = block if self._waiting is None else np.concatenate([self._waiting, block], axis=1)
        whole = joined.shape[1] // _FINE * _FINE
        self._reduce(joined[:, :whole].reshape(len(joined), -1, _FINE))
        self._waiting = joined[:, whole:].copy()

    def columns(self, most: int = COLUMNS) -> list[list[int]]:
        """At most `most` pairs `[lowest, highest]`, over all channels, of stretches of (almost) one length.

        In thousandths of full scale: more than a picture shows.
        """
        if self._waiting is not None and self._waiting.shape[1]:
            self._reduce(self._waiting[:, None, :])
            self._waiting = None
        lowest, highest = (
            np.concatenate([*values, np.empty(0, np.float32)]) for values in (self._lowest, self._highest)
        )
        count = min(most, len(lowest))
        if not count:
            return []
        starts = np.arange(count) * len(lowest) // count
        pairs = np.stack([np.minimum.reduceat(lowest, starts), np.maximum.reduceat(highest, starts)], axis=1)
        return [[round(1000 * float(value)) for value in pair] for pair in pairs.clip(-1, 1)]

    def _reduce(self, stretches: npt.NDArray[np.float32]) -> None:
        """`(channels, stretches, samples)`."""
        self._lowest.append(stretches.min(axis=(0, 2)))
        self._highest.append(stretches.max(axis=(0, 2)))
