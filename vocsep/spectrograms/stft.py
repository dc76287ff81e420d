"""Waveform to magnitude spectrogram, and a mask back onto a waveform of any sample rate.

Spectrograms are time first: `(channels, frames, bins)`. Frames are centered (frame t is around sample t * hop_length),
windows are periodic Hann, borders are zero-padded.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vocsep.arrays import Complex, Waveform
from vocsep.spectrograms.fft import SCIPY, Transforms

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
        frames = max(0, 1 + (rest.shape[-1] - n_fft) // hop_length)
        waiting = rest[..., frames * hop_length :].copy()
    if border.size:
        yield from transform(np.concatenate([waiting, border], axis=-1), window, hop_length)


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
    import librosa  # takes a second, and separating a song does without

    waveform: Waveform = librosa.istft(
        spectrum.swapaxes(-1, -2), n_fft=n_fft, hop_length=hop_length, length=samples, dtype=np.float32
    )
    return waveform


def compile_istft() -> None:
    """Have librosa compile what `istft` needs: half a minute once after its installation, a second in every process."""
    for channels in (1, 2):  # it is compiled apart for arrays whose rows follow each other
        istft(np.zeros((channels, 100, 1025), dtype=np.complex64), n_fft=2048, hop_length=512, samples=99 * 512)
