"""Separating a song: all of it compared with the network's forward passes alone, and the engines with each other.

    python -m benchmarks.separation [--song SONG] [--model MODEL --models REGISTRY] [--minutes 4] [--rounds 5]

The song is stereo at 44.1 kHz, of the given length: `--song` (repeated to that length) or a demo song. The model is one
of a registry, or an untrained one of the default size: the time does not depend on its weights.

- `separate_wav` separates a 16-bit wav file into two 32-bit float wav files, as `vocsep separate` does once it has
  started: decoding, resampling, STFT, network, inverse STFT, encoding, on two threads;
- `separate_mp3` does the same with an mp3 file (192 kbit/s), whose decoding alone is `decode_mp3`;
- `forward` has the network see the same blocks on the same threads, and does nothing else;
- `forward_*` are other ways to run it: without batch norms folded into the convolutions, without channels_last, on one
  block at a time with both threads, in bfloat16, and by ONNX Runtime.

Contenders take turns; figures are medians over rounds. Outputs go to a temporary folder, which is deleted.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocsep.arrays import Spectrogram, Waveform
from vocsep.audio.info import AudioInfo
from vocsep.audio.reading import decode, decode_blocks
from vocsep.audio.writing import AudioWriter
from vocsep.cores import usable_cores
from vocsep.demo.dataset import make_demo
from vocsep.models.architecture import TfcTdfArchitecture
from vocsep.models.export import write_onnx
from vocsep.models.mask_module import MaskModule
from vocsep.models.network import MaskNetwork
from vocsep.models.networks import build_network
from vocsep.models.onnx_network import OnnxNetwork
from vocsep.models.registry import open_registry
from vocsep.models.torch_network import TorchNetwork, folded, load_network
from vocsep.separation.files import separate_file
from vocsep.separation.separator import Separator
from vocsep.separation.stream import segments
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config
from vocsep.spectrograms.fft_torch import TorchTransforms

RATE = 44_100
JOBS = 2


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.separation", description=__doc__.split("\n")[0])
    parser.add_argument("--song", type=Path, help="any audio file, stereo, 44.1 kHz")
    parser.add_argument("--model", default="champion", help="model of the registry")
    parser.add_argument("--models", type=Path, help="registry; default: an untrained network of the default size")
    parser.add_argument("--minutes", type=float, default=4.0, help="length of the song")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    arguments = parser.parse_args()
    network, architecture, config = the_model(arguments.models, arguments.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        waveform = the_song(arguments.song, folder, arguments.minutes)
        print(f"{arguments.minutes:g} minutes, stereo, {RATE} Hz; {JOBS} threads on {usable_cores()} cores")
        seconds = measure(network, architecture, config, waveform, folder, arguments.rounds)
    report(seconds, 60 * arguments.minutes)


def the_model(models: Path | None, name: str) -> tuple[MaskModule, dict[str, Any], SpectrogramConfig]:
    """Network in evaluation mode, the description of its architecture, and what it sees."""
    if models is None:
        torch.manual_seed(0)
        architecture = TfcTdfArchitecture(channels=2, bins=512, scaled_bins=512, input="root")
        return build_network(architecture).eval(), architecture.model_dump(mode="json"), load_spectrogram_config("fine")
    model = open_registry(models).open(name)
    config = SpectrogramConfig.model_validate(model.description["spectrogram"])
    return load_network(model), model.description["architecture"], config


def the_song(path: Path | None, folder: Path, minutes: float) -> Waveform:
    """`(2, samples)` of the wanted length."""
    if path is None:
        make_demo(folder / "demo", train_songs=0, test_songs=1)
        path = next((folder / "demo" / "test").iterdir())
    waveform, sample_rate = decode(path)
    if len(waveform) != 2 or sample_rate != RATE:
        raise SystemExit(
            f"--song {path}: {len(waveform)} channels at {sample_rate} Hz; a stereo song at {RATE} Hz is needed"
        )
    samples = round(60 * minutes * RATE)
    return np.tile(waveform, -(-samples // waveform.shape[1]))[:, :samples]


def measure(
    network: MaskModule,
    architecture: dict[str, Any],
    config: SpectrogramConfig,
    waveform: Waveform,
    folder: Path,
    rounds: int,
) -> dict[str, float]:
    """Median wall seconds of every contender."""
    files = {kind: folder / f"song.{kind}" for kind in ("wav", "mp3")}
    like = AudioInfo(files["wav"], RATE, "stereo", ("FL", "FR"))
    with AudioWriter(files["wav"], "wav", like, "16") as wav, AudioWriter(files["mp3"], "mp3", like) as mp3:
        for writer in (wav, mp3):
            writer.write(waveform)
    fast = TorchNetwork(folded(network))
    blocks = [
        segment.magnitudes[None] if network.channels == 2 else segment.magnitudes[:, None]
        for segment in segments([waveform], RATE, config, network.context_frames)
    ]
    onnx = folder / "network.onnx"
    write_onnx(folded(network), config.bins, {"architecture": architecture}, onnx)
    contenders: dict[str, Callable[[], object]] = {
        f"separate_{kind}": partial(
            separate, file, folder / "out", Separator(fast, config, jobs=JOBS, transforms=TorchTransforms())
        )
        for kind, file in files.items()
    }
    contenders |= {
        "forward": partial(forward, fast, blocks),
        "decode_mp3": partial(exhaust, files["mp3"]),
        "forward_unfolded": partial(forward, TorchNetwork(network), blocks),
        "forward_channels_first": partial(forward, _Plain(folded(network)), blocks),
        "forward_both_threads": partial(forward_one_by_one, fast, blocks),
        "forward_bfloat16": partial(forward, TorchNetwork(folded(network), "bfloat16"), blocks),
        "forward_onnx": partial(forward, OnnxNetwork(onnx), blocks),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()  # what is made ready once is not counted
    for _ in range(rounds):
        for name, contender in contenders.items():
            shutil.rmtree(folder / "out", ignore_errors=True)
            start = time.perf_counter()
            contender()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def separate(file: Path, output: Path, separator: Separator) -> None:
    """What `vocsep separate` does with one file; what it wrote is deleted before its next turn."""
    separate_file(file, output, separator)


def exhaust(file: Path) -> None:
    """Decode a file and drop its samples."""
    for _ in decode_blocks(file):
        pass


def forward(network: MaskNetwork, blocks: list[Spectrogram]) -> None:
    """The network sees all blocks, on as many threads as the separator has."""
    with ThreadPoolExecutor(JOBS, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        list(workers.map(network, blocks))


def forward_one_by_one(network: MaskNetwork, blocks: list[Spectrogram]) -> None:
    """The network sees all blocks in turn, each with all threads."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(JOBS,)) as workers:
        list(workers.map(network, blocks))


class _Plain(TorchNetwork):
    """Channels first."""

    @torch.inference_mode()
    def __call__(self, magnitudes: Spectrogram) -> Spectrogram:
        masks: Spectrogram = self._network(torch.from_numpy(magnitudes)).numpy()
        return masks


def report(seconds: dict[str, float], song_seconds: float) -> None:
    """Print the table, then the JSON line."""
    print(f"{'':<26}{'s':>8}{'x real time':>14}{'to forward':>12}")
    for name, value in seconds.items():
        print(f"{name:<26}{value:>8.2f}{song_seconds / value:>14.0f}{value / seconds['forward']:>12.2f}")
    ratios = {
        "to_forward_only": seconds["separate_wav"] / seconds["forward"],
        "to_forward_only_mp3": seconds["separate_mp3"] / seconds["forward"],
    }
    values = {f"{name}_seconds": value for name, value in seconds.items()}
    values["times_real_time"] = song_seconds / seconds["separate_wav"]
    print(json.dumps({"name": "separation", "values": values, "ratios": ratios}))


if __name__ == "__main__":
    main()
