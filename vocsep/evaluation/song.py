"""Scoring one song: BSSEval v4 of models or foreign estimates, floor and ceilings."""

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import UserError
from storage.files import write_atomically
from vocsep.arrays import Waveform
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import Engine
from vocsep.evaluation.oracles import IDEAL_MASKS, ideal_estimates
from vocsep.evaluation.scores import SOURCES, SongScores
from vocsep.evaluation.subjects import Subject
from vocsep.metrics.bsseval import METRICS, Waveforms, bss_eval, bss_eval_each, check_signals
from vocsep.metrics.bsseval_short import is_short
from vocsep.metrics.song import si_sdr, song_sdr

WINDOW_SECONDS = 1.0


def bss_scores(
    references: dict[str, Waveform], rows: Sequence[dict[str, Waveform]], sample_rate: int, engine: Engine = "fast"
) -> list[dict[str, dict[str, list[float]]]]:
    """BSSEval v4 of each of several estimates of one song, in frames of 1 s without overlap.

    Parameters
    ----------
    references, rows
        `vocals` and `accompaniment`, each `(channels, samples)`, all of one shape.
    engine
        `fast` is `vocsep.metrics.bsseval`, which has museval's values; `museval` is the reference itself, many times
        slower.

    Returns
    -------
    scores
        Of each estimate: source to metric to one value in dB per frame.

    Raises
    ------
    UserError
        If shapes differ or an estimate is not finite.
    """
    window = round(WINDOW_SECONDS * sample_rate)
    stacked = []
    for estimates in rows:
        shapes = {waveform.shape for waveform in (*references.values(), *estimates.values())}
        if len(shapes) != 1:
            raise UserError(f"references and estimates differ in shape: {', '.join(map(str, sorted(shapes)))}")
        stacked.append(np.stack([estimates[source] for source in SOURCES]))
    true = np.stack([references[source] for source in SOURCES])
    found: list[Any]
    if engine == "fast":
        found = bss_eval_each(true, stacked, window=window, hop=window)
    else:
        found = [_by_museval(true, estimated, window) for estimated in stacked]
    return [
        {
            source: {
                metric: [float(value) for value in values[index]]
                for metric, values in zip(METRICS, measures, strict=True)
            }
            for index, source in enumerate(SOURCES)
        }
        for measures in found
    ]


def _by_museval(true: Waveforms, estimated: Waveforms, window: int) -> Any:
    check_signals(true, estimated, window, window)
    # museval refuses songs in which a source is silent throughout; ours gives NaN.
    if not all(stem.sum(axis=0).any() for stem in (*true, *estimated)):
        return bss_eval(true, estimated, window=window, hop=window)
    # museval's convention is (sources, samples, channels).
    return _museval_metrics().bss_eval(
        true.swapaxes(1, 2),
        estimated.swapaxes(1, 2),
        compute_permutation=False,
        window=window,
        hop=window,
        framewise_filters=False,
        bsseval_sources_version=False,
    )[:4]


def _museval_metrics() -> Any:
    """museval's file of metrics alone: importing its package asks for the program ffmpeg, which no metric needs."""
    package = importlib.util.find_spec("museval")
    if package is None or package.origin is None:
        raise UserError("the package museval is not installed; install it with `pip install museval`")
    spec = importlib.util.spec_from_file_location("museval_metrics", Path(package.origin).with_name("metrics.py"))
    assert spec is not None
    assert spec.loader is not None
    metrics = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(metrics)
    return metrics


def evaluate_song(song: Song, subjects: dict[str, Subject], report: Path, engine: Engine = "fast") -> SongScores:
    """Score all subjects on one song, with floor and ceilings, and write museval-schema JSON files.

    Raises `UserError` if the song, a model or an estimate cannot be read, or estimates do not go with the song.

    Parameters
    ----------
    subjects
        Row to what makes its estimates; `model` must be among them, and its band is that of the ceilings.
    report
        `<report>/<row>/<split>/<track id>.json` is written for every row.
    """
    sources, sample_rate = read_sources(song, ("mixture", *SOURCES))
    mixture = sources.pop("mixture")
    scores = SongScores(song.id, song.name, seconds=mixture.shape[1] / sample_rate, rows={}, whole={})
    found = _estimates(song, subjects, mixture, sources, sample_rate)
    # One row of a long song at a time: the stems of all of them together would be many times the song.
    together: Iterable[dict[str, dict[str, Waveform]]]
    together = [dict(found)] if is_short(mixture.shape[1]) else ({row: estimates} for row, estimates in found)
    for rows in together:
        measured = bss_scores(sources, list(rows.values()), sample_rate, engine)
        for (row, estimates), measures in zip(rows.items(), measured, strict=True):
            scores.rows[row] = measures
            scores.whole[row] = {
                source: {
                    "SI-SDR": si_sdr(sources[source], estimates[source]),
                    "song SDR": song_sdr(sources[source], estimates[source]),
                }
                for source in SOURCES
            }
    for row in scores.rows:
        write_atomically(report / row / song.split / f"{song.id}.json", museval_json(scores, row).encode())
    return scores


def _estimates(
    song: Song, subjects: dict[str, Subject], mixture: Waveform, sources: dict[str, Waveform], sample_rate: int
) -> Iterator[tuple[str, dict[str, Waveform]]]:
    """Rows and their stems: the subjects, the floor, the ceilings."""
    for row, subject in subjects.items():
        yield row, subject.estimate(song, mixture, sample_rate)
    yield "mixture", dict.fromkeys(SOURCES, mixture)
    config = subjects["model"].spectrogram
    for row, (power, full_band) in IDEAL_MASKS.items():
        yield row, ideal_estimates(mixture, sources, sample_rate, config, power=power, full_band=full_band)


def museval_json(scores: SongScores, row: str) -> str:
    """Scores of one row in museval's schema: five decimals, NaN for what is not finite."""

    def frame(values: dict[str, list[float]], index: int) -> dict[str, Any]:
        found = {metric: values[metric][index] for metric in ("SDR", "SIR", "SAR", "ISR")}
        shown = {metric: round(value, 5) if np.isfinite(value) else float("nan") for metric, value in found.items()}
        return {"time": index * WINDOW_SECONDS, "duration": WINDOW_SECONDS, "metrics": shown}

    targets = [
        {"name": source, "frames": [frame(values, index) for index in range(len(values["SDR"]))]}
        for source, values in scores.rows[row].items()
    ]
    return json.dumps({"targets": targets, "museval_version": importlib.metadata.version("museval")}, indent=2)
