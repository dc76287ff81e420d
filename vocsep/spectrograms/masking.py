"""Masks of the model's bins, applied to the STFT of a waveform at its own rate."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from vocsep.arrays import Complex, Spectrogram, Waveform
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.stft import istft, stft

# Above the preset's band the mask continues as the mean over this share of its bins, the highest ones.
CONTINUED_SHARE = 0.1


def restore_bin(mask: Spectrogram, config: SpectrogramConfig) -> Spectrogram:
    """A mask of `n_fft // 2 + 1` bins: the missing one, if any, takes the mask of its neighbor."""
    if config.dropped_bin == "none":
        return mask
    if config.dropped_bin == "dc":
        return np.concatenate([mask[..., :1], mask], axis=-1)
    return np.concatenate([mask, mask[..., -1:]], axis=-1)


def own_rate_stft(sample_rate: int, config: SpectrogramConfig) -> tuple[int, int]:
    """`n_fft` and `hop_length` in samples of the file for the STFT that a mask is applied to.

    The window lasts as long as the preset's (the next even size that the FFT is fast for), the step is the preset's
    or a quarter of a window, whichever is shorter. At 44.1 kHz `fine` gives 4096 and 1024: bins and frames line up
    one to one with those of the model.

    >>> own_rate_stft(44100, SpectrogramConfig(sample_rate=11025, n_fft=1024, hop_length=256))
    (4096, 1024)
    """
    half_window = config.n_fft * sample_rate / config.sample_rate / 2
    longest = max(1, round(half_window))
    sizes = (scipy.fft.prev_fast_len(longest), scipy.fft.next_fast_len(longest))
    n_fft = 2 * min(sizes, key=lambda size: abs(size - half_window))
    share = min(config.hop_length / config.n_fft, 0.25)
    return n_fft, max(1, round(n_fft * share))


def multiply_mask(
    spectrum: Complex,
    mask: Spectrogram,
    sample_rate: int,
    config: SpectrogramConfig,
    *,
    own_frame: int = 0,
    first_frame: int = 0,
) -> None:
    """Multiply frames of `own_rate_stft`, in place, by a mask on the model's grid.

    Linear interpolation in time and frequency (nothing changes where the grids coincide); above the preset's band the
    mask continues as the mean of its top bins.

    Parameters
    ----------
    spectrum
        `(channels, frames, n_fft // 2 + 1)` complex64, contiguous, from the song's own frame `own_frame` on.
    mask
        `(1 or channels, model frames, config.bins)` float32 in [0, 1], from the song's model frame `first_frame` on;
        one channel serves all.
    """
    n_fft, hop_length = own_rate_stft(sample_rate, config)
    model_frames_per_frame = (hop_length / sample_rate) * (config.sample_rate / config.hop_length)
    frames = np.arange(own_frame, own_frame + spectrum.shape[-2])
    mask = _interpolate(mask, frames * model_frames_per_frame - first_frame, axis=1)
    bin_positions = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft) * (config.n_fft / config.sample_rate)
    inside = int(np.searchsorted(bin_positions, config.n_fft // 2, side="right"))
    stretched = _interpolate(restore_bin(mask, config), bin_positions[:inside], axis=2)
    # NumPy would make complex numbers of the mask in small pieces.
    spectrum[..., :inside] *= stretched.astype(np.complex64)
    above = mask[..., -max(1, round(CONTINUED_SHARE * config.bins)) :].mean(axis=-1, keepdims=True)
    spectrum.view(np.float32)[..., 2 * inside :] *= above  # real and imaginary parts alike, in half the time


def _interpolate(values: Spectrogram, positions: npt.NDArray[np.floating[Any]], axis: int) -> Spectrogram:
    """`values` read at fractional `positions` along `axis`; beyond the ends the end values."""
    last = values.shape[axis] - 1
    positions = np.clip(positions, 0, last)
    below = np.floor(positions + 1e-9).astype(np.intp)
    weight = (positions - below).astype(np.float32)
    if np.all(np.abs(weight) < 1e-6):
        if np.array_equal(below, np.arange(below[0], below[0] + len(below))):
            inside = [slice(None)] * values.ndim
            inside[axis] = slice(below[0], below[0] + len(below))
            return values[tuple(inside)]
        taken: Spectrogram = values.take(below, axis=axis)
        return taken
    shape = [1] * values.ndim
    shape[axis] = len(positions)
    weight = weight.reshape(shape)
    upper = values.take(np.minimum(below + 1, last), axis=axis)
    interpolated: Spectrogram = values.take(below, axis=axis) * (1 - weight) + upper * weight
    return interpolated


def apply_mask(waveform: Waveform, sample_rate: int, mask: Spectrogram, config: SpectrogramConfig) -> Waveform:
    """The part of a waveform that a mask lets through, at the waveform's own rate, channels and length.

    Parameters
    ----------
    waveform
        `(channels, samples)` float32.
    mask
        `(1 or channels, model frames, config.bins)` float32; one channel serves all.
    """
    n_fft, hop_length = own_rate_stft(sample_rate, config)
    spectrum = stft(waveform, n_fft, hop_length)
    multiply_mask(spectrum, mask, sample_rate, config)
    return istft(spectrum, n_fft, hop_length, waveform.shape[1])
