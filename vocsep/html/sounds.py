"""Sounds as files hold them for listening: mp3 in pieces that a player joins without a seam, and their outlines."""

import io

import numpy as np
import soundfile

from vocsep.arrays import Waveform
from vocsep.audio.resampling import Resampler
from vocsep.html.peaks import Peaks

PIECE_SECONDS = 12
# What a piece holds of its neighbors on both sides, so that the coder's edges are never heard.
_MARGIN_SECONDS = 0.05
_RATES = (32_000, 44_100, 48_000)
_OTHER_RATE = 44_100
_SMALLNESS = 0.6  # soundfile's compression level; some 110 kbit/s of stereo music, and little of silence


def in_stereo(waveform: Waveform) -> Waveform:
    """`(channels, samples)` with at most two channels: the first two, and half of every other one on both sides."""
    if len(waveform) <= 2:
        return waveform
    stereo: Waveform = waveform[:2] + waveform[2:].sum(axis=0) * np.float32(0.5)
    return stereo


def listening_rate(sample_rate: int) -> int:
    """The rate at which a sound of this one is listened to: the same, if mp3 and all browsers take it."""
    return sample_rate if sample_rate in _RATES else _OTHER_RATE


class Mp3Pieces:
    """A sound that comes in blocks, as mp3 pieces of `PIECE_SECONDS` with margins, in one or two channels.

    Attributes
    ----------
    rate, channels, frames
        Of what is played; the margins do not count.
    margin
        Samples that every piece begins and ends with, in addition to its own.
    pieces
        Complete after `finish`.
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self.channels = min(2, channels)
        self.rate = listening_rate(sample_rate)
        self.margin = round(_MARGIN_SECONDS * self.rate)
        self.frames = 0
        self.pieces: list[bytes] = []
        self.peaks = Peaks()
        self._resampler = Resampler(self.channels, sample_rate, self.rate)
        self._waiting: Waveform = np.zeros((self.channels, self.margin), np.float32)

    def write(self, waveform: Waveform) -> None:
        """Append `(channels of the song, samples)`; what is beyond full scale is cut off."""
        self._add(self._resampler.process(in_stereo(waveform)))

    def finish(self) -> None:
        """Append what the resampler still holds, and silence as the last margin."""
        self._add(self._resampler.process(np.zeros((self.channels, 0), np.float32), last=True))
        left = self._waiting.shape[1] - self.margin
        self._waiting = np.pad(self._waiting, ((0, 0), (0, self.margin)))
        while left > 0:
            left -= self._encode(min(left, self._piece_frames))

    @property
    def _piece_frames(self) -> int:
        return PIECE_SECONDS * self.rate

    def _add(self, waveform: Waveform) -> None:
        cut = waveform.clip(-1, 1)
        if cut.size:
            self.peaks.add(cut)
        self.frames += cut.shape[1]
        self._waiting = np.concatenate([self._waiting, cut], axis=1)
        while self._waiting.shape[1] >= self._piece_frames + 2 * self.margin:
            self._encode(self._piece_frames)

    def _encode(self, frames: int) -> int:
        """Make the next piece, of `frames` samples plus its margins."""
        content = io.BytesIO()
        samples = self._waiting[:, : frames + 2 * self.margin].T
        soundfile.write(
            content, samples, self.rate, format="MP3", bitrate_mode="VARIABLE", compression_level=_SMALLNESS
        )
        self.pieces.append(content.getvalue())
        self._waiting = self._waiting[:, frames:]
        return frames
