"""Songs made by computer: a sung voice over drums, bass and chords, in many keys, tempi and colours.

`vocsep.synth_song` composes a song, `vocsep.synth_voice` sings it and `vocsep.synth_band` accompanies it. Chords and
bass have no formants, no vibrato and no gliding pitch, so that they can be told from the voice by timbre, as in real
music, although they lie in the same band.
"""

import numpy as np

from vocsep.demo.band import play_bass, play_drums, play_other
from vocsep.demo.signals import Signal
from vocsep.demo.song import Song
from vocsep.demo.voice import sing

STEMS = ("drums", "bass", "other", "vocals")
"""The four sources, in the order in which MUSDB18 stores them after the mixture."""

_PARTS = {"drums": play_drums, "bass": play_bass, "other": play_other, "vocals": sing}


def render(song: Song, stem: str, samples: int, sample_rate: int, rng: np.random.Generator) -> Signal:
    """Play one stem of a song.

    Parameters
    ----------
    song
        What is played.
    stem
        A name in `STEMS`.
    samples
        Length, in samples.
    sample_rate
        In Hz.
    rng
        Chooses what the song leaves open; the same state gives the same samples.

    Returns
    -------
    signal
        `(2, samples)` float32, at any level.

    Raises
    ------
    KeyError
        If there is no such stem.
    """
    return _PARTS[stem](song, samples, sample_rate, rng)
