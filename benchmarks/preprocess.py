"""Songs to spectrograms: time compared with decoding alone and with musdb and librosa; memory; the cost of float16.

    python -m benchmarks.preprocess [--dataset MUSDB18] [--songs 8] [--seconds 225] [--rounds 5] [--memory-minutes 10]

Songs of real length are joined, packet by packet, from those of a MUSDB18 (preview) folder, from `--dataset` or the
environment's MUSDB_PATH; without one, from demo songs, and the output says so. Contenders take turns on two Dask
workers that have started and have imported what they need. All read the same files; figures are medians over rounds:

- `vocsep` is what a worker of the flow `preprocess` does, preset `fine`, with digests, checksums and fsync;
- `decode_frames` has PyAV decode the two streams that vocsep needs, and drops the frames as they come;
- `decode_arrays` also asks for their samples, as anyone would who means to use them (`frame.to_ndarray()`);
- `musdb_librosa` reads a song's mixture, vocals and accompaniment with musdb, resamples and transforms them with
  librosa and saves their magnitudes with numpy. It is slow: one song per worker, in at most two rounds.

The workers share the cores that this process may use: two of them say something only with two idle cores. Memory is
the peak of a fresh process that does one song of `--memory-minutes`.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from distributed import Client

from benchmarks import require_ffmpeg
from benchmarks.evaluation import peak_megabytes
from flows.cluster import dask_client, map_songs
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.demo.dataset import make_demo
from vocsep.evaluation.oracles import ideal_ratio_mask
from vocsep.metrics.song import song_sdr
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.track import preprocess_song
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.spectrograms.features import features
from vocsep.spectrograms.masking import apply_mask

CONFIG = StoreConfig(spectrogram=load_spectrogram_config("fine"))
AAC_FRAME, RATE = 1024, 44_100
ORACLE_SONGS = 10

Contender = Callable[[Song, Path], Any]


def main() -> None:
    """Run the benchmark, or, inside it, one song whose memory is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, default=os.environ.get("MUSDB_PATH"), help="MUSDB18 folder")
    parser.add_argument("--songs", type=int, default=8, help="songs per turn")
    parser.add_argument("--seconds", type=float, default=225.0, help="length of a song")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--memory-minutes", type=float, nargs="*", default=[10.0], help="lengths to measure memory at")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_of(arguments.peak))
        return
    require_ffmpeg("musdb")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "demo"
        if arguments.dataset is None:
            make_demo(root, train_songs=8, test_songs=2)
        else:
            root = Path(arguments.dataset)
        what = root if arguments.dataset else "synthesized songs (no MUSDB18 folder given)"
        print(f"{arguments.songs} songs of {arguments.seconds:g} s, preset fine, joined from {what}")
        values = float16_cost(root) | {"real_songs": float(arguments.dataset is not None)}
        for minutes in arguments.memory_minutes:
            values[f"peak_megabytes_{minutes:g}_minutes"] = peak_in_new_process(root, Path(folder), 60 * minutes)
        seconds = measure(root, Path(folder), arguments.songs, arguments.seconds, arguments.rounds)
    report(values, seconds)


# --- songs ----------------------------------------------------------------------------------------------


def long_song(stems: Sequence[Path], path: Path, seconds: float) -> Path:
    """Join stem files end to end, packet by packet, to one of at least `seconds`, all five streams."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(stems[0])) as first, av.open(str(path), "w", format="mp4") as joined:
        streams = [joined.add_stream_from_template(stream) for stream in first.streams.audio]
        begin = 0  # AAC frames written of each stream
        for stem in itertools.cycle(stems):
            if begin * AAC_FRAME >= seconds * RATE:
                return path
            written = [0] * len(streams)
            with av.open(str(stem)) as file:
                place = {stream.index: number for number, stream in enumerate(file.streams.audio)}
                for source in file.demux(file.streams.audio):
                    if source.size == 0:
                        continue
                    number = place[source.stream.index]
                    packet = av.Packet(bytes(source))
                    packet.stream = streams[number]
                    packet.time_base = source.time_base
                    packet.pts = packet.dts = (begin + written[number]) * AAC_FRAME
                    packet.duration = AAC_FRAME
                    joined.mux(packet)
                    written[number] += 1
            begin += max(written)
    raise AssertionError


def long_songs(root: Path, folder: Path, count: int, seconds: float) -> list[Song]:
    """`count` different long songs, each in its own MUSDB18 folder, as songs of the `train` split."""
    stems = sorted(root.glob("train/*.stem.mp4"))
    if not stems:
        raise SystemExit(f"--dataset {root}: no train/*.stem.mp4 in it; give a MUSDB18 folder, or none")
    songs: list[Song] = []
    for number in range(count):
        turned = stems[number % len(stems) :] + stems[: number % len(stems)]
        long_song(turned, folder / f"{number}" / "train" / f"Song {number}.stem.mp4", seconds)
        songs += open_dataset(folder / f"{number}", "musdb18").songs
    return songs


# --- time -----------------------------------------------------------------------------------------------


def decode_frames(song: Song, output: Path) -> None:
    """PyAV decodes mixture and vocals."""
    with av.open(str(song.mixture[0].path)) as file:
        for _ in file.decode([file.streams.audio[part.stream] for part in song.mixture + song.vocals]):
            pass


def decode_arrays(song: Song, output: Path) -> None:
    """PyAV decodes mixture and vocals to arrays."""
    with av.open(str(song.mixture[0].path)) as file:
        for frame in file.decode([file.streams.audio[part.stream] for part in song.mixture + song.vocals]):
            frame.to_ndarray()  # type: ignore[union-attr]


def with_vocsep(song: Song, output: Path) -> None:
    """What a worker of the flow does for a song."""
    preprocess_song(song, output, CONFIG)


def with_musdb_librosa(song: Song, output: Path) -> None:
    """The usual way."""
    import librosa
    import musdb

    config = CONFIG.spectrogram
    (track,) = musdb.DB(root=str(song.mixture[0].path.parents[1]), subsets=["train"])
    for name in ("mixture", "vocals", "accompaniment"):
        audio = track.audio if name == "mixture" else track.targets[name].audio
        waveform = librosa.resample(audio.T.astype(np.float32), orig_sr=track.rate, target_sr=config.sample_rate)
        spectrum = librosa.stft(waveform, n_fft=config.n_fft, hop_length=config.hop_length)
        np.save(output / f"{song.id}-{name}.npy", np.abs(spectrum))


CONTENDERS: dict[str, Contender] = {
    "vocsep": with_vocsep,
    "decode_frames": decode_frames,
    "decode_arrays": decode_arrays,
    "musdb_librosa": with_musdb_librosa,
}


def measure(root: Path, folder: Path, count: int, seconds: float, rounds: int) -> dict[str, float]:
    """Median wall seconds per song and worker's turn of every contender, on two workers; `vocsep_one_worker` on one."""
    songs = long_songs(root, folder / "songs", count, seconds)
    short = long_songs(root, folder / "short", 1, 1.0)[0]
    times: dict[str, list[float]] = {}
    with dask_client(2, 2) as two, dask_client(1, 1) as one:
        for client, contender in itertools.product((two, one), CONTENDERS.values()):
            client.run(warm_up, contender, short, folder)
        for number in range(rounds):
            for name, contender in CONTENDERS.items():
                if name != "musdb_librosa":
                    times.setdefault(name, []).append(turn(two, contender, songs, folder) / len(songs))
                elif number < 2:
                    times.setdefault(name, []).append(turn(two, contender, songs[:2], folder) / 2)
            times.setdefault("vocsep_one_worker", []).append(turn(one, with_vocsep, songs, folder) / len(songs))
    return {name: statistics.median(values) for name, values in times.items()}


def warm_up(contender: Contender, song: Song, folder: Path) -> None:
    """Have a worker import what a contender needs."""
    output = folder / f"warm-up-{os.getpid()}"
    (output / "train").mkdir(parents=True)
    contender(song, output)
    shutil.rmtree(output)


def turn(client: Client, contender: Contender, songs: Sequence[Song], folder: Path) -> float:
    """Wall seconds of one contender for all songs."""
    output = folder / "output"
    (output / "train").mkdir(parents=True)
    start = time.perf_counter()
    outcomes = map_songs(client, contender.__name__, contender, songs, (output,))
    seconds = time.perf_counter() - start
    shutil.rmtree(output)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise SystemExit(f"{contender.__name__}: {errors[0]}")
    return seconds


# --- memory ---------------------------------------------------------------------------------------------


def peak_in_new_process(root: Path, folder: Path, seconds: float) -> float:
    """Most memory in MB of a process that makes the track of one song."""
    song = long_song(sorted(root.glob("train/*.stem.mp4")), folder / "long" / "train" / "Song.stem.mp4", seconds)
    command = [sys.executable, "-m", "benchmarks.preprocess", "--peak", str(song.parents[1])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(song.parents[1])
    return float(done.stdout.splitlines()[-1])


def peak_of(root: Path) -> float:
    """Most memory in MB that this process has held after making the track of the only song in `root`."""
    output = root / "output"
    (output / "train").mkdir(parents=True)
    with_vocsep(open_dataset(root, "musdb18").songs[0], output)
    return peak_megabytes()


# --- float16 --------------------------------------------------------------------------------------------


def float16_cost(root: Path) -> dict[str, float]:
    """SDR in dB that an ideal ratio mask loses if magnitudes are stored as float16: mean and largest of all sources."""
    costs: list[float] = []
    for song in open_dataset(root).split("test")[:ORACLE_SONGS]:
        sources, sample_rate = read_sources(song, ("mixture", "vocals", "accompaniment"))
        true = (sources["vocals"], sources["accompaniment"])
        exact = [np.abs(features(source, sample_rate, CONFIG.spectrogram)) for source in true]
        scores = []
        for vocals, accompaniment in (exact, [values.astype(np.float16).astype(np.float32) for values in exact]):
            mask = ideal_ratio_mask(vocals, accompaniment)
            estimate = apply_mask(sources["mixture"], sample_rate, mask, CONFIG.spectrogram)
            rest = sources["mixture"] - estimate
            scores.append([song_sdr(*pair) for pair in zip(true, (estimate, rest), strict=True)])
        costs += [whole - half for whole, half in zip(*scores, strict=True) if np.isfinite(whole)]
    return {"float16_sdr_cost_db": float(np.mean(costs)), "float16_sdr_cost_max_db": max(map(abs, costs))}


# --- report ---------------------------------------------------------------------------------------------


def report(values: dict[str, float], seconds: dict[str, float]) -> None:
    """Print the table, then the JSON line."""
    print(f"{'two workers':<20}{'s per song':>12}{'times vocsep':>15}")
    for name, value in seconds.items():
        print(f"{name:<20}{value:>12.3f}{value / seconds['vocsep']:>15.2f}")
    for name, value in values.items():
        print(f"{name} {value:.3g}")
    ratios = {
        "to_decode_only": seconds["vocsep"] / seconds["decode_arrays"],
        "to_decode_frames_only": seconds["vocsep"] / seconds["decode_frames"],
        "over_musdb_librosa": seconds["musdb_librosa"] / seconds["vocsep"],
        "two_workers_over_one": seconds["vocsep_one_worker"] / seconds["vocsep"],
    }
    values |= {f"{name}_seconds_per_song": value for name, value in seconds.items()}
    print(json.dumps({"name": "preprocess", "values": values, "ratios": ratios}))


if __name__ == "__main__":
    main()
