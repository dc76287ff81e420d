"""Opening a large store, and saving its manifest.

    python -m benchmarks.opening [--tracks 10000] [--folder FOLDER] [--rounds 9]

A store of stereo songs of 4 minutes is made in a temporary folder (within FOLDER, if given), with shards of their full
size that hold nothing and take no room. To open it is to read and check the manifest and to look at every shard's size.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from storage.manifest import MANIFEST_NAME, SPECTROGRAMS, ArrayRecord, SourceFile, TrackRecord
from storage.shards import shard_bytes
from storage.store import SpectrogramStore
from storage.track_writer import FRAMES_PER_CHUNK

SHAPE = (2, 10_336, 512)


def main() -> None:
    """Make the store, time it, print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.opening", description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the store is made, and deleted again")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store = make_store(Path(folder) / "s.zarr", arguments.tracks)
        values = {
            "tracks": float(arguments.tracks),
            "manifest_megabytes": (store.path / MANIFEST_NAME).stat().st_size / 1e6,
            "open_seconds": median_seconds(lambda: SpectrogramStore.open(store.path), arguments.rounds),
            "save_seconds": median_seconds(store.save, arguments.rounds),
        }
    for name, value in values.items():
        print(f"{name.replace('_', ' '):<20}{value:>10,.3f}")
    print(json.dumps({"name": "opening", "values": values, "ratios": {}}))


def make_store(path: Path, tracks: int) -> SpectrogramStore:
    """A store of `tracks` tracks, whose shards are holes."""
    store = SpectrogramStore.open_or_create(path, config={}, dataset={}, tool="benchmark")
    size = shard_bytes(SHAPE, FRAMES_PER_CHUNK, 2)
    for number in range(tracks):
        key = f"a-song-with-a-name-of-the-usual-length-{number:010}"
        arrays = {}
        for name in SPECTROGRAMS:
            shard = f"train/{key}/{name}/c/0/0/0"
            (path / shard).parent.mkdir(parents=True)
            with (path / shard).open("wb") as file:
                file.truncate(size)
            arrays[name] = ArrayRecord(
                shard=shard, shape=SHAPE, dtype="float16", chunk_length=FRAMES_PER_CHUNK, bytes=size, crc32c=number
            )
        source = SourceFile(path=f"/data/train/Song {number}.stem.mp4", bytes=1, modified_ns=number, sha256="0" * 64)
        store.add(
            TrackRecord(
                id=key,
                name=f"Song {number}",
                split="train",
                channels=SHAPE[0],
                frames=SHAPE[1],
                seconds=240.0,
                sources=(source,),
                arrays=arrays,
            )
        )
    store.save()
    return store


def median_seconds(action: Callable[[], object], rounds: int) -> float:
    """Median time of an action, which is done once before."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
