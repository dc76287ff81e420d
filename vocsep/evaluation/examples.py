"""Songs of a report to look at and listen to: short excerpts of mixture, truth and estimates, in step."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.files import write_atomically
from vocsep.audio.resampling import resample
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.rows import ROW_TITLES
from vocsep.evaluation.scores import SOURCES
from vocsep.evaluation.subjects import Subject
from vocsep.html.player import Lane, player_json
from vocsep.html.sounds import Mp3Pieces, in_stereo, listening_rate
from vocsep.spectrograms.features import features
from vocsep.spectrograms.plot import loudest_span


@dataclass(frozen=True)
class Example:
    """One song: which seconds of it are played, and the file with what its player holds."""

    track_id: str
    name: str
    seconds: tuple[float, float]
    player: Path


def make_example(song: Song, subjects: dict[str, Subject], folder: Path) -> Example:
    """Write what a player holds of a song's loudest singing: mixture, truth, and what every subject makes of it.

    Raises `UserError` if the song or an estimate cannot be had.

    Parameters
    ----------
    subjects
        By their rows; the pictures have the band of `model`.
    """
    sources, sample_rate = read_sources(song, ("mixture", *SOURCES))
    span = loudest_span(sources["vocals"], sample_rate)
    waveforms = {("mixture", "mixture"): sources["mixture"][:, span]}
    waveforms |= {(source, "true"): sources[source][:, span] for source in SOURCES}
    for row, subject in subjects.items():
        estimate = subject.estimate(song, sources["mixture"], sample_rate)
        waveforms |= {(source, row): estimate[source][:, span] for source in SOURCES}
    rate = listening_rate(sample_rate)
    audible = {key: resample(in_stereo(waveform), sample_rate, rate) for key, waveform in waveforms.items()}
    # One level for all keeps them comparable without clipping.
    peak = max(1.0, *(float(np.abs(waveform).max(initial=0.0)) for waveform in audible.values()))
    config = subjects["model"].spectrogram
    lanes = []
    for source, row in sorted(waveforms, key=lambda key: ("mixture", *SOURCES).index(key[0])):
        sound = Mp3Pieces(len(audible[source, row]), rate)
        sound.write(audible[source, row] / np.float32(peak))
        sound.finish()
        magnitudes = np.abs(features(waveforms[source, row], sample_rate, config)).mean(axis=0)
        lanes.append(Lane(_name(source, row), source, sound, magnitudes))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{song.id}.json"
    write_atomically(path, player_json(lanes, config).encode())
    return Example(song.id, song.name, (span.start / sample_rate, span.stop / sample_rate), path)


def _name(source: str, row: str) -> str:
    if source == "mixture":
        return "mixture"
    return f"true {source}" if row == "true" else f"{source}, {ROW_TITLES[row]}"
