"""What each choice of `vocsep separate` gives in SDR and costs in time, on songs with known stems.

    python -m benchmarks.separation_choices --dataset MUSDB18 [--model champion --models data/models] [--songs 25]

All test songs of a dataset are separated with one model in every way: the mask of the whole song, overlapping patches,
the multichannel Wiener filter, and the network in bfloat16. A figure is the median over songs of the median over 1-s
frames of SDR in dB, which equals museval's; also the mean over songs, and seconds per minute of music on all cores,
files not read or written.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.metrics.bsseval import frame_sdr
from vocsep.models.registry import open_registry
from vocsep.models.torch_network import TorchNetwork, folded, load_network
from vocsep.paths import MODELS as DEFAULT_MODELS
from vocsep.progress import progress_bar
from vocsep.separation.separator import Separator

STEMS = ("vocals", "accompaniment")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.separation_choices", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, default=os.environ.get("MUSDB_PATH"), help="songs with known stems")
    parser.add_argument("--model", default="champion", help="model of the registry")
    parser.add_argument("--models", type=Path, default=DEFAULT_MODELS, help="model registry")
    parser.add_argument("--songs", type=int, help="how many test songs (default: all)")
    arguments = parser.parse_args()
    if arguments.dataset is None:
        raise SystemExit("--dataset is missing: a folder of songs with known stems, or set MUSDB_PATH")
    plain = Separator.load(arguments.model, arguments.models, device="cpu", precision="32")
    network = load_network(open_registry(arguments.models).open(arguments.model))
    choices = {
        "whole_song": plain,
        "overlap_0.25": replace(plain, overlap=0.25),
        "overlap_0.5": replace(plain, overlap=0.5),
        "overlap_0.75": replace(plain, overlap=0.75),
        "wiener": replace(plain, wiener=True),
        "overlap_0.5_wiener": replace(plain, overlap=0.5, wiener=True),
        "bfloat16": replace(plain, network=TorchNetwork(folded(network), "bfloat16")),
    }
    songs = open_dataset(Path(arguments.dataset)).split("test")[: arguments.songs]
    scores: dict[str, dict[str, list[float]]] = {name: {stem: [] for stem in STEMS} for name in choices}
    seconds = dict.fromkeys(choices, 0.0)
    length = 0.0
    with progress_bar(len(songs), "separate", "songs") as bar:
        for song in songs:
            sources, sample_rate = read_sources(song, ("mixture", *STEMS))
            length += sources["mixture"].shape[1] / sample_rate
            for name, separator in choices.items():
                start = time.perf_counter()
                estimates = separator.separate(sources["mixture"], sample_rate)
                seconds[name] += time.perf_counter() - start
                for stem in STEMS:
                    scores[name][stem].append(median_sdr(sources[stem], estimates[stem], sample_rate))
            bar.update(1)
    report(scores, {name: value / (length / 60) for name, value in seconds.items()})


def median_sdr(reference: Waveform, estimate: Waveform, sample_rate: int) -> float:
    """Median over 1-s frames in dB; frames in which the source is silent do not count."""
    return float(np.nanmedian(frame_sdr(reference[None], estimate[None], window=sample_rate, hop=sample_rate)))


def report(scores: dict[str, dict[str, list[float]]], seconds: dict[str, float]) -> None:
    """Print the table, then the JSON line."""
    values: dict[str, float] = {}
    print(f"{'':<20}{'vocals dB':>11}{'(mean)':>9}{'accomp. dB':>12}{'(mean)':>9}{'s per minute':>14}")
    for name, stems in scores.items():
        figures = [
            pick([value for value in stems[stem] if np.isfinite(value)])
            for stem in STEMS
            for pick in (statistics.median, statistics.fmean)
        ]
        print(
            f"{name:<20}{figures[0]:>11.2f}{figures[1]:>9.2f}{figures[2]:>12.2f}{figures[3]:>9.2f}{seconds[name]:>14.2f}"
        )
        values |= {f"{name}_vocals_db": figures[0], f"{name}_accompaniment_db": figures[2]}
        values[f"{name}_seconds_per_minute"] = seconds[name]
    ratios = {f"{name}_time": value / seconds["whole_song"] for name, value in seconds.items() if name != "whole_song"}
    print(json.dumps({"name": "separation_choices", "values": values, "ratios": ratios}))


if __name__ == "__main__":
    main()
