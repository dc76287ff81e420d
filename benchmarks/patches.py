"""Random patches as training reads them, compared with np.memmap of the same bytes and stock zarr.

    python -m benchmarks.patches [--gigabytes 2.1] [--folder FOLDER] [--rounds 300]

A store of stereo songs of 3 to 4 minutes is written through `track_writer` into a temporary folder (within FOLDER, if
given). A patch is a place drawn at random: 128 frames of 512 bins in both channels, made float32. `vocsep` is what
training does where the songs do not fit into memory: `StreamTier.excerpts` gathers a batch of 16 places, then the
kernel fills the patches. `memmap` copies the same slices, `zarr` reads them through zarr-python. All use one thread,
read the same places in turns and end with the same values. Rates are medians over the turns. The store is in the page
cache, and every page has been touched once: this is what reading costs when the disk costs nothing.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from storage.layout import padded_shape
from storage.manifest import SPECTROGRAMS
from storage.store import SpectrogramStore
from storage.track_writer import Compression, track_writer
from vocsep.kernels import StoredRows, fill_patch
from vocsep.patches.pool import SongPool
from vocsep.patches.tiers import StreamTier

FRAMES, BINS, CHANNELS, BATCH = 128, 512, 2, 16
FRAMES_PER_SECOND = 11_025 / 256  # preset `fine`
COMPRESSED_BYTES = 300e6
LEAST_RATIO = 0.7
SLOW = ("zarr", "zstd", "blosc")

Array = NDArray[Any]


class Places(NamedTuple):
    """Where the patches of a batch are: songs, and their first frames."""

    track: NDArray[np.int64]
    start: NDArray[np.int64]


Read = Callable[[Places, Array], None]


def main() -> None:
    """Make the stores, time all readers, print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patches", description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.1, help="size of the store")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and deleted again")
    parser.add_argument("--rounds", type=int, default=300, help="turns of every reader")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), arguments.gigabytes * 1e9, arguments.rounds)


def measure(folder: Path, size: float, rounds: int) -> None:
    """Time everything in stores made in `folder`."""
    store = make_store(folder / "plain.zarr", size, "none")
    tracks = store.tracks("train")
    stored = sum(track.bytes for track in tracks)
    print(
        f"{stored / 1e9:.2f} GB, {len(tracks)} songs; batches of {BATCH} patches, float32; patches per second, median"
    )
    readers = {"vocsep": with_vocsep(store), "memmap": with_memmap(store), "zarr": with_zarr(store)}
    for compression in ("zstd", "blosc"):
        readers[compression] = with_vocsep(make_store(folder / f"{compression}.zarr", COMPRESSED_BYTES, compression))
    random = np.random.default_rng(0)
    songs = {name: count_songs(folder, name) for name in ("zstd", "blosc")}
    for record in (array for track in tracks for array in track.arrays.values()):
        (store.path / record.shard).read_bytes()
    rates: dict[str, list[float]] = {name: [] for name in readers}
    out = np.empty((BATCH, CHANNELS, FRAMES, BINS), np.float32)
    for number in range(rounds):
        for name in sorted(readers, key=lambda name: (number + list(readers).index(name)) % len(readers)):
            if name in SLOW and number % 10:
                continue
            places = draw(songs.get(name, len(tracks)), random)
            begun = time.perf_counter()
            readers[name](places, out)
            rates[name].append(BATCH / (time.perf_counter() - begun))
    check_equal([readers["vocsep"], readers["memmap"], readers["zarr"]], draw(len(tracks), random))
    values = {f"{name}_patches_per_second": statistics.median(found) for name, found in rates.items()}
    for name, value in values.items():
        print(f"{name.removesuffix('_patches_per_second'):<10}{value:>10,.0f}")
    ratio = statistics.median(map(float.__truediv__, rates["vocsep"], rates["memmap"]))
    print(f"vocsep / memmap {ratio:.2f}, at least {LEAST_RATIO} is wanted")
    values |= {"gigabytes": stored / 1e9, "tracks": float(len(tracks))}
    over = values["vocsep_patches_per_second"] / values["zarr_patches_per_second"]
    print(json.dumps({"name": "patches", "values": values, "ratios": {"to_memmap": ratio, "over_stock_zarr": over}}))


def count_songs(folder: Path, name: str) -> int:
    """Songs of a compressed store."""
    return len(SpectrogramStore.open(folder / f"{name}.zarr").tracks("train"))


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
    """What is measured: a batch of excerpts, then the kernel. Without remixes it reads vocals and mixture."""
    tier = StreamTier(SongPool(store), CHANNELS)
    frames, bins = np.full(BATCH, FRAMES), np.full(BATCH, BINS)
    whole, gain = np.zeros(BATCH, np.int64), np.ones(BATCH, np.float32)
    remixed, cosines = np.zeros(BATCH, bool), np.zeros(1, np.float32)
    vocals_out = np.empty((BATCH, CHANNELS, FRAMES, BINS), np.float32)

    def rows(source: str, places: Places) -> StoredRows:
        stored, first, available = tier.excerpts(source, places.track, whole, places.start, frames)
        return StoredRows(stored.numpy().view(np.uint16), first, available, frames, bins, bins, gain)

    def read(places: Places, out: Array) -> None:
        vocals, mixture = rows("vocals", places), rows("mixture", places)
        for patch in range(BATCH):
            fill_patch(
                patch, vocals, vocals, mixture, remixed, whole, cosines, vocals_out, vocals_out[:0], out
            )  # fmt: skip

    return read


def slices(arrays: list[tuple[Any, Any]]) -> Read:
    """Copies of the places' vocals and mixture, from arrays of every song."""
    vocals_out = np.empty((BATCH, CHANNELS, FRAMES, BINS), np.float32)

    def read(places: Places, out: Array) -> None:
        for patch, (track, start) in enumerate(zip(*places, strict=True)):
            for array, target in zip(arrays[track], (vocals_out, out), strict=True):
                for channel in range(CHANNELS):
                    target[patch, channel] = array[channel, start : start + FRAMES]

    return read


def with_memmap(store: SpectrogramStore) -> Read:
    """np.memmap of the same bytes, all of them open before the first read."""
    records = [(track.arrays["vocals"], track.arrays["mixture"]) for track in store.tracks("train")]
    return slices(
        [
            (
                np.memmap(store.path / one.shard, "float16", "r", shape=padded_shape(one.shape, one.chunk_length)),
                np.memmap(store.path / two.shard, "float16", "r", shape=padded_shape(two.shape, two.chunk_length)),
            )
            for one, two in records
        ]
    )


def with_zarr(store: SpectrogramStore) -> Read:
    """Slices of zarr arrays, all of them open before the first read."""
    root = zarr.open_group(store.path, mode="r")
    ids = [track.id for track in store.tracks("train")]
    return slices([(root[f"train/{one}/vocals"], root[f"train/{one}/mixture"]) for one in ids])


def draw(songs: int, random: np.random.Generator) -> Places:
    """A batch of random places."""
    shortest = int(180 * FRAMES_PER_SECOND)
    return Places(random.integers(songs, size=BATCH), random.integers(shortest - FRAMES, size=BATCH))


def check_equal(readers: list[Read], places: Places) -> None:
    """All readers must read the same mixtures."""
    found = []
    for read in readers:
        out = np.full((BATCH, CHANNELS, FRAMES, BINS), np.nan, np.float32)
        read(places, out)
        found.append(out)
    if any(not np.array_equal(one, found[0]) for one in found):
        raise SystemExit("the readers' values differ")


if __name__ == "__main__":
    main()
