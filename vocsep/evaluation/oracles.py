"""What a mask could reach at best: ideal ratio masks, made from the true sources."""

from typing import Literal

import numpy as np

from vocsep.arrays import Spectrogram, Waveform
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import features
from vocsep.spectrograms.masking import apply_mask, own_rate_stft
from vocsep.spectrograms.stft import istft, stft

IDEAL_MASKS: dict[str, tuple[Literal[1, 2], bool]] = {
    "irm1": (1, False),
    "irm2": (2, False),
    "irm1_full": (1, True),
    "irm2_full": (2, True),
}
"""Row of a report to `power` and `full_band` of `ideal_estimates`."""


def ideal_ratio_mask(vocals: Spectrogram, accompaniment: Spectrogram, power: Literal[1, 2] = 1) -> Spectrogram:
    """|V|^p / (|V|^p + |A|^p): IRM1 for power 1, IRM2 for 2; 0 where both are silent (SiSEC 2018, Stöter et al.).

    All of one shape, magnitudes.
    """
    first, second = (vocals, accompaniment) if power == 1 else (vocals**2, accompaniment**2)
    total = first + second
    mask: Spectrogram = np.divide(first, total, out=np.zeros_like(first), where=total > 0)
    return mask


def ideal_estimates(
    mixture: Waveform,
    sources: dict[str, Waveform],
    sample_rate: int,
    config: SpectrogramConfig,
    *,
    power: Literal[1, 2],
    full_band: bool,
) -> dict[str, Waveform]:
    """Estimates of vocals and accompaniment by an ideal ratio mask.

    Parameters
    ----------
    mixture, sources
        `(channels, samples)` each; `sources` holds the true `vocals` and `accompaniment`.
    full_band
        False computes the mask from what a model of `config` sees and applies it as `Separator` does: the ceiling of
        that model. True computes it on the file's own STFT, at its own rate: the difference is what the band costs.
    """
    vocals, accompaniment = sources["vocals"], sources["accompaniment"]
    if full_band:
        n_fft, hop_length = own_rate_stft(sample_rate, config)
        true = [np.abs(stft(source, n_fft, hop_length)) for source in (vocals, accompaniment)]
        spectrum = stft(mixture, n_fft, hop_length) * ideal_ratio_mask(true[0], true[1], power)
        estimate = istft(spectrum, n_fft, hop_length, mixture.shape[1])
    else:
        true = [np.abs(features(source, sample_rate, config)) for source in (vocals, accompaniment)]
        estimate = apply_mask(mixture, sample_rate, ideal_ratio_mask(true[0], true[1], power), config)
    return {"vocals": estimate, "accompaniment": mixture - estimate}
