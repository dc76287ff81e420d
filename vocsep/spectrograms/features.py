"""Magnitudes as the store holds them: the preset's bins of an STFT."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vocsep.arrays import Complex, Spectrogram, Waveform
from vocsep.audio.resampling import resample, to_channels
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.stft import stft, stft_blocks


class TooLoudError(OverflowError):
    """A magnitude that float16 cannot hold, or that is not a number."""


def drop_bin(spectrum: npt.NDArray[np.generic], config: SpectrogramConfig) -> npt.NDArray[np.generic]:
    """The bins that `config.dropped_bin` keeps of `n_fft // 2 + 1`, last axis."""
    if config.dropped_bin == "none":
        return spectrum
    return spectrum[..., 1:] if config.dropped_bin == "dc" else spectrum[..., :-1]


def features(waveform: Waveform, sample_rate: int, config: SpectrogramConfig) -> Complex:
    """Complex spectrogram at the preset's rate, `(channels, frames, bins)`; its magnitude is what the model sees."""
    at_rate = resample(to_channels(waveform, config.channels), sample_rate, config.sample_rate)
    spectrum: Complex = drop_bin(stft(at_rate, config.n_fft, config.hop_length), config)  # type: ignore[assignment]
    return spectrum


def magnitude_blocks(blocks: Iterable[Waveform], config: SpectrogramConfig) -> Iterator[tuple[str, Spectrogram]]:
    """Raw magnitudes of mixture, vocals and accompaniment, block by block.

    The accompaniment is mixture minus vocals in the complex domain: one STFT less, and the three belong together
    exactly even where a dataset's mixture is not the sum of its stems.

    Raises `TooLoudError` if a magnitude is infinite or not a number.

    Parameters
    ----------
    blocks
        Mixture and vocals at the preset's rate, `(2, channels, samples)` each.

    Yields
    ------
    name, magnitudes
        The next frames of each of the three in turn, `(channels, frames, bins)` float32; in all there are
        `1 + samples // hop_length` frames.
    """
    for spectrum in stft_blocks(blocks, config.n_fft, config.hop_length):
        mixture, vocals = drop_bin(spectrum, config)
        for name, part in (("mixture", mixture), ("vocals", vocals), ("accompaniment", mixture - vocals)):
            values = np.abs(part)
            if not np.isfinite(values.max()):
                raise TooLoudError
            yield name, values
