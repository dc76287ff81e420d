"""Distortion filters of short songs by museval's own arithmetic, operation by operation.

Decoded music often leaves the normal equations singular to double precision (a band emptied by AAC, vocals that are
mono in both channels). In a song of a few seconds museval's ISR, SIR and SAR then hang on its rounding errors by some
thousandths of a dB. Where its full-length FFTs are small enough to afford, the same operations in the same order give
the same rounding, and so the same values; longer songs go by `vocsep.bsseval`, in bounded memory and far faster.
"""

import itertools
from typing import Any

import numpy as np
import scipy.fftpack
import scipy.linalg
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LONGEST_FFT = 1 << 19
"""museval's FFT length up to which its arithmetic is followed: 11.9 s at 44.1 kHz, 8 MB per channel."""


def short_song_filters(
    references: NDArray[np.floating[Any]], estimates: NDArray[np.floating[Any]], taps: int
) -> tuple[Floats, Floats]:
    """Least-squares filters from references to estimates, both `(sources, channels, samples)`.

    Returns
    -------
    own
        From each source's own channels, `(source, to channel, from channel, taps)`.
    everything
        From all references, `(to source and channel, from source and channel, taps)`.
    """
    sources, channels, samples = references.shape
    size = int(2 ** np.ceil(np.log2(samples + taps - 1.0)))
    spectra, estimated = (
        scipy.fftpack.fft(np.asarray(signals, dtype=np.float64).reshape(sources * channels, -1), n=size, axis=-1)
        for signals in (references, estimates)
    )
    count = sources * channels
    gram = np.zeros((count, taps, count, taps))
    for first, second in itertools.combinations_with_replacement(range(count), 2):
        lags = np.real(scipy.fftpack.ifft(spectra[second] * np.conj(spectra[first])))
        block = scipy.linalg.toeplitz(np.hstack((lags[0], lags[-1:-taps:-1])), r=lags[:taps])
        gram[second, :, first] = block
        gram[first, :, second] = block.T
    cross = np.empty((count, taps, count))
    for reference, estimate in itertools.product(range(count), range(count)):
        lags = np.real(scipy.fftpack.ifft(spectra[reference] * np.conj(estimated[estimate])))
        cross[reference, :, estimate] = np.hstack((lags[0], lags[-1:-taps:-1]))
    groups = [slice(source * channels, (source + 1) * channels) for source in range(sources)]
    own = np.stack([_solve(gram[group, :, group], cross[group, :, group]) for group in groups])
    return own, _solve(gram, cross)


def _solve(gram: Floats, cross: Floats) -> Floats:
    """Filters `(to, from, taps)`; museval solves for one estimated source at a time, with the same rounding."""
    inputs, taps, _, _ = gram.shape
    matrix = gram.reshape(inputs * taps, inputs * taps)
    right = cross.reshape(inputs * taps, -1)
    try:
        filters = np.linalg.solve(matrix + np.finfo(float).eps * np.eye(len(matrix)), right)
    except np.linalg.LinAlgError:
        filters = np.linalg.lstsq(matrix, right)[0]
    solved: Floats = np.asarray(filters, dtype=np.float64).reshape(inputs, taps, -1)
    return np.moveaxis(solved, 2, 0)
