"""What a song is, voice, tempo, chords and notes, and how one is composed from a seed."""

import math
from dataclasses import dataclass

import numpy as np

from vocsep.demo.signals import random_for

VOICES: dict[str, tuple[int, int, bool, float]] = {
    "bass": (41, 58, False, 0.96),
    "tenor": (48, 65, False, 1.04),
    "alto": (55, 72, True, 0.98),
    "soprano": (60, 77, True, 1.06),
}
"""Lowest and highest MIDI note, whether the woman's vowels are used, and the factor on their formants."""

INSTRUMENTS = ("saws", "pluck", "epiano", "organ")
"""What the chords can be played on."""

_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
# Four bars each, as degrees of the scale.
_PROGRESSIONS = {
    _MAJOR: ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 5), (0, 3, 1, 4)),
    _MINOR: ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 6), (0, 3, 6, 2), (0, 4, 5, 3), (5, 6, 0, 0)),
}


@dataclass(frozen=True)
class Note:
    """One sung note.

    Parameters
    ----------
    start, end
        In seconds from the song's beginning.
    midi
        MIDI number: 69 is 440 Hz, one more is a semitone higher.
    opens
        Whether it begins a phrase.
    """

    start: float
    end: float
    midi: int
    opens: bool


@dataclass(frozen=True)
class Song:
    """What a song plays.

    Parameters
    ----------
    voice
        A name in `VOICES`.
    tempo
        Beats a minute.
    chords
        MIDI numbers, one chord per bar, its root first.
    notes
        The sung notes, in the order of time.
    instrument
        What the chords are played on, a name in `INSTRUMENTS`.
    """

    voice: str
    tempo: float
    chords: tuple[tuple[int, ...], ...]
    notes: tuple[Note, ...]
    instrument: str

    @property
    def bar(self) -> float:
        """Length of a bar of four beats, in seconds."""
        return 240.0 / self.tempo


def plan_song(seed: int, index: int, seconds: float) -> Song:
    """Choose voice, tempo, key, chords and melody of a song, always the same for the same arguments.

    Songs 4k to 4k + 3 have the four voices and the four chord instruments, each once. The chords fill the last bar
    begun; the last note may end after `seconds`.

    Raises
    ------
    ValueError
        If `seed` or `index` is negative, or `seconds` is below 1.
    """
    if seed < 0 or index < 0 or seconds < 1:
        raise ValueError(f"seed {seed}, index {index}, seconds {seconds}: needs seed, index >= 0, seconds >= 1")
    four = random_for(seed, index // 4, "four")
    voice = list(VOICES)[four.permutation(4)[index % 4]]
    instrument = INSTRUMENTS[four.permutation(4)[index % 4]]
    rng = random_for(seed, index, "song")
    tempo = float(rng.uniform(80, 150))
    key = int(rng.integers(12))
    scale = _MAJOR if rng.random() < 0.55 else _MINOR
    degrees = [_PROGRESSIONS[scale][i] for i in rng.permutation(6)[:2]]
    sevenths = rng.random() < 0.4
    bars = math.ceil(seconds * tempo / 240)
    chords = []
    for bar in range(bars):
        # Two four-bar progressions, as verse and chorus: A A B B.
        degree = degrees[bar // 8 % 2][bar % 4]
        steps = (0, 2, 4, 6) if sevenths else (0, 2, 4)
        chords.append(tuple(key + scale[(degree + s) % 7] + 12 * ((degree + s) // 7) for s in steps))
    notes = _melody(rng, VOICES[voice][:2], tempo, [(key + s) % 12 for s in scale], chords, seconds)
    return Song(voice, tempo, tuple(chords), notes, instrument)


def _melody(
    rng: np.random.Generator,
    compass: tuple[int, int],
    tempo: float,
    scale: list[int],
    chords: list[tuple[int, ...]],
    seconds: float,
) -> tuple[Note, ...]:
    """Phrases of one or two bars with a breath after each, and in a longer song one rest of some seconds."""
    beat = 60.0 / tempo
    total = len(chords) * 4.0
    long = seconds >= 12
    span = 8.0 if long else 4.0
    pitches = [p for p in range(compass[0], compass[1] + 1) if p % 12 in scale]
    place = len(pitches) // 2
    motifs = [_rhythm(rng, span - rng.choice([1.0, 1.5, 2.0])) for _ in range(3)]
    at = 4.0 if long else 0.25
    rest_at = rng.uniform(0.35, 0.6) * total if long else math.inf
    notes: list[Note] = []
    while at < total:
        if at >= rest_at:
            at += 4.0 * math.ceil(2.5 / (4 * beat))
            rest_at = math.inf
        now = at
        motif = motifs[rng.integers(3)]
        for i, length in enumerate(motif):
            chord = {p % 12 for p in chords[min(int(now / 4), len(chords) - 1)]}
            # A step or a small leap, back towards the middle of the compass; on the beat a note of the chord.
            drift = 0.25 * (len(pitches) / 2 - place)
            place = int(np.clip(place + round(rng.normal(drift, 1.6)), 0, len(pitches) - 1))
            if now % 1 == 0 or i == len(motif) - 1:
                near = sorted(range(len(pitches)), key=lambda j: (abs(j - place), j))
                place = next(j for j in near if pitches[j] % 12 in chord)
            notes.append(Note(now * beat, (now + length) * beat, pitches[place], opens=i == 0))
            now += length
        at += span
    return tuple(n for n in notes if n.start < seconds - 0.15)


def _rhythm(rng: np.random.Generator, beats: float) -> list[float]:
    """Lengths in beats that add up to `beats`, the last one long enough for a vibrato."""
    cells = ((1.0,), (0.5, 0.5), (1.5, 0.5), (2.0,), (0.5, 1.0, 0.5), (0.5, 0.5, 1.0))
    lengths: list[float] = []
    while True:
        cell = cells[rng.integers(len(cells))]
        if sum(lengths) + sum(cell) > beats - 1:
            return [*lengths, beats - sum(lengths)]
        lengths.extend(cell)
