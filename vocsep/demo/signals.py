"""Signal helpers that the parts of the song maker share: level, filter, reverberation, random generators."""

import numpy as np
import scipy.signal
from numpy.typing import NDArray

Signal = NDArray[np.float32]
Array = NDArray[np.float64]


def random_for(seed: int, index: int, part: str) -> np.random.Generator:
    """A generator for each part of each song, so that a change in one leaves the others; `seed`, `index` at least 0."""
    return np.random.default_rng([seed, index, *part.encode()])


def rms(x: NDArray[np.floating]) -> float:
    """Root mean square over all samples, computed in float64; 1e-9 for silence."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) + 1e-9


def band_pass(x: Array, low: float, high: float, rate: int) -> Array:
    """Filter `(..., samples)` float64 along the last axis by a Butterworth band-pass of second order, causally.

    The corners are in Hz: `high` is cut to 0.45 of the sample rate, then `low` to half of `high`.
    """
    high = min(high, 0.45 * rate)
    sos = scipy.signal.butter(2, [min(low, 0.5 * high), high], "bandpass", fs=rate, output="sos")
    return np.asarray(scipy.signal.sosfilt(sos, x))


def reverb(x: NDArray[np.floating], rate: int, rng: np.random.Generator, seconds: float, level: float) -> Signal:
    """The reverberation of `(samples,)` without the sound itself, `(2, samples)` float32.

    The room is noise that dies by 60 dB within `seconds`, other on each side. `level` is the root of the summed squares
    of each side's impulse response: 1 is about as loud as the sound.
    """
    t = np.arange(int(seconds * rate)) / rate
    room = rng.standard_normal((2, len(t))) * np.exp(-6.9 * t / seconds)
    room = band_pass(room, 200, 6000, rate)
    room *= level / np.sqrt(np.sum(room**2, axis=1, keepdims=True))
    wet = scipy.signal.oaconvolve(x[None].astype(np.float32), room.astype(np.float32), axes=1)
    return np.asarray(wet[:, : len(x)], np.float32)
