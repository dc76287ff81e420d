"""Waveform to magnitude spectrogram, and a mask back onto a waveform of any sample rate.

Spectrograms are time first: `(channels, frames, bins)`. Frames are centred (frame t lies around sample t * hop_length),
windows are periodic Hann, borders are zero-padded.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from vocsep.audio import Waveform, resample, to_channels
from vocsep.config import SpectrogramConfig
from vocsep.transforms import SCIPY, Complex, Transforms

Spectrogram = npt.NDArray[np.float32]

# Above the preset's band the mask goes on as the mean over this share of its bins, the highest ones.
CONTINUED_SHARE = 0.1
# Frames that are transformed at once. Fewer are more work for Python, more are more than fits into a core's cache.
BLOCK_FRAMES = 128


def stft_blocks(blocks: Iterable[Waveform], n_fft: int, hop_length: int) -> Iterator[Complex]:
    """Short-time Fourier transform of a waveform that comes in blocks, `(..., samples)` each.

    Yields `(..., frames, n_fft // 2 + 1)` complex64, up to `BLOCK_FRAMES` at a time, for `samples` in all
    `1 + samples // hop_length` frames; none if there are no blocks.
    """
    window = stft_window(n_fft)
    border = waiting = np.empty(0, dtype=np.float32)
    for block in blocks:
        if not border.size:
            border = waiting = np.zeros((*block.shape[:-1], n_fft // 2), dtype=np.float32)
        rest = block
        if block.shape[-1] < n_fft:
            rest = np.concatenate([waiting, block], axis=-1)
        else:
            # Only frames that begin before the block need what came before it; a long block is not copied.
            begun = -(-waiting.shape[-1] // hop_length)
            reach = (begun - 1) * hop_length + n_fft - waiting.shape[-1]
            yield from transform(np.concatenate([waiting, block[..., :reach]], axis=-1), window, hop_length)
            rest = block[..., begun * hop_length - waiting.shape[-1] :]
        yield from transform(rest, window, hop_length)
        waiting = rest[..., _frames(rest, n_fft, hop_length) * hop_length :].copy()
    if border.size:
        yield from transform(np.concatenate([waiting, border], axis=-1), window, hop_length)


def _frames(waveform: Waveform, n_fft: int, hop_length: int) -> int:
    """How many whole windows a waveform holds."""
    samples: int = waveform.shape[-1]
    return max(0, 1 + (samples - n_fft) // hop_length)


def stft_window(n_fft: int) -> Waveform:
    """Periodic Hann window, `(n_fft,)`."""
    window: Waveform = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    return window


def transform(
    waveform: Waveform,
    window: Waveform,
    hop_length: int,
    frames_at_once: int = BLOCK_FRAMES,
    transforms: Transforms = SCIPY,
) -> Iterator[Complex]:
    """Spectra `(..., frames, bins)` complex64 of all whole windows of a waveform `(..., samples)`, some at a time."""
    if waveform.shape[-1] >= len(window):
        frames = sliding_window_view(waveform, len(window), axis=-1)[..., ::hop_length, :]
        for start in range(0, frames.shape[-2], frames_at_once):
            yield transforms.rfft(frames[..., start : start + frames_at_once, :] * window)


def stft(waveform: Waveform, n_fft: int, hop_length: int) -> Complex:
    """Short-time Fourier transform of `(..., samples)`.

    Returns `(..., 1 + samples // hop_length, n_fft // 2 + 1)` complex64.
    """
    frames = 1 + waveform.shape[-1] // hop_length
    spectrum = np.empty((*waveform.shape[:-1], frames, n_fft // 2 + 1), dtype=np.complex64)
    done = 0
    for part in stft_blocks([waveform], n_fft, hop_length):
        spectrum[..., done : done + part.shape[-2], :] = part
        done += part.shape[-2]
    return spectrum


def istft(spectrum: Complex, n_fft: int, hop_length: int, samples: int) -> Waveform:
    """Inverse of `stft`, least squares, exactly `samples` long: `(channels, samples)` float32."""
    waveform: Waveform = librosa.istft(
        spectrum.swapaxes(-1, -2), n_fft=n_fft, hop_length=hop_length, length=samples, dtype=np.float32
    )
    return waveform


def drop_bin(spectrum: npt.NDArray[np.generic], config: SpectrogramConfig) -> npt.NDArray[np.generic]:
    """The bins that `config.dropped_bin` keeps of `n_fft // 2 + 1`, last axis."""
    if config.dropped_bin == "none":
        return spectrum
    return spectrum[..., 1:] if config.dropped_bin == "dc" else spectrum[..., :-1]


def restore_bin(mask: Spectrogram, config: SpectrogramConfig) -> Spectrogram:
    """A mask of `n_fft // 2 + 1` bins: the missing one, if any, takes the mask of its neighbour."""
    if config.dropped_bin == "none":
        return mask
    if config.dropped_bin == "dc":
        return np.concatenate([mask[..., :1], mask], axis=-1)
    return np.concatenate([mask, mask[..., -1:]], axis=-1)


def features(waveform: Waveform, sample_rate: int, config: SpectrogramConfig) -> Complex:
    """Complex spectrogram at the preset's rate, `(channels, frames, bins)`; its magnitude is what the model sees."""
    at_rate = resample(to_channels(waveform, config.channels), sample_rate, config.sample_rate)
    spectrum: Complex = drop_bin(stft(at_rate, config.n_fft, config.hop_length), config)  # type: ignore[assignment]
    return spectrum


def magnitude_blocks(blocks: Iterable[Waveform], config: SpectrogramConfig) -> Iterator[tuple[str, Spectrogram]]:
    """Raw magnitudes of mixture, vocals and accompaniment, block by block.

    The accompaniment is mixture minus vocals in the complex domain: one STFT less, and the three belong together
    exactly even where a dataset's mixture is not the sum of its stems.

    Parameters
    ----------
    blocks
        Mixture and vocals at the preset's rate, `(2, channels, samples)` each.

    Yields
    ------
    name, magnitudes
        The next frames of each of the three in turn, `(channels, frames, bins)` float32; in all there are
        `1 + samples // hop_length` frames.

    Raises
    ------
    OverflowError
        If a magnitude is infinite or not a number.
    """
    for spectrum in stft_blocks(blocks, config.n_fft, config.hop_length):
        mixture, vocals = drop_bin(spectrum, config)
        for name, part in (("mixture", mixture), ("vocals", vocals), ("accompaniment", mixture - vocals)):
            values = np.abs(part)
            if not np.isfinite(values.max()):
                raise OverflowError
            yield name, values


def magnitudes(
    mixture: Waveform, vocals: Waveform, sample_rate: int, config: SpectrogramConfig
) -> dict[str, Spectrogram]:
    """Raw magnitudes of whole waveforms (see `magnitude_blocks`), `(channels, samples)` at any rate."""
    pair = [
        resample(to_channels(waveform, config.channels), sample_rate, config.sample_rate)
        for waveform in (mixture, vocals)
    ]
    blocks: dict[str, list[Spectrogram]] = {}
    for name, block in magnitude_blocks([np.stack(pair)], config):
        blocks.setdefault(name, []).append(block)
    return {name: np.concatenate(parts, axis=1) for name, parts in blocks.items()}


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
    mask goes on as the mean of its top bins.

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
