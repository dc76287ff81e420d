"""The training songs of one or several stores, as patches are drawn from them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.manifest import TrackRecord
from storage.patch_reader import PatchReader
from storage.store import SpectrogramStore
from vocsep.arrays import Flags, Floats, Integers
from vocsep.preprocessing.config import spectrogram_config

DRAWN = ("vocals", "accompaniment")
# Levels of a set are measured in the middles of this number of its songs.
MEASURED_SONGS = 64
MEASURED_FRAMES = 256
# In dB of a full-scale tone; what is quieter is no singing.
SILENCE_DB = -60.0


@dataclass(frozen=True)
class SongSet:
    """A store whose training songs are drawn, and the shares of all drawn sources that come from it.

    Attributes
    ----------
    vocals, accompaniment
        Shares in [0, 1]; None: by hours, of what the shares of other sets leave.
    """

    store: SpectrogramStore
    vocals: float | None = None
    accompaniment: float | None = None


class SongPool:
    """Training songs of several sets, in the order of the sets; levels are adjusted to those of the first set.

    Attributes
    ----------
    tracks
        All songs; some may lack a source.
    """

    def __init__(self, *sets: SongSet | SpectrogramStore) -> None:
        self.sets = [one if isinstance(one, SongSet) else SongSet(one) for one in sets]
        self.tracks: list[TrackRecord] = []
        self._set_of: list[int] = []
        for index, one in enumerate(self.sets):
            tracks = one.store.tracks("train")
            self.tracks += tracks
            self._set_of += [index] * len(tracks)
        self._readers = [PatchReader(one.store) for one in self.sets]

    def store(self, index: int) -> SpectrogramStore:
        """The store that a song is in."""
        return self.sets[self._set_of[index]].store

    def reader(self, index: int) -> PatchReader:
        """Reads patches of a song."""
        return self._readers[self._set_of[index]]

    def probabilities(self, source: str) -> npt.NDArray[np.float64]:
        """With which probability a song is drawn for a source, `(songs,)`: by its length within its set."""
        lengths = np.array([track.frames if source in track.arrays else 0 for track in self.tracks], dtype=np.float64)
        in_set = [lengths * (np.array(self._set_of) == index) for index in range(len(self.sets))]
        shares = [getattr(one, source) if hours.any() else 0.0 for one, hours in zip(self.sets, in_set, strict=True)]
        rest = 1 - sum(share for share in shares if share is not None)
        free = sum(hours.sum() for hours, share in zip(in_set, shares, strict=True) if share is None)
        weights = np.zeros(len(lengths))
        for hours, share in zip(in_set, shares, strict=True):
            if share is None:
                weights += hours * (rest / free)
            elif share:
                weights += hours * (share / hours.sum())
        probabilities: npt.NDArray[np.float64] = weights / weights.sum()
        return probabilities

    def gains(self, source: str) -> Floats:
        """Factor for each song, `(songs,)` float32, that brings the median level of its set to that of the first."""
        if len(self.sets) == 1:
            return np.ones(len(self.tracks), dtype=np.float32)
        levels = [self._level(index, source) for index in range(len(self.sets))]
        factors = [levels[0] / level if level and levels[0] else 1.0 for level in levels]
        return np.array([factors[index] for index in self._set_of], dtype=np.float32)

    def is_silent(self, track: Integers, start: Integers, frames: Integers) -> Flags:
        """Whether excerpts of songs have no vocals: all magnitudes below `SILENCE_DB` of a full-scale tone.

        One entry per excerpt, in each argument: index of its song, its first frame, and the number of its frames.
        """
        return np.array([self._is_silent(*map(int, one)) for one in zip(track, start, frames, strict=True)])

    def _is_silent(self, index: int, start: int, frames: int) -> bool:
        track = self.tracks[index]
        array = track.arrays["vocals"]
        limit = np.array(self._limits[self._set_of[index]], dtype=array.dtype)
        patch = np.empty((min(frames, track.frames - start), array.shape[2]), dtype=array.dtype)
        for channel in range(track.channels):
            self.reader(index).read(track, "vocals", channel, start, patch)
            # Numbers from 0 on are in the order of their bits, which are compared faster; what is no number is above.
            bits = f"i{patch.itemsize}"
            if patch.view(bits).max() > limit.view(bits):
                return False
        return True

    @functools.cached_property
    def _limits(self) -> list[float]:
        """The largest magnitude of silence in each set; a tone of amplitude 1 has a quarter of the FFT's length."""
        return [spectrogram_config(one.store).n_fft / 4 * 10 ** (SILENCE_DB / 20) for one in self.sets]

    def _level(self, number: int, source: str) -> float:
        """Median over songs of a set of the root mean square of magnitudes in their middle; 0 if all are silent."""
        songs = [
            index for index, one in enumerate(self._set_of) if one == number and source in self.tracks[index].arrays
        ]
        found = []
        for index in songs[:: max(1, len(songs) // MEASURED_SONGS)]:
            track = self.tracks[index]
            frames = min(MEASURED_FRAMES, track.frames)
            patch = np.empty((frames, track.arrays[source].shape[2]), dtype=track.arrays[source].dtype)
            self.reader(index).read(track, source, 0, (track.frames - frames) // 2, patch)
            found.append(float(np.sqrt(np.square(patch, dtype=np.float32).mean())))
        heard = [level for level in found if level > 0]
        return float(np.median(heard)) if heard else 0.0


def training_bytes(tracks: Sequence[TrackRecord], sources: Sequence[str]) -> int:
    """Bytes of the named spectrograms of all tracks in memory."""
    arrays = [track.arrays[source] for track in tracks for source in sources if source in track.arrays]
    return sum(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays)
