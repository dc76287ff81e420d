"""Small stores, and writers of them in separate processes."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.manifest import SPECTROGRAMS, SourceFile, TrackRecord
from storage.store import SpectrogramStore
from tests.helpers import start
from tests.tracks import new_store as empty_store
from tests.tracks import write_track

Array = NDArray[Any]


CONFIG = {"spectrogram": {"sample_rate": 8192, "n_fft": 16}, "dtype": "float16"}


DATASET = {"kind": "folder", "root": "/songs"}


CHANNELS, FRAMES, BINS = 2, 300, 8


WRITE_TRACKS = """
import sys
from pathlib import Path
import numpy as np
from storage.manifest import SPECTROGRAMS
from tests.tracks import write_track
store, prefix, first, last, frames = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
print("ready", flush=True)
for number in range(first, last):
    arrays = {name: np.full((2, frames, 8), number % 1000 + 1, np.float16) for name in SPECTROGRAMS}
    record = write_track(store, f"{prefix}-{number}", arrays=arrays)
    print(record.model_dump_json(), flush=True)
"""


CREATE = """
import sys
from pathlib import Path
from storage.store import SpectrogramStore
print("ready", flush=True)
sys.stdin.readline()
store = SpectrogramStore.open_or_create(Path(sys.argv[1]), config={"n": 1}, dataset={"kind": sys.argv[2]}, tool="")
print(store.manifest.dataset["kind"], flush=True)
"""


READ_FOR_EVER = """
import sys
from pathlib import Path
from storage.store import SpectrogramStore
count = 0
while count < int(sys.argv[2]):
    store = SpectrogramStore.open(Path(sys.argv[1]))
    tracks = store.tracks("train")
    assert len(tracks) >= count, (len(tracks), count)
    count = len(tracks)
    for track in tracks[-3:]:
        for name in track.arrays:
            assert (store.array(track, name) == int(track.id.rpartition("-")[2]) + 1).all(), track
print("all there", flush=True)
"""


def start_writer(store: Path, prefix: str, first: int, last: int, frames: int) -> "subprocess.Popen[str]":
    return start(WRITE_TRACKS, store, prefix, first, last, frames)


def spectrograms(seed: int, frames: int = FRAMES, dtype: str = "float16") -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {name: generator.random((CHANNELS, frames, BINS)).astype(dtype) for name in SPECTROGRAMS}


def new_store(path: Path, **changes: Any) -> SpectrogramStore:
    return empty_store(path, **({"config": CONFIG, "dataset": DATASET} | changes))


def write(
    store: SpectrogramStore,
    track_id: str,
    arrays: dict[str, Array],
    split: str = "train",
    sources: tuple[SourceFile, ...] = (),
) -> TrackRecord:
    return write_track(
        store.path, track_id, name=f"Name of {track_id}", split=split, seconds=1.5, arrays=arrays, sources=sources
    )


def filled_store(path: Path) -> SpectrogramStore:
    """Two training tracks and a validation track with a waveform."""
    store = new_store(path)
    store.add(write(store, "b-2", spectrograms(2)))
    store.add(write(store, "a-1", spectrograms(1, frames=5)))
    waveform = {"mixture_waveform": np.ones((CHANNELS, 70_000), np.float32)}
    store.add(write(store, "c-3", spectrograms(3) | waveform, split="valid"))
    store.save()
    return store
