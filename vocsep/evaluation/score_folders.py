"""BSSEval for two folders of audio files, without dataset, model or store."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.datasets.stems import stem_files
from vocsep.evaluation.subjects import read_whole
from vocsep.metrics.bsseval import METRICS, bss_eval


def score_folders(
    references: Path, estimates: Path, window_seconds: float = 1.0, hop_seconds: float = 1.0
) -> dict[str, Any]:
    """Score the files of one folder against those of the same names in another.

    Raises `UserError` if a folder is missing or empty, a name occurs twice, or names, rates, channels or lengths
    differ.

    Parameters
    ----------
    references
        Folder with one audio file per true source: `vocals.wav`, `drums.flac`, ...
    estimates
        Folder with estimates under the same names; of the same rate, channels and length.

    Returns
    -------
    scores
        `{"sample_rate", "window_seconds", "hop_seconds", "sources": {name: {metric: {"median", "frames"}}}, "notes"}`;
        values in dB, frames that are not counted are None, and the notes say why.
    """
    for option, seconds in (("window", window_seconds), ("hop", hop_seconds)):
        if not 0 < seconds < math.inf:
            raise UserError(f"--{option} {seconds:g}: must be seconds, more than 0")
    for folder in (references, estimates):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    true_files, estimated_files = stem_files(references), stem_files(estimates)
    if not true_files:
        raise UserError(f"{references}: no audio files in this folder")
    missing = sorted(set(true_files) ^ set(estimated_files))
    if missing:
        raise UserError(f"{references} and {estimates}: {', '.join(missing)} is in one of them only")
    true, rate = _stacked([true_files[name] for name in true_files])
    estimated, estimated_rate = _stacked([estimated_files[name] for name in true_files])
    if rate != estimated_rate or true.shape != estimated.shape:
        raise UserError(
            f"{estimates}: {estimated_rate} Hz, {estimated.shape[1]} channels, {estimated.shape[2]} samples; the "
            f"references have {rate} Hz, {true.shape[1]} channels, {true.shape[2]} samples"
        )
    # Frames longer than the song are the song.
    window, hop = (max(1, min(round(seconds * rate), true.shape[2])) for seconds in (window_seconds, hop_seconds))
    values = dict(zip(METRICS, bss_eval(true, estimated, window=window, hop=hop), strict=True))
    return {
        "sample_rate": rate,
        "window_seconds": window_seconds,
        "hop_seconds": hop_seconds,
        "sources": {
            name: {metric: _frames(values[metric][index]) for metric in METRICS}
            for index, name in enumerate(true_files)
        },
        "notes": [note for index, name in enumerate(true_files) if (note := _note(name, values["SDR"][index]))],
    }


def _stacked(paths: list[Path]) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """Files of one rate and shape as `(files, channels, samples)`, and their rate."""
    decoded: list[tuple[Waveform, int]] = [read_whole(path) for path in paths]
    first, rate = decoded[0]
    for path, (waveform, other) in zip(paths, decoded, strict=True):
        if other != rate or waveform.shape != first.shape:
            raise UserError(
                f"{path}: {other} Hz, {len(waveform)} channels, {waveform.shape[1]} samples; {paths[0].name} has "
                f"{rate} Hz, {len(first)} channels, {first.shape[1]} samples"
            )
    return np.stack([waveform for waveform, _ in decoded]), rate


def _note(name: str, sdr: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """Why frames of a source are not counted; empty if all are."""
    silent, perfect = int(np.isnan(sdr).sum()), int(np.isposinf(sdr).sum())
    reasons = [f"{silent} silent (any source, true or estimated)"] if silent else []
    if perfect:
        reasons.append(f"{perfect} without any error (the estimate is the true source, to the last digit)")
    return f"{name}: frames not counted: {', '.join(reasons)}" if reasons else ""


def _frames(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    frames = [float(value) if np.isfinite(value) else None for value in values]
    counted = values[np.isfinite(values)]
    return {"median": float(np.median(counted)) if len(counted) else None, "frames": frames}
