"""Figures of whole songs, in addition to BSSEval's frames: SDR over all samples, and SI-SDR."""

from typing import Any

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.floating[Any]]


def song_sdr(reference: Signal, estimate: Signal) -> float:
    """SDR in dB over the whole song and all channels: 10 log10(|s|^2 / |s_hat - s|^2).

    Both `(channels, samples)`. NaN for a silent reference; infinite for a perfect estimate. (The measure of the MDX
    challenges, Mitsufuji et al. 2022; loud passages count more than in a median over frames.)
    """
    return _ratio_db(reference.astype(np.float64), estimate.astype(np.float64) - reference)


def si_sdr(reference: Signal, estimate: Signal) -> float:
    """Scale-invariant SDR in dB of the whole song (Le Roux et al. 2019, "SDR - half-baked or well done?").

    The reference is scaled to the estimate by least squares over all channels together, so that a wrong level costs
    nothing. Both `(channels, samples)`. NaN for a silent reference, minus infinity for a silent estimate.
    """
    true, estimated = reference.astype(np.float64), estimate.astype(np.float64)
    energy = float(np.vdot(true, true))
    if energy == 0:
        return float("nan")
    scaled = true * (float(np.vdot(true, estimated)) / energy)
    if not scaled.any():
        return float("-inf")
    return _ratio_db(scaled, estimated - scaled)


def _ratio_db(signal: npt.NDArray[np.float64], error: npt.NDArray[np.float64]) -> float:
    signal_energy, error_energy = float(np.vdot(signal, signal)), float(np.vdot(error, error))
    if signal_energy == 0:
        return float("nan")
    if error_energy == 0:
        return float("inf")
    return 10 * float(np.log10(signal_energy / error_energy))
