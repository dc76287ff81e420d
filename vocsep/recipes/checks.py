"""How a finished model does on other kinds of music than that of its test songs."""

from math import isnan
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from storage.errors import UserError
from vocsep.audio.resampling import resample
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song, song_key
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.screening import level_db
from vocsep.evaluation.step import evaluate
from vocsep.mapping import Map
from vocsep.models.registry import open_registry
from vocsep.progress import Progress
from vocsep.recipes.config import MusicCheck
from vocsep.separation.separator import Separator
from vocsep.training.validation import median_frame_sdr


def run_check(
    one: MusicCheck,
    dataset: Path,
    evaluation: EvaluateConfig,
    progress: Progress | None,
    map: Map,
    music: Path | None = None,
) -> dict[str, Any]:
    """What a check finds: for instrumentals how loud their vocals come out, for other songs their scores.

    Parameters
    ----------
    evaluation
        Of the model, on its test songs.
    music
        What a check's voices are laid `over`.

    Returns
    -------
    found
        `songs`, and `vocals_level_db` or `vocals_sdr_db`: figures by name.

    Raises
    ------
    UserError
        If the model was trained on one of the songs, or a voice is silent.
    """
    is_instrumental, are_voices = one.kind == "accompaniment", one.kind == "vocals"
    songs = [
        song
        for song in open_dataset(dataset, one.kind).songs
        if is_instrumental or are_voices or song.split == one.split
    ]
    held = open_registry(evaluation.models).open(evaluation.model).says("data", "train")
    trained = {song_key(name) for name in held} if isinstance(held, list) else set()
    if known := [song.name for song in songs if song_key(song.name) in trained]:
        raise UserError(f"{one.name}: the model was trained on {known[0]!r}; take it out of the checks")
    if is_instrumental:
        separator = Separator.load(evaluation.model, evaluation.models, precision="32")
        levels = []
        for song in songs:
            waveforms, sample_rate = read_sources(song, ("mixture",))
            mixture = waveforms["mixture"]
            levels.append(level_db(separator.separate(mixture, sample_rate)["vocals"], mixture))
        return {"songs": len(levels), "vocals_level_db": {"median": median(levels), "highest": max(levels)}}
    if are_voices:
        assert music is not None
        separator = Separator.load(evaluation.model, evaluation.models, precision="32")
        grounds = open_dataset(music, "accompaniment").songs
        found = [_score_over(voice, ground, separator) for voice in songs for ground in grounds]
        return {"songs": len(found), "vocals_sdr_db": {"median": median(found), "mean": fmean(found)}}
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


def _score_over(voice: Song, ground: Song, separator: Separator) -> float:
    """SDR in dB of a voice over as much music as it lasts, both as loud (see `median_frame_sdr`)."""
    (voices, voice_rate), (sounds, sample_rate) = (read_sources(song, ("mixture",)) for song in (voice, ground))
    vocals, music = resample(voices["mixture"], voice_rate, sample_rate), sounds["mixture"]
    length = min(vocals.shape[1], music.shape[1])
    music = music[:, :length]
    vocals = np.broadcast_to(vocals.mean(axis=0), music.shape[:1] + vocals.shape[1:])[:, :length]
    vocals = vocals * np.float32(10 ** (-level_db(vocals, music) / 20))
    estimate = separator.separate(vocals + music, sample_rate)["vocals"]
    sdr_db = median_frame_sdr(vocals, estimate, sample_rate)
    if isnan(sdr_db):
        raise UserError(f"{voice.name} over {ground.name}: silent, or shorter than a second; take it out of the checks")
    return sdr_db
