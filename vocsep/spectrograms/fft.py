"""Fourier transforms of frames, and what else is done to every sample of them: SciPy's, or a faster library's."""

import scipy.fft

from vocsep.arrays import Complex, Waveform


class Transforms:
    """Arithmetic on real frames along the last axis, by SciPy and NumPy.

    `vocsep.spectrograms.fft_torch.TorchTransforms` gives the same values within rounding.
    """

    def rfft(self, frames: Waveform) -> Complex:
        """Spectra `(..., n // 2 + 1)` complex64 of `(..., n)` float32."""
        spectra: Complex = scipy.fft.rfft(frames)
        return spectra

    def irfft(self, spectra: Complex, n: int) -> Waveform:
        """The inverse."""
        frames: Waveform = scipy.fft.irfft(spectra, n)
        return frames

    def add_product(self, total: Waveform, values: Waveform, factors: Waveform) -> None:
        """`total += values * factors`, in place."""
        total += values * factors


SCIPY = Transforms()
