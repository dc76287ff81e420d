"""Which of a folder's instrumentals contain singing, as far as a trained model can hear."""

import os
import shutil
from dataclasses import dataclass
from math import isfinite, log10
from pathlib import Path

import numpy as np

from storage.errors import UserError
from storage.files import writing_folder
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.mapping import SomeFailed, serial
from vocsep.paths import MODELS
from vocsep.progress import Progress
from vocsep.separation.separator import Separator

# What is as quiet as this, in dB of the song, is silence.
SILENT_DB = -100.0
# Where to listen is told in steps of this.
PIECE_SECONDS = 10.0


@dataclass(frozen=True)
class Heard:
    """An instrumental, and what sounds like vocals in it.

    Attributes
    ----------
    path
        Its file.
    vocals_db
        Level of the vocals in dB of the song.
    seconds
        Where the ten seconds begin in which they are loudest.
    """

    song: str
    path: Path
    vocals_db: float
    seconds: float


def level_db(part: Waveform, whole: Waveform) -> float:
    """Energy of a part in dB of the energy of the whole, both `(channels, samples)`; at least `SILENT_DB`."""
    energies = [float(np.square(one, dtype=np.float64).sum()) for one in (part, whole)]
    return max(SILENT_DB, 10 * log10(energies[0] / energies[1])) if min(energies) > 0 else SILENT_DB


def loudest_second(waveform: Waveform, sample_rate: int) -> float:
    """Where the loudest piece of `PIECE_SECONDS` of a waveform `(channels, samples)` begins, in seconds."""
    size = round(PIECE_SECONDS * sample_rate)
    starts = range(0, max(1, waveform.shape[1]), size)
    energies = [float(np.square(waveform[:, start : start + size], dtype=np.float64).sum()) for start in starts]
    return starts[int(np.argmax(energies))] / sample_rate


def screen(
    folder: Path,
    *,
    loudest_db: float,
    output: Path | None = None,
    model: str = "champion",
    models: Path = MODELS,
    progress: Progress | None = None,
) -> tuple[list[Heard], list[Heard]]:
    """Listen to all songs of a folder of instrumentals with a model.

    Parameters
    ----------
    folder
        Any audio files in any folder below, as for preprocessing with `kind` accompaniment.
    loudest_db
        A song is dropped if its vocals are louder than this, in dB of the song; finite.
    output
        New folder for the songs that are kept, under the same names: further names of the same files where the disk
        allows, else copies.
    progress
        Called with the songs that are done, of how many.

    Returns
    -------
    kept, dropped
        Both from the loudest vocals to the quietest.

    Raises
    ------
    UserError
        If the limit is not finite, there are no songs, or `output` exists and is not empty.
    SomeFailed
        If some songs cannot be read; its result is what is known of the others.
    """
    if not isfinite(loudest_db):
        raise UserError(f"loudest {loudest_db:g}: give a number of decibels, such as -12")
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists and is not empty; give a new folder")
    dataset = open_dataset(folder, "accompaniment")
    separator = Separator.load(model, models)
    report = progress or (lambda done, total: None)
    outcomes = serial(_listen, dataset.songs, (separator,), on_outcome=lambda _, done: report(done, len(dataset.songs)))
    heard = sorted((one.result for one in outcomes if one.result), key=lambda one: -one.vocals_db)
    kept = [one for one in heard if one.vocals_db <= loudest_db]
    dropped = [one for one in heard if one.vocals_db > loudest_db]
    if output is not None and kept:
        with writing_folder(output) as made:
            for one in kept:
                place = made / one.path.relative_to(dataset.root)
                place.parent.mkdir(parents=True, exist_ok=True)
                _name_again(one.path, place)
    failures = dict(dataset.problems) | {one.item.name: one.error for one in outcomes if one.error}
    if failures:
        raise SomeFailed(failures, len(dataset.songs) + len(dataset.problems), "songs", (kept, dropped))
    return kept, dropped


def _listen(song: Song, separator: Separator) -> Heard:
    waveforms, sample_rate = read_sources(song, ("mixture",))
    mixture = waveforms["mixture"]
    vocals = separator.separate(mixture, sample_rate)["vocals"]
    return Heard(
        song.name, song.mixture[0].path, level_db(vocals, mixture), seconds=loudest_second(vocals, sample_rate)
    )


def _name_again(path: Path, place: Path) -> None:
    try:
        os.link(path.resolve(), place)
    except OSError:  # another disk, or one that has no further names
        shutil.copyfile(path, place)
