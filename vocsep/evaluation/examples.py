"""Songs of a report to look at and listen to: spectrograms and short excerpts of mixture, truth and estimate."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from vocsep.audio.opening import system_name
from vocsep.audio.resampling import resample
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.subjects import Subject
from vocsep.spectrograms.plot import loudest_span, plot_spectrograms

MP3_RATE = 44100
SOUNDS = ("mixture", "true vocals", "estimated vocals", "estimated accompaniment")


@dataclass(frozen=True)
class Example:
    """Files of one song, by what they show; `sounds` by their names in `SOUNDS`."""

    track_id: str
    name: str
    picture: Path
    sounds: dict[str, Path]


def make_example(song: Song, subject: Subject, folder: Path) -> Example:
    """Draw a song's spectrograms and write mp3 excerpts of its loudest singing into `folder`.

    Raises `UserError` if the song or its estimate cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources, sample_rate = read_sources(song, ("mixture", "vocals"))
    estimate = subject.estimate(song, sources["mixture"], sample_rate)
    span = loudest_span(sources["vocals"], sample_rate)
    waveforms = (sources["mixture"], sources["vocals"], estimate["vocals"], estimate["accompaniment"])
    excerpts = {name: waveform[:, span] for name, waveform in zip(SOUNDS, waveforms, strict=True)}
    sounds = {name: folder / f"{song.id}-{name.replace(' ', '-')}.mp3" for name in SOUNDS}
    # mp3 knows few rates, and one level for all four keeps them comparable without clipping.
    audible = {name: resample(excerpt, sample_rate, MP3_RATE) for name, excerpt in excerpts.items()}
    peak = max(1.0, *(float(np.abs(excerpt).max(initial=0.0)) for excerpt in audible.values()))
    for name, path in sounds.items():
        soundfile.write(system_name(path), audible[name].T / peak, MP3_RATE, format="MP3")
    picture = folder / f"{song.id}.png"
    shown = {name: excerpts[name] for name in SOUNDS[:3]}
    plot_spectrograms(picture, shown, sample_rate, subject.spectrogram, start_seconds=span.start / sample_rate)
    return Example(song.id, song.name, picture, sounds)
