"""Training beside busy programs: how much of its fair share of the cores it makes use of.

    python -m benchmarks.neighbours [--seconds 15] [--rounds 3]

Steps of the default network on one resident batch, by `BatchParts` as in a run (`parts`), and as plain PyTorch does
them, the whole batch at once with OpenMP's threads (`plain`); each in a process of its own, beside 0, 1, 2 and 4 busy
loops, each of them in a session of its own. `alone` is the rate of `parts` over that of `plain` on idle cores.
`beside_b` is the rate beside b loops over the fair share c / (c + b) of the rate alone, of c cores. All take turns;
ratios are medians over the rounds of the ratios within one.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import torch

from vocsep.models.architecture import TfcTdfArchitecture, UNetArchitecture
from vocsep.models.networks import build_network
from vocsep.patches.maker import Batch
from vocsep.training.config import TrainConfig
from vocsep.training.group import Group, pick_precision
from vocsep.training.loop import batch_loss, new_optimizer
from vocsep.training.parts import BatchParts

BUSY = (0, 1, 2, 4)
WARM_UP = 2


def main() -> None:
    """Measure, print the table and the JSON line; or be one of the measured processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", choices=("tfc-tdf", "unet"), default=TrainConfig().network)
    parser.add_argument("--measure", choices=("parts", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(rate(options.measure, options.network, options.seconds))
        return
    cores = torch.get_num_threads()
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for busy in BUSY:
            for way in ("parts", "plain"):
                with busy_loops(busy):
                    command = [sys.executable, "-m", "benchmarks.neighbours", "--measure", way]
                    command += ["--seconds", str(options.seconds), "--network", options.network]
                    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rates.setdefault((way, busy), []).append(float(text.split()[-1]))
    print(f"{options.network}, {cores} cores; steps per second beside {', '.join(map(str, BUSY))} busy loops")
    for way in ("parts", "plain"):
        print(f"  {way:6}", *(f"{statistics.median(rates[way, busy]):8.3f}" for busy in BUSY))
    values = {
        "alone": _ratio(rates["parts", 0], rates["plain", 0]),
        **{
            f"beside_{busy}": _ratio(rates["parts", busy], rates["parts", 0]) * (cores + busy) / cores
            for busy in BUSY[1:]
        },
        **{
            f"plain_{busy}": _ratio(rates["plain", busy], rates["plain", 0]) * (cores + busy) / cores
            for busy in BUSY[1:]
        },
    }
    print(json.dumps({"benchmark": "neighbours", **{name: round(value, 3) for name, value in values.items()}}))


def _ratio(first: list[float], second: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many programs that only compute."""
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def rate(way: str, network_name: str, seconds: float) -> float:
    """Steps per second of the default settings."""
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
    batch = Batch(mixture, mixture * 0.3, None)
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

    for _ in range(WARM_UP):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    found = steps / (time.perf_counter() - started)
    parts.close()
    return found


if __name__ == "__main__":
    main()
