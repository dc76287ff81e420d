"""Every step while other programs are busy: how much of its fair share of the cores it uses.

    python -m benchmarks.neighbours [--seconds 10] [--settle 20] [--rounds 1]

Steps of the default network on one resident batch, by `BatchParts` as in a run (`parts`), and as plain PyTorch does
them, the whole batch at once with OpenMP's threads (`plain`); blocks of a song, by a `Separator` of the bundled model
(`separation`); songs of 10 s scored (`evaluation`) and written to a store (`preprocess`) by processes of one thread, as
many as there are cores. Each is measured from a separate process, while 0, 1, 2 and 4 busy loops run, each of them in a
separate session. `alone` is the rate of `parts` over that of `plain` on idle cores. `beside_b`, `separation_beside_b`
and so on are the rate with b busy loops over the fair share c / (c + b) of the rate alone, of c cores. All take turns;
ratios are medians over the rounds of the ratios within one.

Training first takes `--settle` seconds: where Linux divides the cores among sessions, it moves parts of its work to
other processes when it finds that others take its cores (`vocsep/sessions.py`).
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vocsep.datasets.layouts import open_dataset
from vocsep.demo.dataset import make_demo
from vocsep.mapping import Outcome, pooled
from vocsep.metrics.bsseval import bss_eval
from vocsep.models.architecture import TfcTdfArchitecture, UNetArchitecture
from vocsep.models.networks import build_network
from vocsep.models.precision import pick_precision
from vocsep.patches.batch import Batch
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.track import preprocess_song
from vocsep.separation.separator import Separator
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.training.config import TrainConfig
from vocsep.training.group import Group
from vocsep.training.loss import batch_loss
from vocsep.training.optimizer import new_optimizer
from vocsep.training.parts import BatchParts

BUSY = (0, 1, 2, 4)
WAYS = {
    "parts": "beside",
    "plain": "plain",
    "separation": "separation_beside",
    "evaluation": "evaluation_beside",
    "preprocess": "preprocess_beside",
}
"""What is measured, and how its ratios are called."""
RATE, SONG_SECONDS = 44_100, 10
WARM_UP_SECONDS = 2.0
MOST_SONGS = 10_000


def main() -> None:
    """Measure, print the table and the JSON line; or be one of the measured processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--settle", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--network", choices=("tfc-tdf", "unet"), default=TrainConfig().network)
    parser.add_argument("--measure", choices=tuple(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        if options.measure in ("evaluation", "preprocess"):
            print(songs_rate(options.measure, options.seconds))
        elif options.measure == "separation":
            print(separation_rate(options.seconds))
        else:
            print(rate(options.measure, options.network, options.seconds, options.settle))
        return
    cores = torch.get_num_threads()
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for busy in BUSY:
            for way in WAYS:
                with busy_loops(busy):
                    command = [sys.executable, "-m", "benchmarks.neighbours", "--measure", way]
                    command += ["--seconds", str(options.seconds), "--network", options.network]
                    command += ["--settle", str(options.settle)]
                    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rates.setdefault((way, busy), []).append(float(text.split()[-1]))
    print(f"{options.network}, {cores} cores; steps or songs per second next to {', '.join(map(str, BUSY))} busy loops")
    for way in WAYS:
        print(f"  {way:10}", *(f"{statistics.median(rates[way, busy]):8.3f}" for busy in BUSY))
    ratios = {"alone": _ratio(rates["parts", 0], rates["plain", 0])} | {
        f"{name}_{busy}": _ratio(rates[way, busy], rates[way, 0]) * (cores + busy) / cores
        for way, name in WAYS.items()
        for busy in BUSY[1:]
    }
    print(json.dumps({"name": "neighbours", "values": {}, "ratios": ratios}))


def _ratio(first: list[float], second: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """`count` programs that only compute, as long as this one lives."""
    script = f"while kill -0 {os.getpid()}; do i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; done 2>/dev/null"
    loops = [subprocess.Popen(["sh", "-c", script], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def rate(way: str, network_name: str, seconds: float, settle: float) -> float:
    """Steps per second of the default settings, after some seconds."""
    config = TrainConfig.model_validate({"network": network_name})
    architecture = (
        TfcTdfArchitecture(channels=2, bins=512, scaled_bins=512)
        if network_name == "tfc-tdf"
        else UNetArchitecture(channels=2, scaled_bins=512)
    )
    torch.manual_seed(0)
    group = Group(torch.device("cpu"), pick_precision("cpu", "auto"))
    network = build_network(architecture, config.dropout).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mixture = torch.rand(config.batch_size, 2, 128, 512)
    batch = Batch(mixture, mixture * 0.3, mixture * 0.8)
    loss = partial(batch_loss, config.objective)
    optimizer = new_optimizer(config, network, group.device)
    threads = torch.get_num_threads()
    parts = BatchParts(group, network, loss, config.batch_size, threads)
    if way == "parts":
        torch.set_num_threads(1)

    def step() -> None:
        if way == "parts":
            parts.backward(batch, 0)
        else:
            optimizer.zero_grad()
            with group.autocast():
                whole = loss(network, batch)
            whole.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    started = time.perf_counter()
    while time.perf_counter() - started < (settle if way == "parts" else WARM_UP_SECONDS):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    found = steps / (time.perf_counter() - started)
    parts.close()
    return found


def separation_rate(seconds: float) -> float:
    """Songs of `SONG_SECONDS` that a separator of the default settings takes apart, per second."""
    separator = Separator.load("bundled")
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (2, SONG_SECONDS * RATE)).astype(np.float32)
    separator.separate(waveform, RATE)
    started, songs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        separator.separate(waveform, RATE)
        songs += 1
    return songs / (time.perf_counter() - started)


def songs_rate(way: str, seconds: float) -> float:
    """Songs per second of one process per core, from the first that was done."""
    done: list[float] = []

    def on_outcome(outcome: Outcome[int, None], count: int) -> None:
        assert outcome.error is None, outcome.error
        done.append(time.perf_counter())
        if done[-1] - done[0] >= seconds:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "demo"
        if way == "preprocess":
            make_demo(root, train_songs=1, test_songs=0, seconds=(SONG_SECONDS, SONG_SECONDS))
            (root.parent / "store.zarr" / "train").mkdir(parents=True)
        with contextlib.suppress(_Enough):
            function = score_song if way == "evaluation" else store_song
            pooled()(function, range(MOST_SONGS), (root,), on_outcome=on_outcome)
    return (len(done) - 1) / (done[-1] - done[0])


class _Enough(Exception):
    """Enough songs were done."""


def score_song(number: int, root: Path) -> None:
    """Score estimates of two sources."""
    references, errors = np.random.default_rng(number).normal(0, 0.1, (2, 2, 2, SONG_SECONDS * RATE))
    bss_eval(references, references + errors, window=RATE, hop=RATE)


def store_song(number: int, root: Path) -> None:
    """Write the spectrograms of a song."""
    song = open_dataset(root, "auto").songs[0]
    config = StoreConfig(spectrogram=load_spectrogram_config("fine"))
    preprocess_song(replace(song, id=f"song-{number}"), root.parent / "store.zarr", config)


if __name__ == "__main__":
    main()
