"""Sample rates and channel counts of waveforms."""

import numpy as np
import soxr

from storage.errors import InvalidInput
from vocsep.arrays import Waveform


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """Resample `(channels, samples)` float32 with soxr (high quality); the same array when the rates are equal."""
    if from_rate == to_rate:
        return waveform
    resampled: Waveform = soxr.resample(waveform.T, from_rate, to_rate).astype(np.float32, copy=False).T
    return resampled


class Resampler:
    """Resamples a waveform that comes in blocks; joined, the results are exactly those of `resample` for the whole."""

    def __init__(self, channels: int, from_rate: int, to_rate: int) -> None:
        # One for each channel: soxr would interleave them, at a quarter more time.
        self._streams = [soxr.ResampleStream(from_rate, to_rate, 1, "float32") for _ in range(channels)]
        self._equal = from_rate == to_rate

    def process(self, block: Waveform, *, last: bool = False) -> Waveform:
        """The samples that follow from the next `(channels, samples)`, some of them only with later blocks."""
        return block if self._equal else np.stack(self.rows(block, last=last))

    def rows(self, block: Waveform, *, last: bool = False) -> list[Waveform]:
        """What `process` gives, `(samples,)` of each channel."""
        if self._equal:
            return list(block)
        return [stream.resample_chunk(row, last) for stream, row in zip(self._streams, block, strict=True)]


def to_channels(waveform: Waveform, channels: int) -> Waveform:
    """At most `channels` channels: the mean of all for 1, stereo and mono untouched for 2.

    Raises
    ------
    UserError
        If `waveform` has more than two channels and two are wanted.
    """
    if channels == 1:
        mono: Waveform = waveform.mean(axis=0, keepdims=True)
        return mono
    if len(waveform) > channels:
        raise InvalidInput(f"{len(waveform)} channels; only mono and stereo songs can be used here")
    return waveform
