"""Stores of small songs that can be told from their values, for the tests of patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.manifest import ArrayRecord, Manifest, TrackRecord
from storage.store import SpectrogramStore
from storage.track_writer import Compression
from tests.tracks import write_track
from vocsep.patches.pool import SongPool
from vocsep.preprocessing.config import StoreConfig
from vocsep.spectrograms.config import SpectrogramConfig

Array = NDArray[Any]

BINS = 3
SOURCES = ("mixture", "vocals", "accompaniment")


@dataclass(frozen=True)
class Made:
    """A song of a small store."""

    frames: int
    split: str = "train"
    channels: int = 1


# Songs of one and of two channels, longer and shorter than a patch of 4 frames, and of other splits between them.
SONGS = (Made(9), Made(20, channels=2), Made(6, "valid"), Made(8, "test"), Made(3), Made(4, channels=2))


def named(number: int) -> str:
    """Name of a song, counted from 1."""
    return f"Song {number}"


def record(frames: int, channels: int = 1, number: int = 1) -> TrackRecord:
    """A song without a store."""
    return TrackRecord(
        id=f"song-{number}",
        name=named(number),
        split="train",
        channels=channels,
        frames=frames,
        seconds=1.0,
        sources=(),
        arrays={
            source: ArrayRecord(
                shard=source, shape=(channels, frames, BINS), dtype="float32", chunk_length=1, bytes=0, crc32c=0
            )
            for source in SOURCES
        },
    )


def pool_of(*tracks: TrackRecord) -> SongPool:
    """Songs without files."""
    manifest = Manifest(tool="", config={}, config_digest="", dataset={}, tracks={track.id: track for track in tracks})
    return SongPool(SpectrogramStore(Path(), manifest))


def training_songs(songs: Sequence[Made]) -> list[tuple[int, Made]]:
    """Number and song of those that training may see, in the store's order."""
    return [(number, song) for number, song in enumerate(songs, start=1) if song.split == "train"]


def recognizable(number: int, song: Made, source: str) -> Array:
    """song * 1000 + frame + channel / 2 + bin / 8 + source / 64, exact in float32; `(channels, frames, BINS)`."""
    values = np.full((song.channels, song.frames, BINS), 1000.0 * number, dtype=np.float32)
    values += np.arange(song.frames)[:, None] + np.arange(song.channels)[:, None, None] / 2 + np.arange(BINS) / 8
    return values + np.float32(SOURCES.index(source) / 64)


def make_store(
    path: Path,
    songs: Sequence[Made] = SONGS,
    *,
    dtype: Literal["float16", "float32"] = "float32",
    compression: Compression = "none",
    values: Mapping[str, Sequence[Array]] | None = None,
) -> SpectrogramStore:
    """A store of such songs, or of ones with the given `values`: source to one `(channels, frames, bins)` per song."""
    config = StoreConfig(spectrogram=SpectrogramConfig(sample_rate=1000, n_fft=64, hop_length=16), dtype=dtype)
    store = SpectrogramStore.open_or_create(
        path, config=config.model_dump(mode="json"), dataset={"kind": "folder", "root": "songs"}, tool="test"
    )
    for index, song in enumerate(songs):
        arrays = {
            name: (values[name][index] if values else recognizable(index + 1, song, name)).astype(dtype)
            for name in SOURCES
        }
        track = write_track(
            path,
            f"song-{index + 1}",
            name=named(index + 1),
            split=song.split,
            seconds=1.0,
            arrays=arrays,
            sources=(),
            compression=compression,
        )
        store.add(track)
    store.save()
    return store
