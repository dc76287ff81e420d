"""How a finished model does on other kinds of music than that of its test songs."""

from math import log10
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import song_key
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.step import evaluate
from vocsep.mapping import Map
from vocsep.models.registry import open_registry
from vocsep.progress import Progress
from vocsep.recipes.config import MusicCheck
from vocsep.separation.separator import Separator

# What is as quiet as this, in dB of the song, is silence.
SILENT_DB = -100.0


def run_check(
    one: MusicCheck, dataset: Path, evaluation: EvaluateConfig, progress: Progress | None, map: Map
) -> dict[str, Any]:
    """What a check finds: for instrumentals how loud their vocals come out, for other songs their scores.

    Parameters
    ----------
    evaluation
        Of the model, on its test songs.

    Returns
    -------
    found
        `songs`, and `vocals_level_db` or `vocals_sdr_db`: figures by name.

    Raises
    ------
    UserError
        If the model was trained on one of the songs.
    """
    is_instrumental = one.kind == "accompaniment"
    songs = [song for song in open_dataset(dataset, one.kind).songs if is_instrumental or song.split == one.split]
    held = open_registry(evaluation.models).open(evaluation.model).says("data", "train")
    trained = {song_key(name) for name in held} if isinstance(held, list) else set()
    if known := [song.name for song in songs if song_key(song.name) in trained]:
        raise UserError(f"{one.name}: the model was trained on {known[0]!r}; take it out of the checks")
    if is_instrumental:
        separator = Separator.load(evaluation.model, evaluation.models)
        levels = []
        for song in songs:
            waveforms, sample_rate = read_sources(song, ("mixture",))
            mixture = waveforms["mixture"]
            levels.append(level_db(separator.separate(mixture, sample_rate)["vocals"], mixture))
        return {"songs": len(levels), "vocals_level_db": {"median": median(levels), "highest": max(levels)}}
    report = evaluate(
        evaluation.model_copy(update={"dataset": dataset, "kind": one.kind, "split": one.split}),
        progress=progress,
        map=map,
    )
    scores = report.summary["rows"]["model"]["vocals"]["SDR"]
    return {
        "songs": report.summary["songs"],
        "vocals_sdr_db": {name: scores[name] for name in ("median", "mean")},
    }


def level_db(part: Waveform, whole: Waveform) -> float:
    """Energy of a part in dB of the energy of the whole, both `(channels, samples)`; at least `SILENT_DB`."""
    energies = [float(np.square(one, dtype=np.float64).sum()) for one in (part, whole)]
    return max(SILENT_DB, 10 * log10(energies[0] / energies[1])) if min(energies) > 0 else SILENT_DB
