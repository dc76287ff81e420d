"""Random patches from a sharded store, beside np.memmap, stock zarr and zarr with the zarrs pipeline.

    python -m benchmarks.patches [--gigabytes 2.1] [--folder FOLDER] [--rounds 500]

A store of stereo songs of 3 to 4 minutes is written through `track_writer` into a temporary folder (within FOLDER, if
given) and read in batches of 64 patches of 128 frames, 512 bins, from places drawn at random for each batch. vocsep's
line is the path that training takes when it streams (`StreamTier.excerpts`); `np.memmap` copies the same places from
maps that are open already. Readers take turns; zarr, which is slow, reads a part of a batch at a time, so that all
turns are short. Rates are medians over the turns. The store lies in the page cache and every page has been touched
once: this is what reading costs when the disk costs nothing.
"""

import argparse
import importlib.util
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.shards import padded_shape
from storage.store import SpectrogramStore
from storage.track_writer import Compression, track_writer
from vocsep.patches.tiers import StreamTier

FRAMES, BINS, CHANNELS, BATCH = 128, 512, 2, 64
FRAMES_PER_SECOND = 11_025 / 256  # preset `fine`
PATCHES_PER_TURN_OF_ZARR = 2
COMPRESSIONS: tuple[Compression, ...] = ("zstd", "blosc")
COMPRESSED_BYTES = 300e6
READERS = ("vocsep", "memmap", "zarr", "zarrs")

Array = npt.NDArray[Any]
Place = tuple[TrackRecord, int, int]
Read = Callable[[list[Place], str], Array]
"""Reads patches of a source; the array may be the same one at every call."""


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
    readers = {"vocsep": with_vocsep(store), "memmap": with_memmap(store)}
    slow = {"zarr": with_zarr(store)}
    if importlib.util.find_spec("zarrs"):
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            slow["zarrs"] = with_zarr(store)
    for read in readers.values():
        touch_all(read, tracks)
    random = np.random.default_rng(0)
    values = {"gigabytes": stored / 1e9, "tracks": float(len(tracks)), "seconds_to_write": seconds}
    rates = compare(readers | slow, tracks, rounds, random)
    values |= {f"{name}_patches_per_second": rate for name, rate in rates.items()}
    for compression in COMPRESSIONS:
        values |= compressed_values(folder, compression, max(1, rounds // 10), random)
    report(values, rates)


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


def with_vocsep(store: SpectrogramStore) -> Read:
    """What training calls for every batch that it streams from the store."""
    tier = StreamTier(store, channels=1)
    index = {track.id: number for number, track in enumerate(store.tracks("train"))}

    def read(places: list[Place], source: str) -> Array:
        track, channel, start = (
            np.array(column, dtype=np.int64)
            for column in zip(*[(index[t.id], c, s) for t, c, s in places], strict=True)
        )
        frames = np.full(len(places), FRAMES, dtype=np.int64)
        excerpts = tier.excerpts(source, track, channel, start, frames)
        return excerpts.rows.numpy()[: len(places) * FRAMES].reshape(-1, FRAMES, BINS)

    return read


def with_memmap(store: SpectrogramStore) -> Read:
    """np.memmap of the same bytes, all of them open before the first read."""
    maps = {
        (track.id, source): np.memmap(
            store.path / record.shard, "float16", "r", shape=padded_shape(record.shape, record.chunk_length)
        )
        for track in store.tracks("train")
        for source, record in track.arrays.items()
    }

    out = np.empty((BATCH, FRAMES, BINS), np.float16)

    def read(places: list[Place], source: str) -> Array:
        for item, (track, channel, start) in enumerate(places):
            out[item] = maps[track.id, source][channel, start : start + FRAMES]
        return out[: len(places)]

    return read


def with_zarr(store: SpectrogramStore) -> Read:
    """Slices of zarr arrays, all of them open before the first read."""
    root = zarr.open_group(store.path, mode="r")
    arrays: dict[tuple[str, str], Any] = {
        (track.id, source): root[f"train/{track.id}/{source}"]
        for track in store.tracks("train")
        for source in track.arrays
    }

    out = np.empty((BATCH, FRAMES, BINS), np.float16)

    def read(places: list[Place], source: str) -> Array:
        for item, (track, channel, start) in enumerate(places):
            out[item] = arrays[track.id, source][channel, start : start + FRAMES]
        return out[: len(places)]

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
    for track in tracks:
        for channel in range(CHANNELS):
            for start in [*range(0, track.frames - FRAMES, FRAMES), track.frames - FRAMES]:
                for source in SPECTROGRAMS:
                    read([(track, channel, start)], source)


def compare(
    readers: dict[str, Read], tracks: list[TrackRecord], rounds: int, random: np.random.Generator
) -> dict[str, float]:
    """Patches per second of every reader."""
    rates: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            places = draw(tracks, random)
            # Turns of much the same length, so that other work on the machine disturbs everyone alike.
            if name.startswith("zarr"):
                places = places[:PATCHES_PER_TURN_OF_ZARR]
            rates[name].append(rate_of(readers[name], places, draw_source(random)))
    check_equal(readers, draw(tracks, random), "vocals")
    return {name: statistics.median(found) for name, found in rates.items()}


def rate_of(read: Read, places: list[Place], source: str) -> float:
    """Patches per second."""
    begun = time.perf_counter()
    read(places, source)
    return len(places) / (time.perf_counter() - begun)


def check_equal(readers: dict[str, Read], places: list[Place], source: str) -> None:
    """All readers must read the same values."""
    found = [read(places, source).copy() for read in readers.values()]
    if any(not np.array_equal(one, found[0]) for one in found):
        raise SystemExit("the readers' values differ")


def compressed_values(
    folder: Path, compression: Compression, rounds: int, random: np.random.Generator
) -> dict[str, float]:
    """Share of the bytes that is left, and patches per second."""
    store = make_store(folder / f"{compression}.zarr", COMPRESSED_BYTES, compression)
    tracks = store.tracks("train")
    raw = sum(CHANNELS * track.frames * BINS * 2 * len(SPECTROGRAMS) for track in tracks)
    read = with_vocsep(store)
    rates = [rate_of(read, draw(tracks, random)[:PATCHES_PER_TURN_OF_ZARR], draw_source(random)) for _ in range(rounds)]
    return {
        f"{compression}_size": sum(track.bytes for track in tracks) / raw,
        f"{compression}_patches_per_second": statistics.median(rates),
    }


def report(values: dict[str, float], rates: dict[str, float]) -> None:
    """Print the table, then the JSON line."""
    print(f"patches per second, median; batches of {BATCH}, warm page cache")
    print(f"{'reader':<16}{'patches/s':>12}{'vocsep / it':>13}")
    for name in READERS:
        if name in rates:
            print(f"{name:<16}{rates[name]:>12,.0f}{rates['vocsep'] / rates[name]:>13.2f}")
        else:
            print(f"{name:<16}{'not installed':>12}")
    print(f"{'compressed':<16}{'patches/s':>12}{'size left':>13}")
    for name in COMPRESSIONS:
        print(f"{name:<16}{values[f'{name}_patches_per_second']:>12,.0f}{values[f'{name}_size']:>13.2f}")
    ratios = {"to_memmap": rates["vocsep"] / rates["memmap"], "over_stock_zarr": rates["vocsep"] / rates["zarr"]}
    if "zarrs" in rates:
        ratios["over_zarrs"] = rates["vocsep"] / rates["zarrs"]
    print(json.dumps({"name": "patches", "values": values, "ratios": ratios}))


if __name__ == "__main__":
    main()
