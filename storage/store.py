"""The spectrogram store: one Zarr v3 group per track, one whole shard per array, a manifest that is written last.

Layout: `/<split>/<track id>/{mixture,vocals,accompaniment}`, arrays of shape `(channels, frames, bins)`. Tracks of the
`valid` split also hold `mixture_waveform` and `vocals_waveform`, `(channels, samples)` at the feature rate, so that
training measures SDR in dB without the dataset at hand.
"""

import contextlib
import shutil
import uuid
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr

from storage.errors import UserError
from storage.files import value_digest
from storage.manifest import FORMAT, FORMAT_VERSION, MANIFEST_NAME, ArrayRecord, Manifest, TrackRecord
from storage.shards import map_shard, shard_bytes
from storage.track_writer import TEMPORARY_FOLDER

SPLITS = ("train", "valid", "test")
SPECTROGRAMS = ("mixture", "vocals", "accompaniment")


def config_differences(first: dict[str, Any], second: dict[str, Any]) -> str:
    """The fields in which two configurations differ, as `name: first -> second, ...`; empty when they are equal."""
    parts = []
    for name in first | second:
        one, other = first.get(name), second.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            parts.append(config_differences(one, other))
        elif one != other:
            parts.append(f"{name}: {one!r} -> {other!r}")
    return ", ".join(part for part in parts if part)


def require_usable(path: Path, config: dict[str, Any]) -> Manifest | None:
    """Manifest of the store at `path`, None where there is room for a new one; nothing is written.

    Raises
    ------
    UserError
        If a store is there that was made with another configuration, or `path` is something else.
    """
    if (path / MANIFEST_NAME).exists():
        manifest = Manifest.load(path)
        if manifest.config != config:
            raise UserError(
                f"{path}: made with another configuration ({config_differences(manifest.config, config)}); use its "
                "configuration, give another store path, or delete the store"
            )
        return manifest
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists and is not a spectrogram store; give another store path")
    return None


class SpectrogramStore:
    """A spectrogram store on disk and its manifest.

    One process holds a store open for adding tracks; any number read it. Arrays are read-only memory maps.

    Attributes
    ----------
    path
        Folder of the store.
    manifest
        Configuration, dataset and finished tracks.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> "SpectrogramStore":
        """Open an existing store and check that every shard that the manifest names is there in its full size.

        Raises
        ------
        UserError
            If there is no store, its manifest is damaged, or shards are missing or of another size.
        """
        store = cls(path, Manifest.load(path))
        damaged = store.damaged_shards(read_every_byte=False)
        if damaged:
            raise UserError(
                f"{path}: {len(damaged)} damaged shards, first {damaged[0]}; run `vocsep store verify`, "
                "then `make preprocess`, which makes the damaged tracks again"
            )
        return store

    @classmethod
    def open_or_create(
        cls, path: Path, *, config: dict[str, Any], dataset: dict[str, str], tool: str
    ) -> "SpectrogramStore":
        """Open the store at `path` to go on with it, or make an empty one.

        Tracks with missing or resized shards are dropped, so that they are made again.

        Raises
        ------
        UserError
            If a store is there that was made with another configuration, or `path` is something else.
        """
        held = require_usable(path, config)
        if held is not None:
            store = cls(path, held)
            damaged = set(store.damaged_shards(read_every_byte=False))
            store.manifest.tracks = {
                track_id: track
                for track_id, track in store.manifest.tracks.items()
                if damaged.isdisjoint(array.shard for array in track.arrays.values())
            }
            return store
        manifest = Manifest(tool=tool, config=config, config_digest=value_digest(config), dataset=dataset)
        attributes = manifest.model_dump(mode="json", exclude={"tracks"}) | {
            "format": FORMAT,
            "version": FORMAT_VERSION,
        }
        # Renamed when it is whole: a process that dies here leaves nothing that is neither a store nor free.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            root = zarr.create_group(store=temporary, attributes=attributes)
            for split in SPLITS:
                root.create_group(split)
            manifest.save(temporary)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls(path, manifest)

    def add(self, track: TrackRecord) -> None:
        """Name a finished track in the manifest (in memory; `save` makes it last)."""
        self.manifest.tracks[track.id] = track

    def save(self) -> None:
        """Write the manifest, tracks in order of their ids, atomically."""
        self.manifest.tracks = dict(sorted(self.manifest.tracks.items()))
        self.manifest.save(self.path)

    def discard_unfinished(self) -> None:
        """Delete what killed writers left behind; only while no other process writes."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / TEMPORARY_FOLDER)

    def tracks(self, split: str) -> list[TrackRecord]:
        """Finished tracks of `split`, in order of their ids."""
        return sorted(
            (track for track in self.manifest.tracks.values() if track.split == split), key=lambda track: track.id
        )

    def array(self, track: TrackRecord, name: str) -> npt.NDArray[np.generic]:
        """Read-only memory map of one array of a track, in its stored type."""
        record = track.arrays[name]
        return map_shard(self.path / record.shard, record.shape, record.chunk_length, np.dtype(record.dtype))

    def damaged_shards(self, *, read_every_byte: bool = True) -> list[str]:
        """Paths, relative to the store, of shards that are missing, resized or (read whole) changed."""
        return [
            record.shard
            for track in self.manifest.tracks.values()
            for record in track.arrays.values()
            if not _is_intact(self.path / record.shard, record, read_every_byte=read_every_byte)
        ]


def _is_intact(path: Path, record: ArrayRecord, *, read_every_byte: bool) -> bool:
    expected = shard_bytes(record.shape, record.chunk_length, np.dtype(record.dtype).itemsize)
    try:
        if not path.stat().st_size == record.bytes == expected:
            return False
    except FileNotFoundError:
        return False
    return not read_every_byte or google_crc32c.value(path.read_bytes()) == record.crc32c
