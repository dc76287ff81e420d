"""Distortion filters of short songs by museval's own arithmetic, operation by operation.

Decoded music often leaves the normal equations singular to double precision (a band emptied by AAC, vocals that are
mono in both channels). In a song of a few seconds museval's ISR, SIR and SAR then hang on its rounding errors by some
thousandths of a dB. Where its full-length FFTs are small enough to afford, the same operations in the same order give
the same rounding, and so the same values; longer songs go by `vocsep.bsseval`, in bounded memory and far faster.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fftpack
import scipy.linalg
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LONGEST_FFT = 1 << 19
"""museval's FFT length up to which its arithmetic is followed: 11.9 s at 44.1 kHz, 8 MB per channel."""


def is_short(samples: int, taps: int = 512) -> bool:
    """Whether museval's arithmetic is followed for a song of this length."""
    return samples + taps - 1 <= LONGEST_FFT


def short_song_filters(
    references: NDArray[np.floating[Any]], estimates: Sequence[NDArray[np.floating[Any]]], taps: int
) -> list[tuple[Floats, Floats]]:
    """Least-squares filters from references to each of some estimates, all `(sources, channels, samples)`.

    Returns
    -------
    own
        From each source's own channels, `(source, to channel, from channel, taps)`.
    everything
        From all references, `(to source and channel, from source and channel, taps)`.
    """
    if not estimates:
        return []
    sources, channels, samples = references.shape
    size = int(2 ** np.ceil(np.log2(samples + taps - 1.0)))
    count = sources * channels
    spectra = _spectra(references, size)
    gram = np.zeros((count, taps, count, taps))
    for first, second in itertools.combinations_with_replacement(range(count), 2):
        lags = np.real(scipy.fftpack.ifft(spectra[second] * np.conj(spectra[first])))
        block = scipy.linalg.toeplitz(np.hstack((lags[0], lags[-1:-taps:-1])), r=lags[:taps])
        gram[second, :, first] = block
        gram[first, :, second] = block.T
    cross = np.empty((count, taps, len(estimates), count))
    for number, one in enumerate(estimates):
        estimated = _spectra(one, size)
        for reference, estimate in itertools.product(range(count), range(count)):
            lags = np.real(scipy.fftpack.ifft(spectra[reference] * np.conj(estimated[estimate])))
            cross[reference, :, number, estimate] = np.hstack((lags[0], lags[-1:-taps:-1]))
    # The equations are those of the references: they are solved for all estimates at once.
    groups = [slice(source * channels, (source + 1) * channels) for source in range(sources)]
    own = np.stack([_solve(gram[group, :, group], cross[group, :, :, group]) for group in groups], axis=1)
    return list(zip(own, _solve(gram, cross), strict=True))


def _spectra(signals: NDArray[np.floating[Any]], size: int) -> NDArray[np.complex128]:
    """Of each channel of each source, `(sources * channels, size)`."""
    rows = np.asarray(signals, dtype=np.float64).reshape(-1, signals.shape[-1])
    spectra: NDArray[np.complex128] = scipy.fftpack.fft(rows, n=size, axis=-1)
    return spectra


def _solve(gram: Floats, cross: Floats) -> Floats:
    """Filters `(estimate, to, from, taps)`; museval solves for one estimated source at a time, with the same
    rounding."""
    inputs, taps, estimates, outputs = cross.shape
    matrix = gram.reshape(inputs * taps, inputs * taps)
    right = cross.reshape(inputs * taps, -1)
    try:
        filters = np.linalg.solve(matrix + np.finfo(float).eps * np.eye(len(matrix)), right)
    except np.linalg.LinAlgError:
        filters = np.linalg.lstsq(matrix, right)[0]
    solved: Floats = np.asarray(filters, dtype=np.float64).reshape(inputs, taps, estimates, outputs)
    return solved.transpose(2, 3, 0, 1)
