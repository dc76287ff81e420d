"""Songs, models and scores that are made up for the tests of evaluation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from storage.registry import ModelRegistry, ModelVersion
from tests.vocsep.models.small_models import unet
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, SongScores
from vocsep.evaluation.subjects import ModelSubject, Subject
from vocsep.evaluation.target import Target, resolve
from vocsep.metrics.bsseval import METRICS
from vocsep.spectrograms.config import load_spectrogram_config

Array = NDArray[Any]


def resolve_evaluation(
    models: Path, model: str, dataset: Path | None, kind: str, split: str, store: Path, **options: Any
) -> Target:
    return resolve(
        EvaluateConfig(models=models, model=model, dataset=dataset, kind=kind, split=split, store=store, **options)
    )


NAN, INF = float("nan"), float("inf")

CEILINGS = ("irm1", "irm2", "irm1_full", "irm2_full")


def add_model(folder: Path, data: dict[str, Any] | None = None, seed: int = 0) -> ModelVersion:
    """An untrained network as the next version of a registry."""
    torch.manual_seed(seed)
    weights = {name: value.numpy() for name, value in unet(1, width=2).state_dict().items()}
    description: dict[str, Any] = {
        "architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": None},
        "spectrogram": load_spectrogram_config("fine").model_dump(mode="json"),
        "targets": ["vocals"],
    }
    return ModelRegistry(folder).add(weights, description | ({"data": data} if data else {}))


def random_stems(seed: int, samples: int, scale: float = 1.0, channels: int = 2) -> dict[str, Waveform]:
    random = np.random.default_rng(seed)
    return {source: (scale * random.uniform(-0.5, 0.5, (channels, samples))).astype(np.float32) for source in SOURCES}


def every_metric(values: Sequence[float]) -> dict[str, list[float]]:
    return {metric: list(values) for metric in METRICS}


def made_up(
    name: str,
    vocals: Sequence[float],
    accompaniment: Sequence[float] | None = None,
    *,
    whole: float = 0.0,
    others: dict[str, float] | None = None,
) -> SongScores:
    """A song whose model row has these frames in every metric, the floor 10 dB below and the ceiling 10 dB above.

    `whole` is what the whole song scores, `others` more rows and by how much they differ from the model.
    """
    rows, whole_song = {}, {}
    for row, offset in {"model": 0.0, **(others or {}), "mixture": -10.0, "irm1": 10.0}.items():
        frames = {"vocals": vocals, "accompaniment": vocals if accompaniment is None else accompaniment}
        rows[row] = {source: every_metric([value + offset for value in frames[source]]) for source in SOURCES}
        whole_song[row] = {source: dict.fromkeys(WHOLE_SONG_METRICS, whole + offset) for source in SOURCES}
    return SongScores(f"id-{name}", name, float(len(vocals)), rows, whole_song)


MADE_UP_ROWS = ("model", "mixture", "irm1")


RATE = 8000


def mono_stems(seed: int, samples: int, scale: float = 1.0) -> dict[str, Waveform]:
    """Noise in one channel, for which scoring is quickest."""
    return random_stems(seed, samples, scale, channels=1)


def write_stems(folder: Path, stems: dict[str, Waveform], sample_rate: int = RATE) -> None:
    """Write `<folder>/<name>.wav`, as float, for every stem."""
    folder.mkdir(parents=True)
    for name, waveform in stems.items():
        soundfile.write(folder / f"{name}.wav", waveform.T, sample_rate, subtype="FLOAT")


NAMES = (
    "Plain - Song",
    "A$AP $ong - $\\frac{1$",
    "Pipe | Dream - a|b",
    "Zoë, Café - “Où?” 歌 ♫",
    "*Bold* _name_ `code` <b>",
)
NASTY_NAMES = (
    "<script>alert(1)</script>",
    "\"double\" & 'single' quotes",
    '"><img src=x onerror=alert(1)>',
    "{{ summary.subject }} {% for %}",
    "&lt;already&gt; &amp; escaped",
)


def target_of(folder: Path, *, seen: Sequence[str] = (), others: Sequence[str] = ()) -> Target:
    """A model, number 1, and others by their rows, numbered from 2 on, on songs of all the names."""
    subjects: dict[str, Subject] = {}
    models = {}
    for number, row in enumerate(("model", *others), 1):
        subjects[row] = ModelSubject(folder / "models", str(number))
        models[row] = ModelVersion(folder / "models" / f"{number:04d}", number, {})
    models["model"] = replace(models["model"], description={"data": {"train": list(seen), "valid": []}})
    dataset_folder = folder / "songs"
    for name in NAMES:
        for stem in ("vocals", "accompaniment"):
            path = dataset_folder / "test" / name / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    dataset = open_dataset(dataset_folder, "folder")
    return Target(subjects, models, dataset, "test", tuple(dataset.split("test")))


def some_songs() -> list[SongScores]:
    frames = ([5.0, 6.0, 7.0], [1.0, NAN, 2.0], [NAN, NAN, NAN], [-3.0, INF], [0.0])
    return [made_up(name, values) for name, values in zip(NAMES, frames, strict=True)]


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


# Medians 6, 1.5, 0 and -3, then the song without any.
BEST_FIRST = [NAMES[0], NAMES[1], NAMES[4], NAMES[3], NAMES[2]]


def songs_of(medians: Sequence[float], others: dict[str, float] | None = None) -> list[SongScores]:
    """One song of one frame per figure."""
    return [made_up(f"song {number}", [value], others=others) for number, value in enumerate(medians)]
