"""Scoring: BSSEval v4 (museval) of a model on songs with known stems, beside its floor and its ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import museval
import numpy as np

from storage.errors import UserError
from storage.files import write_atomically
from storage.manifest import Manifest
from storage.registry import ModelRegistry, ModelVersion
from vocsep.audio import Waveform
from vocsep.bsseval import bss_eval
from vocsep.dataset import Dataset, Song, open_dataset, read_sources
from vocsep.separation import Separator, cached_separator
from vocsep.spectrogram import apply_mask, features, ideal_ratio_mask

SOURCES = ("vocals", "accompaniment")
METRICS = ("SDR", "ISR", "SIR", "SAR")
ROWS = ("model", "mixture", "irm1")
ROW_TITLES = {
    "model": "model",
    "mixture": "mixture (floor)",
    "irm1": "ideal mask (ceiling)",
}
WINDOW_SECONDS = 1.0

Engine = Literal["fast", "museval"]


@dataclass(frozen=True)
class SongScores:
    """Scores of one song: row to source to metric to the values in dB of its 1-s frames (NaN: not counted)."""

    track_id: str
    name: str
    seconds: float
    rows: dict[str, dict[str, dict[str, list[float]]]]

    def median(self, row: str, source: str, metric: str) -> float:
        """Median over the counted frames, NaN if there is none."""
        values = np.array(self.rows[row][source][metric])
        counted = values[np.isfinite(values)]
        return float(np.median(counted)) if len(counted) else float("nan")


def bss_scores(
    references: dict[str, Waveform], estimates: dict[str, Waveform], sample_rate: int, engine: Engine = "fast"
) -> dict[str, dict[str, list[float]]]:
    """BSSEval v4 of the two sources in frames of 1 s without overlap.

    Parameters
    ----------
    references, estimates
        `vocals` and `accompaniment`, each `(channels, samples)`, all of one shape.
    engine
        `fast` is `vocsep.bsseval`, which has museval's values; `museval` is the reference itself, many times slower.

    Returns
    -------
    scores
        Source to metric (SDR, ISR, SIR, SAR) to one value in dB per frame.

    Raises
    ------
    UserError
        If shapes differ or an estimate is not finite.
    """
    shapes = {waveform.shape for waveform in (*references.values(), *estimates.values())}
    if len(shapes) != 1:
        raise UserError(f"references and estimates differ in shape: {', '.join(map(str, sorted(shapes)))}")
    if not all(np.isfinite(estimate).all() for estimate in estimates.values()):
        raise UserError("an estimate holds NaN or infinite samples")
    window = round(WINDOW_SECONDS * sample_rate)
    true, estimated = (np.stack([stems[source] for source in SOURCES]) for stems in (references, estimates))
    silent = not all(stem.sum(axis=0).any() for stem in (*references.values(), *estimates.values()))
    if engine == "fast" or silent:  # museval refuses songs in which a source is silent throughout; fast gives NaN
        scores = bss_eval(true, estimated, window=window, hop=window)
        measures = (scores.sdr, scores.isr, scores.sir, scores.sar)
    else:
        # museval's convention is (sources, samples, channels).
        measures = museval.evaluate(true.swapaxes(1, 2), estimated.swapaxes(1, 2), win=window, hop=window)
    values = dict(zip(METRICS, measures, strict=True))
    return {
        source: {metric: [float(value) for value in values[metric][index]] for metric in METRICS}
        for index, source in enumerate(SOURCES)
    }


def evaluate_song(song: Song, registry: Path, model: str, report: Path, engine: Engine = "fast") -> SongScores:
    """Separate one song, score it beside floor and ceiling, and write museval-schema JSON files to the report folder.

    Parameters
    ----------
    model
        Version number or model folder.
    report
        `<report>/<row>/<split>/<track id>.json` is written for every row.

    Raises
    ------
    UserError
        If the song or the model cannot be read.
    """
    separator = cached_separator(registry, model)
    sources, sample_rate = read_sources(song, ("mixture", *SOURCES))
    mixture = sources.pop("mixture")
    estimates = {
        "model": separator.separate(mixture, sample_rate),
        "mixture": dict.fromkeys(SOURCES, mixture),
        "irm1": _ideal_estimates(separator, mixture, sources, sample_rate),
    }
    scores = SongScores(
        track_id=song.id,
        name=song.name,
        seconds=mixture.shape[1] / sample_rate,
        rows={row: bss_scores(sources, estimates[row], sample_rate, engine) for row in ROWS},
    )
    for row in ROWS:
        write_atomically(report / row / song.split / f"{song.id}.json", _museval_json(scores, row).encode())
    return scores


def _ideal_estimates(
    separator: Separator, mixture: Waveform, sources: dict[str, Waveform], sample_rate: int
) -> dict[str, Waveform]:
    vocals, accompaniment = (
        np.abs(features(sources[source], sample_rate, separator.spectrogram)) for source in SOURCES
    )
    mask = ideal_ratio_mask(vocals, accompaniment)
    estimate = apply_mask(mixture, sample_rate, mask, separator.spectrogram)
    return {"vocals": estimate, "accompaniment": mixture - estimate}


def _museval_json(scores: SongScores, row: str) -> str:
    """Scores of one row in museval's own schema, checked against it."""
    store = museval.TrackStore(win=WINDOW_SECONDS, hop=WINDOW_SECONDS, track_name=scores.name)
    for source in SOURCES:
        store.add_target(source, scores.rows[row][source])
    store.validate()
    text: str = store.json
    return text


def summarize(songs: Sequence[SongScores]) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """Median and mean over songs of the songs' medians over frames: row to source to metric to both, in dB.

    Songs without a counted frame are left out; None where none is left.
    """
    summary: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for row in ROWS:
        summary[row] = {}
        for source in SOURCES:
            summary[row][source] = {}
            for metric in METRICS:
                medians = np.array([song.median(row, source, metric) for song in songs])
                counted = medians[np.isfinite(medians)]
                summary[row][source][metric] = {
                    "median": float(np.median(counted)) if len(counted) else None,
                    "mean": float(np.mean(counted)) if len(counted) else None,
                }
    return summary


@dataclass(frozen=True)
class Target:
    """What is evaluated: a model on the songs of one split."""

    model: ModelVersion
    dataset: Dataset
    split: str
    songs: tuple[Song, ...]

    @property
    def model_name(self) -> str:
        """Name under which any process finds the model in the registry."""
        return str(self.model.path.resolve()) if self.model.version is None else str(self.model.version)

    @property
    def seen_in_training(self) -> list[str]:
        """Names of songs that the model was trained or validated on: their scores say little."""
        data = self.model.description.get("data", {})
        seen = {*data.get("train", []), *data.get("valid", [])}
        return sorted(song.name for song in self.songs if song.name in seen)


def resolve_evaluation(models: Path, model: str, dataset: Path | None, kind: str, split: str, store: Path) -> Target:
    """Find model, dataset and songs by their names.

    Parameters
    ----------
    dataset, kind
        See `open_dataset`; None takes the dataset that `store` was made from.

    Raises
    ------
    UserError
        If one of them is missing or the split has no songs.
    """
    version = ModelRegistry(models).open(model)
    if dataset is not None:
        opened = open_dataset(dataset, kind)
    else:
        held = Manifest.load(store).dataset
        opened = open_dataset(Path(held["root"]), held["kind"])
    songs = tuple(opened.split(split))
    if not songs:
        raise UserError(f"{opened.root}: no songs in the {split} split; evaluate another one with --split")
    return Target(version, opened, split, songs)
