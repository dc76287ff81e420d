"""Floor and ceilings of both presets on a dataset's test songs: what a mask can reach at best.

`python -m benchmarks.ceilings [--dataset PATH]`; without a dataset (or `MUSDB_PATH`) on eight demo songs.
Its figures are SDR in dB: median over songs of the songs' medians over 1-s frames.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.demo.dataset import make_demo
from vocsep.evaluation.oracles import IDEAL_MASKS, ideal_estimates
from vocsep.evaluation.scores import SOURCES
from vocsep.metrics.bsseval import frame_sdr
from vocsep.progress import progress_bar
from vocsep.spectrograms.config import load_spectrogram_config, preset_names


def song_medians(references: dict[str, Waveform], estimates: dict[str, Waveform], sample_rate: int) -> list[float]:
    """Median SDR of the song's counted frames, vocals and accompaniment."""
    true, estimated = (np.stack([stems[source] for source in SOURCES]) for stems in (references, estimates))
    frames = frame_sdr(true, estimated, window=sample_rate, hop=sample_rate)
    return [float(np.median(row[~np.isnan(row)])) if not np.isnan(row).all() else float("nan") for row in frames]


def measure(root: Path) -> dict[str, float]:
    """Median over songs for every preset, mask and source."""
    songs = open_dataset(root).split("test")
    scores: dict[str, list[list[float]]] = {}
    with progress_bar(len(songs), "ceilings", "songs") as bar:
        for song in songs:
            sources, sample_rate = read_sources(song, ("mixture", *SOURCES))
            mixture = sources.pop("mixture")
            floor = song_medians(sources, dict.fromkeys(SOURCES, mixture), sample_rate)
            scores.setdefault("mixture", []).append(floor)
            for preset in preset_names():
                config = load_spectrogram_config(preset)
                for name, (power, full_band) in IDEAL_MASKS.items():
                    estimates = ideal_estimates(mixture, sources, sample_rate, config, power=power, full_band=full_band)
                    medians = song_medians(sources, estimates, sample_rate)
                    scores.setdefault(f"{preset}_{name}", []).append(medians)
            bar.update(1)
    return {
        f"{name}_{source}_db": float(np.nanmedian([song[index] for song in songs]))
        for name, songs in scores.items()
        for index, source in enumerate(SOURCES)
    }


def main() -> None:
    """Measure, print a table for people and a last line for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, default=os.environ.get("MUSDB_PATH"))
    root = parser.parse_args().dataset
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            root = Path(folder) / "demo"
            make_demo(root, train_songs=0, test_songs=8)
        values = measure(Path(root))
    table = Table("row", *SOURCES, title=f"SDR in dB, test songs of {root}", box=box.SIMPLE)
    for name in dict.fromkeys(key.rsplit("_", 2)[0] for key in values):
        table.add_row(name, *(f"{values[f'{name}_{source}_db']:.2f}" for source in SOURCES))
    Console().print(table)
    print(json.dumps({"name": "ceilings", "values": values, "ratios": {}}))


if __name__ == "__main__":
    main()
