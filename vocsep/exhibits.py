"""Songs of a report to look at and listen to: spectrograms and short excerpts of mixture, truth and estimate."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from vocsep.audio import Waveform, resample
from vocsep.config import SpectrogramConfig
from vocsep.dataset import Song, read_sources
from vocsep.spectrogram import features
from vocsep.spectrogram_plot import draw_spectrograms
from vocsep.subjects import Subject

EXCERPT_SECONDS = 12.0
MP3_RATE = 44100
SOUNDS = ("mixture", "true vocals", "estimated vocals", "estimated accompaniment")


@dataclass(frozen=True)
class Exhibit:
    """Files of one song, by what they show; `sounds` by their names in `SOUNDS`."""

    track_id: str
    name: str
    picture: Path
    sounds: dict[str, Path]


def make_exhibit(song: Song, subject: Subject, folder: Path) -> Exhibit:
    """Draw a song's spectrograms and write mp3 excerpts of its loudest singing into `folder`.

    Raises
    ------
    UserError
        If the song or its estimate cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources, sample_rate = read_sources(song, ("mixture", "vocals"))
    estimate = subject.estimate(song, sources["mixture"], sample_rate)
    span = loudest_span(sources["vocals"], sample_rate)
    waveforms = dict(
        zip(
            SOUNDS,
            (sources["mixture"], sources["vocals"], estimate["vocals"], estimate["accompaniment"]),
            strict=True,
        )
    )
    excerpts = {name: waveform[:, span] for name, waveform in waveforms.items()}
    sounds = {name: folder / f"{song.id}-{name.replace(' ', '-')}.mp3" for name in SOUNDS}
    # mp3 knows few rates, and one level for all four keeps them comparable without clipping.
    audible = {name: resample(excerpt, sample_rate, MP3_RATE) for name, excerpt in excerpts.items()}
    peak = max(1.0, *(float(np.abs(excerpt).max(initial=0.0)) for excerpt in audible.values()))
    for name, path in sounds.items():
        soundfile.write(path, audible[name].T / peak, MP3_RATE, format="MP3")
    picture = folder / f"{song.id}.png"
    plot_spectrograms(
        picture,
        {name: excerpts[name] for name in SOUNDS[:3]},
        sample_rate,
        subject.spectrogram,
        start_seconds=span.start / sample_rate,
    )
    return Exhibit(song.id, song.name, picture, sounds)


def loudest_span(waveform: Waveform, sample_rate: int) -> slice:
    """The samples of the excerpt's length that hold most energy of `(channels, samples)`."""
    samples = waveform.shape[1]
    length = min(samples, round(EXCERPT_SECONDS * sample_rate))
    energy = np.concatenate([[0.0], np.cumsum((waveform.astype(np.float64) ** 2).sum(axis=0))])
    start = int(np.argmax(energy[length:] - energy[: samples - length + 1]))
    return slice(start, start + length)


def plot_spectrograms(
    path: Path,
    waveforms: dict[str, Waveform],
    sample_rate: int,
    config: SpectrogramConfig,
    start_seconds: float = 0.0,
) -> None:
    """Draw magnitude spectrograms above each other, in dB on one scale, with axes in seconds and Hz.

    Parameters
    ----------
    waveforms
        Title to `(channels, samples)`; channels are averaged.
    config
        Band and resolution of the pictures.
    """
    spectra = {
        title: np.abs(features(waveform, sample_rate, config)).mean(axis=0) for title, waveform in waveforms.items()
    }
    frames = max(len(spectrum) for spectrum in spectra.values())
    draw_spectrograms(
        path,
        spectra,
        seconds=(start_seconds, start_seconds + frames / config.frames_per_second),
        hertz=(0, config.sample_rate / 2),
    )
