"""Networks side by side: the same songs, the same patches, the same CPU time.

    python -m benchmarks.learning [--dataset PATH] [--store STORE] [--networks NAME ...] [--minutes 8] [--seeds 1]

The dataset is that of MUSDB_PATH by default; without either, demo songs are made and used.

Networks are `tfc-tdf` and `unet` with the defaults of `vocsep train`, and `open-unmix`: the network of Stöter, Uhlich,
Liutkus and Mitsufuji 2019 ("Open-Unmix - A Reference Implementation for Music Source Separation") as published (three
bidirectional LSTM layers of 512, MSE, Adam 1e-3, weight decay 1e-5), written anew here, on vocsep's patches. Minutes
are those of the process's CPU time; validations are not counted.

The curve is SDR of the store's validation songs; the last figures are those of the dataset's test songs, at the store's
sample rate: median (mean) over songs of the songs' medians over 1-s frames.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from storage.store import SpectrogramStore
from vocsep.audio.resampling import resample
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.demo.dataset import make_demo
from vocsep.models.architecture import UNetArchitecture
from vocsep.models.mask_module import InputScaling, MaskModule
from vocsep.models.masks import predict_mask
from vocsep.models.precision import pick_precision
from vocsep.models.registry import open_registry
from vocsep.models.torch_network import TorchNetwork
from vocsep.patches.batch import Batch
from vocsep.patches.pool import SongPool
from vocsep.patches.tiers import open_tier
from vocsep.preprocessing.config import spectrogram_config
from vocsep.preprocessing.step import PreprocessConfig, preprocess
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import features
from vocsep.spectrograms.masking import apply_mask
from vocsep.training.batches import StepBatches, patch_sampler
from vocsep.training.config import TrainConfig
from vocsep.training.ema import AveragedNetwork
from vocsep.training.group import Group
from vocsep.training.initial_network import initial_network
from vocsep.training.loss import batch_loss
from vocsep.training.optimizer import new_optimizer
from vocsep.training.parts import BatchParts
from vocsep.training.schedule import Schedule
from vocsep.training.validation import median_frame_sdr, validate

NETWORKS = ("tfc-tdf", "unet", "open-unmix")
SOURCES = ("mixture", "vocals", "accompaniment")
HIDDEN = 512


class OpenUnmix(MaskModule):
    """Linear, batch norm, tanh; three bidirectional LSTM layers; two linear layers back; the input scaled per bin."""

    frame_stride = bin_stride = 1

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__(UNetArchitecture.model_validate({"channels": channels}))
        self.scaling = InputScaling(bins)
        size = channels * bins
        self.narrow = nn.Linear(size, HIDDEN, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in (HIDDEN, HIDDEN, size))
        self.recurrent = nn.LSTM(HIDDEN, HIDDEN // 2, 3, bidirectional=True, dropout=0.4, batch_first=True)
        self.back = nn.Linear(2 * HIDDEN, HIDDEN, bias=False)
        self.wide = nn.Linear(HIDDEN, size, bias=False)
        self.output_mean, self.output_scale = nn.Parameter(torch.ones(bins)), nn.Parameter(torch.ones(bins))

    def scaled(self, mixture: Tensor) -> Tensor:
        """(x - mean) * scale: without the root."""
        assert self.scaling is not None
        return (mixture - self.scaling.mean) * self.scaling.scale

    def layers(self, hidden: Tensor) -> Tensor:
        """See `MaskModule.layers`; the last layer's numbers are the mask itself."""
        batch, channels, frames, bins = hidden.shape

        def normed(index: int, values: Tensor) -> Tensor:
            normal: Tensor = self.norms[index](values.flatten(end_dim=1)).view(batch, frames, -1)
            return normal

        rows = hidden.transpose(1, 2).reshape(batch, frames, channels * bins)
        first = torch.tanh(normed(0, self.narrow(rows)))
        recurrent, _ = self.recurrent(first)
        found = normed(2, self.wide(torch.relu(normed(1, self.back(torch.cat([first, recurrent], dim=-1))))))
        spread = found.view(batch, frames, channels, bins).transpose(1, 2)
        return torch.relu(spread * self.output_scale + self.output_mean)

    def forward(self, magnitudes: Tensor) -> Tensor:
        """See `MaskModule.forward`."""
        return self.last_layer(magnitudes)


Step = Callable[[Batch, int, float], None]


def prepared(name: str, config: TrainConfig, store: SpectrogramStore) -> tuple[MaskModule, AveragedNetwork, Step]:
    """A new network, the one that is scored, and what one step does, given the used share of the time."""
    pool, threads = SongPool(store), torch.get_num_threads()
    torch.manual_seed(config.seed)
    if name == "open-unmix":
        umx = OpenUnmix(config.channels, spectrogram_config(store).bins)
        measured = [np.array(store.array(track, "mixture"), np.float32) for track in store.tracks("train")]
        values = torch.from_numpy(np.concatenate([one.reshape(-1, one.shape[-1]) for one in measured]))
        assert umx.scaling is not None
        with torch.no_grad():
            umx.scaling.mean.copy_(values.mean(dim=0))
            deviation = values.std(dim=0)
            umx.scaling.scale.copy_(1 / deviation.clamp(min=1e-4 * float(deviation.max())))
        adam = torch.optim.Adam(umx.parameters(), lr=1e-3, weight_decay=1e-5)

        def plain(batch: Batch, step: int, used: float) -> None:
            adam.zero_grad()
            (umx(batch.mixture) * batch.mixture - batch.vocals).square().mean().backward()
            adam.step()

        return umx, AveragedNetwork(umx, 0), plain
    network = initial_network(config, store, open_registry(Path("models")), pool, patch_sampler(config, pool))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    group = Group(torch.device("cpu"), pick_precision("cpu", config.precision))
    average, optimizer = AveragedNetwork(network, config.ema), new_optimizer(config, network, group.device)
    schedule = Schedule(config.schedule, config.warmup)
    parts = BatchParts(group, network, partial(batch_loss, config.objective), config.batch_size, threads)

    def scheduled(batch: Batch, step: int, used: float) -> None:
        for parameters in optimizer.param_groups:
            parameters["lr"] = config.learning_rate * schedule.factor(used)
        parts.backward(batch, step)
        optimizer.step()
        average.update(step + 1)

    return network, average, scheduled


def learn(
    name: str, config: TrainConfig, store: SpectrogramStore, minutes: float, validations: int
) -> tuple[list[tuple[float, int, float]], MaskModule]:
    """The curve, (CPU minutes, steps, validation SDR in dB), and the network at its end."""
    pool = SongPool(store)
    tier, _ = open_tier(pool, SOURCES, config.channels, torch.device("cpu"), "host")
    batches = StepBatches(tier, patch_sampler(config, pool), config, rank=0, processes=1).from_step(0)
    network, average, take = prepared(name, config, store)
    threads = torch.get_num_threads()
    curve: list[tuple[float, int, float]] = []
    used, step = 0.0, 0
    while used < minutes:
        network.train()
        begun = time.process_time()
        take(next(batches), step, used / minutes)
        step += 1
        used += (time.process_time() - begun) / 60
        if used >= minutes * (len(curve) + 1) / validations:
            average.network.eval()
            scored = validate(store, average.network, threads=threads).sdr_db  # type: ignore[arg-type]
            curve.append((round(used, 2), step, round(scored, 2)))
            print(f"{name}: {used:.1f} minutes, step {step}, {scored:.2f} dB", flush=True)
    return curve, average.network  # type: ignore[return-value]


def test_scores(network: MaskModule, dataset: Path, config: SpectrogramConfig) -> dict[str, float]:
    """Vocals and accompaniment of the test songs, in dB."""
    medians: dict[str, list[float]] = {"vocals": [], "accompaniment": []}
    for song in open_dataset(dataset).split("test"):
        sources, rate = read_sources(song, SOURCES)
        at_rate = {name: resample(waveform, rate, config.sample_rate) for name, waveform in sources.items()}
        mixture = at_rate["mixture"]
        magnitudes = np.abs(features(mixture, config.sample_rate, config)).astype(np.float32)
        mask = predict_mask(TorchNetwork(network), magnitudes)
        vocals = apply_mask(mixture, config.sample_rate, mask, config)
        for name, estimate in (("vocals", vocals), ("accompaniment", mixture - vocals)):
            medians[name].append(median_frame_sdr(at_rate[name], estimate, config.sample_rate))
    kinds: dict[str, Callable[..., float]] = {"median": np.nanmedian, "mean": np.nanmean}
    return {f"{name}_{kind}": float(of(found)) for name, found in medians.items() for kind, of in kinds.items()}


def main() -> None:
    """Measure, print a table for people and a last line for programs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--dataset", type=Path, default=os.environ.get("MUSDB_PATH"), help="its test songs are scored")
    parser.add_argument("--store", type=Path, help="store of its training songs; default: one is made")
    parser.add_argument("--minutes", type=float, default=8, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--validations", type=int, default=4)
    options = parser.parse_args()
    if options.dataset is None and options.store is not None:
        parser.error("--store needs --dataset")
    with tempfile.TemporaryDirectory() as folder:
        dataset, store = options.dataset or Path(folder) / "demo", options.store or Path(folder) / "store.zarr"
        if options.dataset is None:
            make_demo(dataset)
        if options.store is None:
            preprocess(PreprocessConfig(dataset=dataset, store=store))
        measure(options, dataset, SpectrogramStore.open(store))


def measure(options: argparse.Namespace, dataset: Path, store: SpectrogramStore) -> None:
    """Train and score one network after the other."""
    table = Table("network", "seed", "steps", *SOURCES[1:], "curve (minutes: dB)", box=box.SIMPLE)
    values: dict[str, float] = {}
    curves: dict[str, list[tuple[float, int, float]]] = {}
    for name in options.networks:
        known = {} if name == "open-unmix" else {"network": name}
        for seed in range(options.seeds):
            config = TrainConfig.model_validate(known | {"seed": seed})
            curve, network = learn(name, config, store, options.minutes, options.validations)
            found = test_scores(network, dataset, spectrogram_config(store))
            row = f"{name}_seed{seed}"
            curves[row] = curve
            values |= {f"{row}_{key}_db": value for key, value in found.items()}
            medians = [f"{found[f'{one}_median']:.2f} ({found[f'{one}_mean']:.2f})" for one in SOURCES[1:]]
            table.add_row(name, str(seed), str(curve[-1][1]), *medians, ", ".join(f"{m:.0f}: {d}" for m, _, d in curve))
    Console(width=140).print(table)
    print(json.dumps({"name": "learning", "values": values, "curves": curves, "ratios": {}}))


if __name__ == "__main__":
    main()
