"""Training fed from a store, compared with the same training on one resident batch, and with the usual way.

    python -m benchmarks.training [--store STORE] [--steps 20] [--repeats 5] [--channels 1] [--batch-size 16]

The steps are those of a run: loss, backward, clipping, guard and optimizer, patches with the default augmentation.
Validation, averaging and logging are left out, so that data weighs more than in a run. `compute` trains on one batch
over and over; each tier feeds through `StepBatches`; `dataloader` is what is usual: worker processes that slice zarr
arrays item by item and mix in numpy, without any other augmentation. All take turns; rates are medians over the
repeats, ratios are medians of the ratios within one repeat. Without a store, demo songs are used.

On a GPU there is also the device tier, the GPU's utilisation (by nvidia-smi), and what channels_last, bfloat16,
torch.compile and CUDA graphs, one on top of the other, give to `compute`.
"""

import argparse
import contextlib
import copy
import itertools
import json
import math
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr
from torch.utils.data import DataLoader, Dataset

from storage.manifest import SPECTROGRAMS
from storage.store import SpectrogramStore
from vocsep.datasets.layouts import open_dataset
from vocsep.demo.dataset import make_demo
from vocsep.models.mask_module import MaskModule
from vocsep.models.networks import build_network
from vocsep.models.precision import pick_precision
from vocsep.models.torch_network import pick_device
from vocsep.patches.batch import Batch
from vocsep.patches.pool import SongPool
from vocsep.patches.tiers import TierName, open_tier
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.plan import plan
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import open_store
from vocsep.spectrograms.config import PATCH_FRAMES, load_spectrogram_config
from vocsep.training.batches import StepBatches, patch_sampler
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_architecture
from vocsep.training.group import Group
from vocsep.training.loss import batch_loss
from vocsep.training.optimizer import new_optimizer
from vocsep.training.parts import BatchParts

WARM_UP = 6  # more than the batches whose memory is taken turn by turn
STEPS = {"cpu": 20, "cuda": 300}
WORKERS = 2
MEANS = ("float32", "channels_last", "bf16", "compiled", "cuda_graphs")  # each with those before it

Feed = Callable[[], Iterable[Any]]
Arrays = npt.NDArray[np.float32]


def main() -> None:
    """Measure, print the table and the JSON line."""
    usual = TrainConfig()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.split("\n")[0])
    parser.add_argument("--store", type=Path, help="store with training songs")
    parser.add_argument("--steps", type=int, help="of every turn, warm-up not counted (CPU 20, GPU 300)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--channels", type=int, choices=(1, 2), default=usual.channels)
    parser.add_argument("--batch-size", type=int, default=usual.batch_size)
    parser.add_argument("--width", type=int, default=usual.width)
    options = parser.parse_args()
    config = TrainConfig(channels=options.channels, batch_size=options.batch_size, width=options.width)
    device = pick_device(config.device)
    steps = options.steps or STEPS.get(device.type, STEPS["cpu"])
    with tempfile.TemporaryDirectory() as folder:
        store = SpectrogramStore.open(options.store) if options.store else demo_store(Path(folder))
        measure(store, config, device, steps, options.repeats)


def demo_store(folder: Path) -> SpectrogramStore:
    """A store of a few demo songs."""
    make_demo(folder / "demo", train_songs=4, test_songs=1)
    dataset, config = open_dataset(folder / "demo"), StoreConfig(spectrogram=load_spectrogram_config("fine"))
    store = open_store(folder / "demo.zarr", dataset, config)
    for song in plan(store, dataset).pending:
        store.add(preprocess_song(song, store.path, config))
    store.save()
    return store


def measure(store: SpectrogramStore, config: TrainConfig, device: torch.device, steps: int, repeats: int) -> None:
    """Let all feeds take turns."""
    torch.manual_seed(config.seed)
    network = build_network(describe_architecture(config, store), config.dropout)
    tiers = open_tiers(store, config, device)
    resident = next(next(iter(tiers.values())).from_step(0))
    feeds: dict[str, Feed] = {"compute": partial(itertools.repeat, resident)}
    feeds |= {name: partial(batches.from_step, 0) for name, batches in tiers.items()}
    items = ZarrItems(store, config, (WARM_UP + steps + 2) * config.batch_size)
    feeds["dataloader"] = partial(
        DataLoader,
        items,
        config.batch_size,
        num_workers=WORKERS,
        multiprocessing_context="spawn",
        collate_fn=items.collate,
    )
    clocks: dict[str, list[Clock]] = {name: [] for name in feeds}
    utilisation: dict[str, list[float]] = {name: [] for name in feeds}
    for number in range(repeats):
        names = list(feeds)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            clock = Clock(steps, tiers.get(name))
            with sampled_utilisation(device, utilisation[name]):
                train(config, network, device, feeds[name](), clock)
            clocks[name].append(clock)
    rates = {name: [config.batch_size / clock.seconds_per_step for clock in found] for name, found in clocks.items()}
    values = {f"{name}_patches_per_second": statistics.median(found) for name, found in rates.items()}
    values |= {f"{name}_wait_share": statistics.median(c.wait_share for c in clocks[name]) for name in tiers}
    values |= {f"{name}_gpu_utilisation": statistics.mean(found) for name, found in utilisation.items() if found}
    if device.type == "cuda":
        values |= {
            f"{name}_patches_per_second": config.batch_size / seconds
            for name, seconds in compare_means(network, config, resident, steps).items()
        }
    report(
        values, rates, tuple(tiers), f"{device.type}, {torch.get_num_threads()} threads, batches of {config.batch_size}"
    )


def open_tiers(store: SpectrogramStore, config: TrainConfig, device: torch.device) -> dict[str, StepBatches]:
    """The same patches from every tier, the fastest first."""
    sampler = patch_sampler(config, SongPool(store))
    names: tuple[TierName, ...] = ("device", "host", "stream") if device.type == "cuda" else ("host", "stream")
    tiers = {name: open_tier(SongPool(store), SPECTROGRAMS, config.channels, device, name)[0] for name in names}
    return {name: StepBatches(tier, sampler, config, rank=0, processes=1) for name, tier in tiers.items()}


class Clock:
    """Seconds per step, and the share of them that were spent waiting for data, from the end of the warm-up on."""

    def __init__(self, steps: int, batches: StepBatches | None) -> None:
        self.steps = steps
        self.batches = batches
        self.seconds_per_step = math.nan
        self.wait_share = math.nan
        self._begun = (0.0, 0.0)

    def _now(self) -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), self.batches.seconds_waited if self.batches else 0.0

    def look(self, step: int) -> None:
        """Look at the clock: between two batches' starts are one step and the making of one batch."""
        if step == WARM_UP:
            self._begun = self._now()
        elif step == WARM_UP + self.steps:
            seconds, waited = (now - then for now, then in zip(self._now(), self._begun, strict=True))
            self.seconds_per_step, self.wait_share = seconds / self.steps, waited / seconds


def train(config: TrainConfig, network: MaskModule, device: torch.device, batches: Iterable[Any], clock: Clock) -> None:
    """The steps of a run, without what a run does between them."""
    group = Group(device, pick_precision(device.type, config.precision))
    network.to(group.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = new_optimizer(config, network, device)
    loss_of, threads = partial(batch_loss, config.objective), torch.get_num_threads()
    parts = BatchParts(group, network, loss_of, config.batch_size, threads)
    for step, batch in enumerate(batches):
        clock.look(step)
        if step == WARM_UP + clock.steps:
            break
        loss = parts.backward(group.on_device(batch), step)
        norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), math.inf))
        assert math.isfinite(loss + norm)
        optimizer.step()
    parts.close()


class ZarrItems(Dataset[tuple[Arrays, ...]]):
    """Patches one by one, each sliced from zarr arrays and mixed in numpy: mixture, vocals and accompaniment."""

    def __init__(self, store: SpectrogramStore, config: TrainConfig, length: int) -> None:
        self._path = store.path
        self._tracks = [(f"{track.split}/{track.id}", track.frames, track.channels) for track in store.tracks("train")]
        self._config = config
        self._length = length
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Arrays, ...]:
        random = np.random.default_rng((self._config.seed, index))
        place = self._draw(random)
        vocals = self._slice("vocals", *place)
        if random.random() >= self._config.augmentation.remix:
            return self._slice("mixture", *place), vocals, self._slice("accompaniment", *place)
        accompaniment = self._slice("accompaniment", *self._draw(random))
        cosine = np.cos(random.uniform(0, 2 * np.pi, vocals.shape[1:]).astype(np.float32))
        power = vocals**2 + accompaniment**2 + 2 * vocals * accompaniment * cosine
        return np.sqrt(np.maximum(power, 0)), vocals, accompaniment

    def collate(self, items: list[tuple[Arrays, ...]]) -> Batch:
        """A batch."""
        mixture, vocals, accompaniment = (torch.from_numpy(np.stack(patches)) for patches in zip(*items, strict=True))
        return Batch(mixture, vocals, accompaniment if self._config.compares_accompaniment else None)

    def _draw(self, random: np.random.Generator) -> tuple[str, int, int]:
        frames = np.array([track[1] for track in self._tracks])
        name, length, channels = self._tracks[random.choice(len(frames), p=frames / frames.sum())]
        return name, int(random.integers(channels)), int(random.integers(max(1, length - PATCH_FRAMES + 1)))

    def _slice(self, source: str, track: str, channel: int, start: int) -> Arrays:
        name = f"{track}/{source}"
        if name not in self._arrays:
            array = zarr.open_array(self._path / name, mode="r")
            self._arrays[name] = array
        channels = slice(channel, channel + 1) if self._config.channels == 1 else slice(None)
        patch = np.asarray(self._arrays[name][channels, start : start + PATCH_FRAMES], dtype=np.float32)
        padded = np.pad(patch, ((0, 0), (0, PATCH_FRAMES - patch.shape[1]), (0, 0)))
        return np.broadcast_to(padded, (self._config.channels, *padded.shape[1:]))


@contextlib.contextmanager
def sampled_utilisation(device: torch.device, found: list[float]) -> Iterator[None]:
    """Add the GPU's utilisation, in per cent, every tenth of a second; nothing without nvidia-smi."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            found += [float(line) for line in process.communicate()[0].split()]


def compare_means(network: MaskModule, config: TrainConfig, batch: Batch, steps: int) -> dict[str, float]:
    """Seconds per step on one batch, each of the means in use together with those before it."""
    found = {}
    for number, name in enumerate(MEANS):
        used = MEANS[: number + 1]
        layout = torch.channels_last if "channels_last" in used else torch.contiguous_format
        trained: Any = copy.deepcopy(network).to(memory_format=layout)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(trained.parameters(), fused=True)
        if "compiled" in used:
            trained = torch.compile(trained, mode="reduce-overhead" if "cuda_graphs" in used else "default")
        mixture = batch.mixture.contiguous(memory_format=layout)
        for step in range(2 * WARM_UP + steps):
            if step == 2 * WARM_UP:
                found[name] = -synchronised_time()
            optimizer.zero_grad()
            with torch.autocast(mixture.device.type, torch.bfloat16, enabled="bf16" in used):
                masks = trained(mixture)
            loss = (masks[:, : config.channels].float() * mixture - batch.vocals).abs().mean()
            loss.backward()
            optimizer.step()
        found[name] = (found[name] + synchronised_time()) / steps
    return found


def synchronised_time() -> float:
    """The clock's time in seconds when the GPU, if there is one, has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def report(values: dict[str, float], rates: dict[str, list[float]], tiers: tuple[str, ...], where: str) -> None:
    """Print the table, then the JSON line."""

    def ratio(first: str, second: str) -> float:
        return statistics.median(one / other for one, other in zip(rates[first], rates[second], strict=True))

    print(f"training on {where}; medians of {len(rates['compute'])} turns")
    print(f"{'fed by':<14}{'patches/s':>11}{'/ compute':>11}{'waiting':>9}{'GPU busy':>10}")
    for name in rates:
        values[f"{name}_to_compute"] = ratio(name, "compute")
        row = f"{name:<14}{values[f'{name}_patches_per_second']:>11.1f}{values[f'{name}_to_compute']:>11.3f}"
        row += f"{values[f'{name}_wait_share']:>9.1%}" if name in tiers else f"{'-':>9}"
        busy = values.get(f"{name}_gpu_utilisation")
        print(row + ("" if busy is None else f"{busy:>9.0f}%"))
    for name in MEANS:
        if f"{name}_patches_per_second" in values:
            print(f"{'+ ' + name:<14}{values[f'{name}_patches_per_second']:>11.1f}")
    ratios = {"to_compute_only": ratio(tiers[0], "compute"), "over_dataloader": ratio(tiers[0], "dataloader")}
    print(json.dumps({"name": "training", "values": values, "ratios": ratios}))


if __name__ == "__main__":
    main()
