"""The multichannel Wiener filter: vocals and accompaniment as two sources with a place in the stereo field each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vocsep.arrays import Complex

Covariance = npt.NDArray[np.complex128]

# Of the mean power: what keeps the model of a bin that is silent, or the same in both channels, from being singular.
_REGULARISATION = 1e-10
_TINY = 1e-20


def wiener(mixture: Complex, vocals: Complex, groups: Sequence[tuple[int, ...]]) -> Complex:
    """Refine vocals by expectation maximization of a local Gaussian model (Duong et al. 2010; Nugraha et al. 2016).

    In one round: each source j (vocals, and accompaniment = mixture - vocals) has a power v_j(frame, bin), the mean
    over channels of its spectrum's power, and in each bin one spatial covariance R_j = sum of y y^H / sum of v_j over
    the frames. The vocals become v R (sum over j of v_j R_j)^-1 x. In mono that is the mask v^2 / (v^2 + a^2) of the
    magnitudes.

    Parameters
    ----------
    mixture, vocals
        Complex spectra `(channels, frames, bins)`, of a stretch of time through which the sources keep their places.
    groups
        Channels that are one pair or single; each group has its own model.

    Returns
    -------
    refined
        Vocals of the same shape, complex64.
    """
    refined = np.empty_like(vocals)
    for group in groups:
        channels = list(group)
        refined[channels] = _refined(mixture[channels].astype(np.complex128), vocals[channels].astype(np.complex128))
    return refined


def _refined(x: Covariance, y: Covariance) -> Covariance:
    """Vocals `y` of a mixture `x` of one or two channels, `(channels, frames, bins)`."""
    sources = (y, x - y)
    powers = [np.mean(source.real**2 + source.imag**2, axis=0) for source in sources]
    spaces = [_spatial_covariance(source, power) for source, power in zip(sources, powers, strict=True)]
    floor = _REGULARISATION * (powers[0] + powers[1]).mean() + _TINY
    if len(x) == 1:
        own, other = (power * space[0, 0].real for power, space in zip(powers, spaces, strict=True))
        result: Covariance = x * (own / (own + other + floor))
        return result
    total = [
        [sum(power * space[row, column] for power, space in zip(powers, spaces, strict=True)) for column in (0, 1)]
        for row in (0, 1)
    ]
    first, second, cross = total[0][0].real + floor, total[1][1].real + floor, total[0][1]
    determinant = first * second - (cross.real**2 + cross.imag**2)
    # The inverse of a 2 x 2 Hermitian matrix, times x.
    z = np.stack([second * x[0] - cross * x[1], first * x[1] - cross.conj() * x[0]]) / determinant
    space = spaces[0]
    result = powers[0] * np.stack([space[row, 0] * z[0] + space[row, 1] * z[1] for row in (0, 1)])
    return result


def _spatial_covariance(source: Covariance, power: npt.NDArray[np.float64]) -> Covariance:
    """`(channels, channels, bins)`."""
    covariance: Covariance = np.einsum("atf,btf->abf", source, source.conj()) / (power.sum(axis=0) + _TINY)
    return covariance
