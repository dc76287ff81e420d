"""Which training patches a step sees: places in the songs, and how each is changed.

The draws of a step depend on nothing but the songs' lengths, where they have singing, the settings, the seed and the
step.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vocsep.arrays import Flags, Floats, Integers
from vocsep.config import Settings
from vocsep.patches.pool import DRAWN, SongPool

# Times that a place without singing is drawn again: of songs with as much silence as singing, 1 in 8 patches has none.
REDRAWS = 2


class Augmentation(Settings):
    """How training patches are changed; each change has a probability and a range.

    Attributes
    ----------
    remix
        Share of patches whose vocals and accompaniment come from different places, of any songs; the rest are excerpts
        of a song's own mixture.
    gain, gain_db
        Probability that a source's level changes, and by how many decibels at most, up or down.
    swap
        Probability that a source's stereo channels change places.
    pitch, pitch_semitones
        Probability that a source is transposed, and by how many semitones at most, up or down.
    tempo, tempo_factor
        Probability that a source is played at another tempo, and the highest factor (the lowest is its inverse).
    """

    remix: float = Field(default=0.8, ge=0, le=1, description="Share of patches mixed from two different places.")
    gain: float = Field(default=0.5, ge=0, le=1, description="Probability that a source's level changes.")
    gain_db: float = Field(default=6.0, ge=0, le=40, description="Largest change of level in dB.")
    swap: float = Field(default=0.5, ge=0, le=1, description="Probability that stereo channels change places.")
    pitch: float = Field(default=0.5, ge=0, le=1, description="Probability that a source is transposed.")
    pitch_semitones: float = Field(default=3.0, ge=0, le=12, description="Largest transposition in semitones.")
    tempo: float = Field(default=0.25, ge=0, le=1, description="Probability that a source's tempo changes.")
    tempo_factor: float = Field(default=1.2, ge=1, le=2, description="Largest change of tempo.")


@dataclass(frozen=True)
class SourceDraws:
    """What one source of each patch is: a place in a song, and how it is changed. One entry per patch.

    Attributes
    ----------
    track, channel, start
        Index among the training songs, channel (for networks of one channel), first frame.
    frames
        Frames that are read, and then stretched or squeezed to those of a patch.
    pitch
        Factor on all frequencies.
    gain
        Factor on all magnitudes.
    swap
        Whether the stereo channels change places.
    """

    track: Integers
    channel: Integers
    start: Integers
    frames: Integers
    pitch: Floats
    gain: Floats
    swap: Flags

    def items(self, part: slice | Integers) -> "SourceDraws":
        """Some of the patches."""
        return SourceDraws(*(getattr(self, field.name)[part] for field in fields(self)))

    def replaced(self, where: Flags, others: "SourceDraws") -> "SourceDraws":
        """The same, but for some patches those of `others`."""
        pairs = [(getattr(self, field.name), getattr(others, field.name)) for field in fields(self)]
        return SourceDraws(*(np.where(where, other, own).astype(own.dtype) for own, other in pairs))


@dataclass(frozen=True)
class Draws:
    """What the patches of one step, or of one process's share of it, are made from. One entry per patch.

    Attributes
    ----------
    vocals, accompaniment
        The same places and changes where `remixed` is false.
    remixed
        Whether the mixture is made from the two, or read from the song.
    phase
        In [0, 1): where in the table of random phases those of the mix begin.
    """

    vocals: SourceDraws
    accompaniment: SourceDraws
    remixed: Flags
    phase: npt.NDArray[np.float64]

    def items(self, part: slice) -> "Draws":
        """Some of the patches."""
        return Draws(self.vocals.items(part), self.accompaniment.items(part), self.remixed[part], self.phase[part])

    def share(self, rank: int, processes: int) -> "Draws":
        """The patches of one of several processes: every `processes`-th, beginning with `rank`."""
        return self.items(slice(rank, None, processes))


class PatchSampler:
    """Draws the patches of any step.

    A song is drawn with a probability proportional to its length within its set, then a start frame uniformly over all
    possible ones, the last included; a song shorter than a patch is padded with zeros by the reader. A song that
    has but one source is always mixed with another one. A place without singing is drawn again, `REDRAWS` times at
    most: silence teaches little, and half of a song may be silent.

    Parameters
    ----------
    pool
        The training songs.
    frames
        Frames per patch.
    is_silent
        Whether places have no singing: of songs, by their index, from first frames on, for numbers of frames.
    """

    def __init__(
        self,
        pool: SongPool,
        *,
        batch_size: int,
        frames: int,
        augmentation: Augmentation,
        seed: int,
        is_silent: Callable[[Integers, Integers, Integers], Flags],
    ) -> None:
        self._tracks = pool.tracks
        self._lengths = np.array([track.frames for track in pool.tracks], dtype=np.int64)
        self._channels = np.array([track.channels for track in pool.tracks], dtype=np.int64)
        self._has_mixture = np.array(["mixture" in track.arrays for track in pool.tracks])
        self._ends = {source: np.cumsum(pool.probabilities(source)) for source in DRAWN}
        self._gains = {source: pool.gains(source) for source in DRAWN}
        self._batch_size = batch_size
        self._frames = frames
        self._augmentation = augmentation
        self._seed = seed
        self._is_silent = is_silent

    def draw(self, step: int) -> Draws:
        """The patches of step `step`, counted from 0."""
        random = np.random.default_rng((self._seed, step))
        remixed = random.random(self._batch_size) < self._augmentation.remix
        vocals = self._draw_source(random, "vocals")
        other = self._draw_source(random, "accompaniment")
        phase = random.random(self._batch_size)
        for _ in range(REDRAWS):
            silent = self._is_silent(vocals.track, vocals.start, vocals.frames)
            if not silent.any():
                break
            vocals = vocals.replaced(silent, self._draw_source(random, "vocals"))
        remixed |= ~self._has_mixture[vocals.track]
        return Draws(vocals, vocals.replaced(remixed, other), remixed, phase)

    def places(self, draws: Draws) -> list[str]:
        """Where each patch comes from, for people: `Song (frame 12)`, or two of these joined by ` + `."""

        def place(source: SourceDraws, index: int) -> str:
            return f"{self._tracks[source.track[index]].name} (frame {source.start[index]})"

        return [
            place(draws.vocals, index) + (f" + {place(draws.accompaniment, index)}" if draws.remixed[index] else "")
            for index in range(len(draws.remixed))
        ]

    def _draw_source(self, random: np.random.Generator, source: str) -> SourceDraws:
        count = self._batch_size
        settings = self._augmentation

        def changed(probability: float) -> Flags:
            flags: Flags = random.random(count) < probability
            return flags

        ends = self._ends[source]
        track = np.minimum(np.searchsorted(ends, random.random(count), side="right"), np.searchsorted(ends, ends[-1]))
        channel = (random.random(count) * self._channels[track]).astype(np.int64)
        tempo_range = np.log2(settings.tempo_factor)
        tempo = np.where(changed(settings.tempo), 2 ** random.uniform(-tempo_range, tempo_range, count), 1.0)
        frames = np.rint(self._frames * tempo).astype(np.int64)
        start = (random.random(count) * np.maximum(1, self._lengths[track] - frames + 1)).astype(np.int64)
        semitones = random.uniform(-settings.pitch_semitones, settings.pitch_semitones, count)
        pitch = np.where(changed(settings.pitch), 2 ** (semitones / 12), 1.0).astype(np.float32)
        decibels = random.uniform(-settings.gain_db, settings.gain_db, count)
        gain = np.where(changed(settings.gain), 10 ** (decibels / 20), 1.0).astype(np.float32)
        gain *= self._gains[source][track]
        return SourceDraws(track, channel, start, frames, pitch, gain, changed(settings.swap))
