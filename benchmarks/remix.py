"""How near a remix of magnitudes is to the true mix of two recordings.

    python -m benchmarks.remix [--dataset MUSDB18] [--songs 20] [--preset fine]

A store holds magnitudes, so that vocals V and accompaniment A of different songs have to be mixed without phases. The
magnitude of the true, complex sum |V + A| is compared with `random_phase`, which is what training does:
sqrt(V^2 + A^2 + 2 V A cos(phi)), phi drawn at random; with the naive `sum`, V + A; and with `power`,
sqrt(V^2 + A^2). `turned` is another true mix: all phases of the accompaniment turned by a quarter, which cannot be
heard. Vocals meet the accompaniment of the next song, and their own.

Of all bins within 60 dB of a pair's loudest: the mean absolute difference as a share of the mean true magnitude, and
the median and mean absolute difference in dB; the difference in level; and the largest distance of the two cumulative
distributions (Kolmogorov-Smirnov), of the magnitudes and of their ratio to sqrt(V^2 + A^2). The last three show whether
a mix looks like a true one to a network that never compares the two. Without a dataset, demo songs are used.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import ks_2samp

from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.demo.dataset import make_demo
from vocsep.patches.maker import remix_magnitudes
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config, preset_names
from vocsep.spectrograms.features import features

METHODS = ("random_phase", "turned", "sum", "power")
MEASURES = ("relative_l1", "median_db", "mean_db", "level_db", "ks", "ks_ratio")
RANGE_DB = 60
COMPARED = 1_000_000  # values per pair of distributions

Complex = npt.NDArray[np.complexfloating[Any, Any]]
Floats = npt.NDArray[np.float32]


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remix", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, default=os.environ.get("MUSDB_PATH"))
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--preset", choices=preset_names(), default="fine")
    options = parser.parse_args()
    config = load_spectrogram_config(options.preset)
    with tempfile.TemporaryDirectory() as folder:
        root = options.dataset
        if root is None:
            root = Path(folder) / "demo"
            make_demo(root, train_songs=min(8, options.songs), test_songs=1)
        songs = open_dataset(Path(root)).split("train")[: options.songs]
        found = {kind: measure(pairs(songs, config, kind)) for kind in ("other_song", "same_song")}
    print(f"{len(songs)} pairs of {root}, preset {options.preset}; difference from the true mix")
    print(f"{'':<28}" + "".join(f"{name:>13}" for name in MEASURES))
    for kind, methods in found.items():
        for method, values in methods.items():
            print(f"{kind + ' ' + method:<28}" + "".join(f"{values[name]:>13.3f}" for name in MEASURES))
    flat = {
        f"{kind}_{method}_{name}": value
        for kind, methods in found.items()
        for method, values in methods.items()
        for name, value in values.items()
    }
    print(json.dumps({"name": "remix", "values": flat, "ratios": {}}))


def pairs(songs: list[Song], config: SpectrogramConfig, kind: str) -> Iterator[tuple[Complex, Complex]]:
    """Complex spectrograms of vocals and of accompaniment, `(channels, frames, bins)` each."""
    before: Complex | None = None
    for song in [songs[-1], *songs]:
        sources, sample_rate = read_sources(song, ("vocals", "accompaniment"))
        vocals, accompaniment = (features(sources[name], sample_rate, config) for name in ("vocals", "accompaniment"))
        if before is not None:
            other = before if kind == "other_song" else accompaniment
            frames = min(vocals.shape[1], other.shape[1])
            yield vocals[:, :frames], other[:, :frames]
        before = accompaniment


def measure(spectra: Iterator[tuple[Complex, Complex]]) -> dict[str, dict[str, float]]:
    """Every method's differences, over the bins of all pairs."""
    random = np.random.default_rng(0)
    kept: dict[str, list[Floats]] = {name: [] for name in ("true", *METHODS)}
    for vocals, accompaniment in spectra:
        power = np.hypot(np.abs(vocals), np.abs(accompaniment))
        loud = power > power.max() * 10 ** (-RANGE_DB / 20)
        mixes = {
            "true": np.abs(vocals + accompaniment),
            "random_phase": random_phase_mix(np.abs(vocals), np.abs(accompaniment), random),
            "turned": np.abs(vocals + 1j * accompaniment),
            "sum": np.abs(vocals) + np.abs(accompaniment),
            "power": power,
        }
        for name, mix in mixes.items():
            kept[name].append(mix[loud])
    mixed = {name: np.concatenate(parts) for name, parts in kept.items()}
    some = random.permutation(len(mixed["true"]))[:COMPARED]
    return {name: differences(mixed[name], mixed["true"], mixed["power"], some) for name in METHODS}


def random_phase_mix(vocals: Floats, accompaniment: Floats, random: np.random.Generator) -> Floats:
    """What training makes of two magnitudes; the phases are common to the channels."""
    cosines = np.cos(random.uniform(0, 2 * np.pi, (1, *vocals.shape[1:]))).astype(np.float32)
    mix: Floats = remix_magnitudes(*(torch.from_numpy(part) for part in (vocals, accompaniment, cosines))).numpy()
    return mix


def differences(mix: Floats, true: Floats, power: Floats, some: npt.NDArray[np.int64]) -> dict[str, float]:
    """Of a mix from the true one; distributions are compared at `some` of the values."""
    decibels = np.abs(20 * np.log10(np.maximum(mix, 1e-12) / np.maximum(true, 1e-12)))
    return {
        "relative_l1": float(np.abs(mix - true).mean() / true.mean()),
        "median_db": float(np.median(decibels)),
        "mean_db": float(decibels.mean()),
        "level_db": float(10 * np.log10(np.square(mix).mean() / np.square(true).mean())),
        "ks": float(ks_2samp(mix[some], true[some], method="asymp").statistic),
        "ks_ratio": float(ks_2samp((mix / power)[some], (true / power)[some], method="asymp").statistic),
    }


if __name__ == "__main__":
    main()
