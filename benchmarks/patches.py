"""Random patches from a sharded store, beside np.memmap, stock zarr and zarr with the zarrs pipeline.

    python -m benchmarks.patches [--gigabytes 2.1] [--folder FOLDER] [--rounds 500]

A store of stereo songs of 3 to 4 minutes is written through `track_writer` into a temporary folder (within FOLDER, if
given) and read in batches of 64 patches of 128 frames, 512 bins, from places drawn at random for each batch. Readers
take turns and read into the same buffer; zarr, which is slow, reads a part of a batch at a time, so that all turns are
short. Rates are medians over the turns. The store lies in the page cache and every page has been touched once: this is
what reading costs when the disk costs nothing. `np.memmap` and the first line of vocsep use one thread; zarr and zarrs
use the threads that they start by themselves, and the second line of vocsep shares a batch among one thread per core.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from storage import patch_reader as patches
from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.patch_reader import PatchReader
from storage.shards import padded_shape
from storage.store import SpectrogramStore
from storage.track_writer import Compression, track_writer

FRAMES, BINS, CHANNELS, BATCH = 128, 512, 2, 64
FRAMES_PER_SECOND = 11_025 / 256  # preset `fine`
PATCHES_PER_TURN_OF_ZARR = 2
COMPRESSIONS: tuple[Compression, ...] = ("zstd", "blosc")
COMPRESSED_BYTES = 300e6
READERS = ("vocsep", "vocsep_threads", "memmap", "zarr", "zarrs")

Array = npt.NDArray[Any]
Place = tuple[TrackRecord, int, int]
Read = Callable[[list[Place], str, Array], None]


def main() -> None:
    """Make the store, time all readers, print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patches", description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.1, help="size of the store")
    parser.add_argument("--folder", type=Path, help="where the store is made, and deleted again")
    parser.add_argument("--rounds", type=int, default=500, help="turns of every reader")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), arguments.gigabytes * 1e9, arguments.rounds)


def measure(folder: Path, size: float, rounds: int) -> None:
    """Time everything in stores made in `folder`."""
    begun = time.perf_counter()
    store = make_store(folder / "plain.zarr", size, "none")
    tracks = store.tracks("train")
    stored = sum(track.bytes for track in tracks)
    seconds = time.perf_counter() - begun
    print(f"{stored / 1e9:.2f} GB in {len(tracks)} songs of 3-4 minutes, written in {seconds:.0f} s; float16 as stored")
    readers = {
        "vocsep": with_vocsep(store, 1),
        "vocsep_threads": with_vocsep(store, core_count()),
        "memmap": with_memmap(store),
    }
    slow = {"zarr": with_zarr(store)}
    if importlib.util.find_spec("zarrs"):
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            slow["zarrs"] = with_zarr(store)
    for read in readers.values():
        touch_all(read, tracks)
    random = np.random.default_rng(0)
    values = {"gigabytes": stored / 1e9, "tracks": float(len(tracks)), "seconds_to_write": seconds}
    rates = {
        name: compare(readers | slow if dtype == "float16" else readers, tracks, dtype, rounds, random)
        for name, dtype in (("", "float16"), ("_float32", "float32"))
    }
    for suffix, found in rates.items():
        values |= {f"{name}{suffix}_patches_per_second": rate for name, rate in found.items()}
    for compression in COMPRESSIONS:
        values |= compressed_values(folder, compression, max(1, rounds // 10), random)
    report(values, rates[""], rates["_float32"])


def make_store(path: Path, size: float, compression: Compression) -> SpectrogramStore:
    """A store of at least `size` bytes of spectrograms before compression; seeded, with the level of music per bin."""
    store = SpectrogramStore.open_or_create(path, config={}, dataset={}, tool="benchmark")
    random = np.random.default_rng(0)
    slope = 10 ** (-np.linspace(0, 3, BINS, dtype=np.float32))
    noise = np.abs(random.standard_normal((2, 20_000, BINS), dtype=np.float32)) * slope * 30
    written, number = 0, 0
    while written < size:
        frames = int(random.uniform(180, 240) * FRAMES_PER_SECOND)
        shape = (CHANNELS, frames, BINS)
        with track_writer(
            path, f"song-{number:04}", name="noise", split="train", seconds=frames / FRAMES_PER_SECOND,
            compression=compression,
        ) as writer:  # fmt: skip
            for source in SPECTROGRAMS:
                first = int(random.integers(noise.shape[1] - frames))
                loudness = np.float32(random.uniform(0.1, 1))
                writer.array(source, shape, "float16").write((noise[:, first : first + frames] * loudness).astype("f2"))
        assert writer.record is not None
        store.add(writer.record)
        written += math.prod(shape) * 2 * len(SPECTROGRAMS)
        number += 1
    store.save()
    return SpectrogramStore.open(path)


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_vocsep(store: SpectrogramStore, threads: int) -> Read:
    """What is measured."""
    reader = PatchReader(store, threads)
    return lambda places, source, out: reader.read_batch(places, {source: out})


def with_memmap(store: SpectrogramStore) -> Read:
    """np.memmap of the same bytes, all of them open before the first read."""
    maps = {
        (track.id, source): np.memmap(
            store.path / record.shard, "float16", "r", shape=padded_shape(record.shape, record.chunk_length)
        )
        for track in store.tracks("train")
        for source, record in track.arrays.items()
    }

    def read(places: list[Place], source: str, out: Array) -> None:
        for item, (track, channel, start) in enumerate(places):
            out[item] = maps[track.id, source][channel, start : start + FRAMES]

    return read


def with_zarr(store: SpectrogramStore) -> Read:
    """Slices of zarr arrays, all of them open before the first read."""
    root = zarr.open_group(store.path, mode="r")
    arrays: dict[tuple[str, str], Any] = {
        (track.id, source): root[f"train/{track.id}/{source}"]
        for track in store.tracks("train")
        for source in track.arrays
    }

    def read(places: list[Place], source: str, out: Array) -> None:
        for item, (track, channel, start) in enumerate(places):
            out[item] = arrays[track.id, source][channel, start : start + FRAMES]

    return read


def draw(tracks: list[TrackRecord], random: np.random.Generator) -> list[Place]:
    """A batch of random places."""
    drawn = [tracks[random.integers(len(tracks))] for _ in range(BATCH)]
    return [(track, int(random.integers(CHANNELS)), int(random.integers(track.frames - FRAMES + 1))) for track in drawn]


def draw_source(random: np.random.Generator) -> str:
    """The source that a batch is of."""
    return SPECTROGRAMS[random.integers(len(SPECTROGRAMS))]


def touch_all(read: Read, tracks: list[TrackRecord]) -> None:
    """Read every frame once, so that no page is met for the first time later on."""
    out = np.empty((1, FRAMES, BINS), np.float16)
    for track in tracks:
        for channel in range(CHANNELS):
            for start in [*range(0, track.frames - FRAMES, FRAMES), track.frames - FRAMES]:
                for source in SPECTROGRAMS:
                    read([(track, channel, start)], source, out)


def compare(
    readers: dict[str, Read], tracks: list[TrackRecord], dtype: str, rounds: int, random: np.random.Generator
) -> dict[str, float]:
    """Patches per second of every reader."""
    out = np.empty((BATCH, FRAMES, BINS), dtype)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            places = draw(tracks, random)
            # Turns of much the same length, so that other work on the machine disturbs everyone alike.
            if name.startswith("zarr"):
                places = places[:PATCHES_PER_TURN_OF_ZARR]
            rates[name].append(rate_of(readers[name], places, draw_source(random), out))
    check_equal(readers, draw(tracks, random), "vocals", out)
    return {name: statistics.median(found) for name, found in rates.items()}


def rate_of(read: Read, places: list[Place], source: str, out: Array) -> float:
    """Patches per second."""
    begun = time.perf_counter()
    read(places, source, out[: len(places)])
    return len(places) / (time.perf_counter() - begun)


def check_equal(readers: dict[str, Read], places: list[Place], source: str, out: Array) -> None:
    """All readers must have read the same values."""
    found = []
    for read in readers.values():
        out[:] = np.nan
        read(places, source, out)
        found.append(out.copy())
    if any(not np.array_equal(one, found[0]) for one in found):
        raise SystemExit("the readers' values differ")


def compressed_values(
    folder: Path, compression: Compression, rounds: int, random: np.random.Generator
) -> dict[str, float]:
    """Share of the bytes that is left, and patches per second when chunks are decoded and when they were kept."""
    store = make_store(folder / f"{compression}.zarr", COMPRESSED_BYTES, compression)
    tracks = store.tracks("train")
    raw = sum(CHANNELS * track.frames * BINS * 2 * len(SPECTROGRAMS) for track in tracks)
    read = with_vocsep(store, 1)
    out = np.empty((BATCH, FRAMES, BINS), np.float16)
    rates: dict[str, list[float]] = {"decoded": [], "kept": []}
    cache_bytes = patches.MAXIMUM_CACHE_BYTES
    for _ in range(rounds):
        places, source = draw(tracks, random), draw_source(random)
        patches.MAXIMUM_CACHE_BYTES = 0
        rates["decoded"].append(rate_of(read, places[:PATCHES_PER_TURN_OF_ZARR], source, out))
        patches.MAXIMUM_CACHE_BYTES = cache_bytes
        read(places, source, out)
        rates["kept"].append(rate_of(read, places, source, out))
    return {f"{compression}_size": sum(track.bytes for track in tracks) / raw} | {
        f"{compression}_{name}_patches_per_second": statistics.median(found) for name, found in rates.items()
    }


def report(values: dict[str, float], rates: dict[str, float], rates_float32: dict[str, float]) -> None:
    """Print the table, then the JSON line."""
    print(f"patches per second, median; batches of {BATCH}, warm page cache, {core_count()} cores")
    print(f"{'reader':<16}{'to float16':>12}{'to float32':>12}{'vocsep / it':>13}")
    for name in READERS:
        if name in rates:
            single = f"{rates_float32[name]:>12,.0f}" if name in rates_float32 else f"{'-':>12}"
            print(f"{name:<16}{rates[name]:>12,.0f}{single}{rates['vocsep'] / rates[name]:>13.2f}")
        else:
            print(f"{name:<16}{'not installed':>12}")
    print(f"{'compressed':<16}{'decoded':>12}{'kept':>12}{'size left':>13}")
    for name in COMPRESSIONS:
        decoded, kept = (values[f"{name}_{kind}_patches_per_second"] for kind in ("decoded", "kept"))
        print(f"{name:<16}{decoded:>12,.0f}{kept:>12,.0f}{values[f'{name}_size']:>13.2f}")
    ratios = {
        "to_memmap": rates["vocsep"] / rates["memmap"],
        "to_memmap_float32": rates_float32["vocsep"] / rates_float32["memmap"],
        "over_stock_zarr": rates["vocsep_threads"] / rates["zarr"],
        "over_stock_zarr_one_thread": rates["vocsep"] / rates["zarr"],
    }
    if "zarrs" in rates:
        ratios["over_zarrs"] = rates["vocsep_threads"] / rates["zarrs"]
    print(json.dumps({"name": "patches", "values": values, "ratios": ratios}))


if __name__ == "__main__":
    main()
