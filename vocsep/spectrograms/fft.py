"""Fourier transforms of frames, and what else is done to every sample of them: SciPy's, or a faster library's.

`vocsep.models.torch_network.TorchTransforms` is the other one.
"""

from typing import Protocol

import scipy.fft

from vocsep.arrays import Complex, Waveform


class Transforms(Protocol):
    """Arithmetic on real frames along the last axis; all libraries give the same values within rounding."""

    def rfft(self, frames: Waveform) -> Complex:
        """Spectra `(..., n // 2 + 1)` complex64 of `(..., n)` float32."""
        ...

    def irfft(self, spectra: Complex, n: int) -> Waveform:
        """The inverse."""
        ...

    def add_product(self, total: Waveform, values: Waveform, factors: Waveform) -> None:
        """`total += values * factors`, in place."""
        ...


class ScipyTransforms:
    """By SciPy and NumPy."""

    def rfft(self, frames: Waveform) -> Complex:
        """Spectra of real frames (see `Transforms`)."""
        spectra: Complex = scipy.fft.rfft(frames)
        return spectra

    def irfft(self, spectra: Complex, n: int) -> Waveform:
        """The inverse."""
        frames: Waveform = scipy.fft.irfft(spectra, n)
        return frames

    def add_product(self, total: Waveform, values: Waveform, factors: Waveform) -> None:
        """`total += values * factors`, in place."""
        total += values * factors


SCIPY = ScipyTransforms()
