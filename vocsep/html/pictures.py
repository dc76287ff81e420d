"""Spectrograms and the mask as bare pictures on a logarithmic frequency axis, to lie under a waveform."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.image import imsave

from vocsep.arrays import Waveform
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.plot import DYNAMIC_RANGE_DB

ROWS = 160
LOWEST_HZ = 60.0
_MASK_COLOR = (64, 224, 208)


def shown_band(config: SpectrogramConfig) -> tuple[float, float]:
    """Lowest and highest frequency of the pictures, in Hz."""
    low, high = config.band_hz
    return max(low, min(LOWEST_HZ, high / 10)), high


def log_rows(columns: Waveform, config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """`(columns, bins)` as `(ROWS, columns)`, the highest frequency first: a row is the bins that it covers, at their
    greatest, or between two bins a mixture of both.
    """
    low, high = shown_band(config)
    edges = np.geomspace(low, high, ROWS + 1)
    first_hz = config.band_hz[0] + 0.5 * config.sample_rate / config.n_fft
    positions = (edges - first_hz) / (config.sample_rate / config.n_fft)
    last = columns.shape[1] - 1
    rows = np.empty((ROWS, len(columns)), dtype=np.float32)
    for row in range(ROWS):
        start, stop = np.clip(positions[row : row + 2], 0, last)
        inside = columns[:, int(np.ceil(start)) : int(np.floor(stop)) + 1]
        if inside.shape[1]:
            rows[row] = inside.max(axis=1)
        else:
            below, weight = int(start), (start + stop) / 2 - int(start)
            rows[row] = columns[:, below] * (1 - weight) + columns[:, min(below + 1, last)] * weight
    return rows[::-1]


def spectrogram_pixels(
    columns: Waveform, config: SpectrogramConfig, top: float
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Magnitudes `(columns, bins)` as `(ROWS, columns, 3)`, red, green and blue; `top` is 0 dB."""
    floor = top * 10 ** (-DYNAMIC_RANGE_DB / 20)
    level = 1 + 20 * np.log10(np.maximum(log_rows(columns, config), floor) / top) / DYNAMIC_RANGE_DB
    pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
    pixels = colormaps["magma"](level.clip(0, 1), bytes=True)[..., :3].copy()
    return pixels


def draw_spectrogram(path: Path, columns: Waveform, config: SpectrogramConfig, top: float) -> None:
    """Write magnitudes `(columns, bins)` as a PNG; `top` is 0 dB."""
    imsave(path, spectrogram_pixels(columns, config, top))


def draw_mask(path: Path, columns: Waveform, config: SpectrogramConfig) -> None:
    """Write a mask `(columns, bins)` in [0, 1] as a PNG that covers the more, the greater the mask is."""
    rows = log_rows(columns, config).clip(0, 1)
    pixels = np.empty((*rows.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _MASK_COLOR
    pixels[..., 3] = np.rint(rows * 255)
    imsave(path, pixels)
