"""Tracks made of whole arrays."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from storage.manifest import SourceFile, TrackRecord
from storage.store import SpectrogramStore
from storage.track_writer import Compression, track_writer


def new_store(path: Path, **changes: Any) -> SpectrogramStore:
    """The store at `path`, opened or made."""
    return SpectrogramStore.open_or_create(path, **({"config": {}, "dataset": {}, "tool": "test"} | changes))


def write_track(
    store: Path,
    track_id: str,
    *,
    name: str = "x",
    split: str = "train",
    seconds: float = 1.0,
    arrays: dict[str, NDArray[Any]],
    sources: Iterable[SourceFile] = (),
    compression: Compression = "none",
) -> TrackRecord:
    """Write one track of spectrograms `(channels, frames, bins)` and waveforms `(channels, samples)`; its record."""
    with track_writer(store, track_id, name=name, split=split, seconds=seconds, compression=compression) as writer:
        for array_name, array in arrays.items():
            writer.array(array_name, array.shape, array.dtype).write(array)
    assert writer.record is not None
    return writer.record.model_copy(update={"sources": tuple(sources)})
