"""The spectrogram store: one Zarr v3 group per track, one whole shard per array, a manifest that is written last.

Layout: `/<split>/<track id>/{mixture,vocals,accompaniment}`, arrays of shape `(channels, frames, bins)`. Tracks of the
`valid` split also hold `mixture_waveform` and `vocals_waveform`, `(channels, samples)` at the feature rate, so that
training measures SDR in dB without the dataset at hand.
"""

import errno
import os
import time
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from storage.errors import DamagedError, UserError
from storage.files import is_disk_full, remove, size_and_checksum, value_digest, write_atomically, writing_folder
from storage.manifest import MANIFEST_NAME, SPLITS, ArrayRecord, Manifest, TrackRecord
from storage.metadata import METADATA, group_metadata, metadata_checksum, metadata_fault, store_metadata
from storage.shards import open_shard
from storage.track_writer import TEMPORARY_FOLDER

# Of the time, at most this share goes into saving the manifest, which takes longer the more tracks there are.
_SAVE_SHARE = 0.05


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


def require_config(where: object, manifest: Manifest, config: dict[str, Any]) -> None:
    """Raise `UserError` if the store at `where` was made with another configuration."""
    if differences := config_differences(manifest.config, config):
        raise UserError(
            f"{where}: made with another configuration ({differences}); use its configuration, give another store, "
            "or delete this one"
        )


def require_usable(path: Path, config: dict[str, Any]) -> Manifest | None:
    """Manifest of the store at `path`, None where there is room for a new one; nothing is written.

    Raises
    ------
    UserError
        If a store is there that was made with another configuration, or `path` is something else.
    """
    if (path / MANIFEST_NAME).exists():
        manifest = Manifest.load(path)
        require_config(path, manifest, config)
        return manifest
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists and is not a spectrogram store; give another store path")
    return None


def require_own_folders(path: Path) -> None:
    """Raise `UserError` if a split of the store at `path` is a link: what is written there would land elsewhere."""
    for split in SPLITS:
        if (path / split).is_symlink():
            raise UserError(
                f"{path / split}: a link; the folders in a store must be its own. Put the folder itself in its place, "
                "or keep the whole store elsewhere"
            )


class Store(ABC):
    """A manifest, wherever it is; one process adds tracks to it, and saves it now and then.

    Attributes
    ----------
    manifest
        Configuration, dataset and finished tracks.
    """

    save_interval_seconds = 1.0

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._unsaved: list[TrackRecord] = []
        self._saved = time.monotonic()
        self._save_seconds = 0.0

    def tracks(self, split: str) -> list[TrackRecord]:
        """Finished tracks of `split`, in order of their ids."""
        return sorted(
            (track for track in self.manifest.tracks.values() if track.split == split), key=lambda track: track.id
        )

    def add(self, track: TrackRecord) -> None:
        """Name a finished track, and save the manifest unless that was done a moment ago."""
        self.manifest.tracks[track.id] = track
        self._unsaved.append(track)
        interval = max(self.save_interval_seconds, self._save_seconds / _SAVE_SHARE)
        if time.monotonic() - self._saved >= interval:
            self.save()

    def save(self) -> None:
        """Save the manifest, tracks in order of their ids, so that readers see the old one or the new one."""
        started = time.monotonic()
        self.manifest.tracks = dict(sorted(self.manifest.tracks.items()))
        self._put(self.manifest.to_bytes())
        self._saved = time.monotonic()
        self._save_seconds = self._saved - started
        self._unsaved.clear()

    @abstractmethod
    def _put(self, manifest: bytes) -> None: ...


class SpectrogramStore(Store):
    """A spectrogram store on disk and its manifest.

    One process, which holds its lock (`lock.store_lock`), adds tracks; any number read it. Arrays are read-only.

    Attributes
    ----------
    path
        Folder of the store.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.path = path

    @classmethod
    def open(cls, path: Path) -> "SpectrogramStore":
        """Open an existing store and check that every shard that the manifest names exists in its full size.

        Raises
        ------
        UserError
            If there is no store, its manifest is damaged or edited, or shards are missing or of another size.
        """
        while True:
            version = _manifest_version(path)
            store = cls(path, Manifest.load(path))
            for name, metadata in group_metadata(store.manifest).items():
                if fault := metadata_fault(path / name, metadata):
                    raise DamagedError(f"{path / name}: {fault}; run `vocsep store repair`")
            damaged = store.damaged_shards(read_every_byte=False)
            if not damaged:
                return store
            # A writer that has just replaced a track has also replaced the manifest.
            if _manifest_version(path) == version:
                raise DamagedError(
                    f"{path}: {len(damaged)} damaged shards, first {damaged[0]}; run `vocsep store repair`, "
                    "which makes their tracks again"
                )

    @classmethod
    def open_or_create(
        cls, path: Path, *, config: dict[str, Any], dataset: dict[str, str], tool: str
    ) -> "SpectrogramStore":
        """Open the store at `path` to continue it, or make an empty one; of two processes at once, one makes it.

        Tracks with missing or resized shards are dropped, so that they are made again.

        Raises
        ------
        UserError
            If a store is there that was made with another configuration, or `path` is something else.
        """
        held = require_usable(path, config)
        if held is not None:
            require_own_folders(path)
            store = cls(path, held)
            damaged = set(store.damaged_shards(read_every_byte=False))
            store.manifest.tracks = {
                track_id: track
                for track_id, track in store.manifest.tracks.items()
                if damaged.isdisjoint(array.shard for array in track.arrays.values())
            }
            return store
        manifest = Manifest(tool=tool, config=config, config_digest=value_digest(config), dataset=dataset)
        try:
            with writing_folder(path.resolve(), temporary_beside(path)) as temporary:
                write_groups(temporary, manifest)
                manifest.save(temporary)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return cls.open_or_create(path, config=config, dataset=dataset, tool=tool)
        return cls(path, manifest)

    def _put(self, manifest: bytes) -> None:
        write_atomically(self.path / MANIFEST_NAME, manifest)

    def discard_unfinished(self) -> None:
        """Save the manifest and delete all tracks, whole or not, that it does not name; only under the store's lock.

        What takes most room goes first, so that the manifest can be saved where the disk was full. If it still cannot,
        tracks that no saved manifest names make room, the newest first.
        """
        require_own_folders(self.path)
        prefix = _beside_prefix(self.path)
        for entry in self.path.resolve().parent.iterdir():
            if entry.name.startswith(prefix):
                remove(entry)
        remove(self.path / TEMPORARY_FOLDER)
        while True:
            try:
                self.save()
                break
            except OSError as error:
                if not (is_disk_full(error) and self._unsaved):
                    raise
                newest = self._unsaved.pop()
                self.manifest.tracks.pop(newest.id, None)
                remove(self.path / newest.folder)
        for stray in self.strays():
            remove(stray)

    def strays(self) -> list[Path]:
        """What is in the store but belongs to no track that the manifest names: killed writers left it.

        Links are named, and not followed.
        """
        named = {(track.split, track.id) for track in self.manifest.tracks.values()}
        unnamed = [
            entry
            for split in SPLITS
            for entry in _entries(self.path / split)
            if entry.is_dir() and entry.name != METADATA and (split, entry.name) not in named
        ]
        folder = self.path / TEMPORARY_FOLDER
        temporary = [folder] if folder.is_symlink() else _entries(folder)
        return unnamed + temporary + sorted(self.path.glob(f".{MANIFEST_NAME}.*"))

    def array(self, track: TrackRecord, name: str) -> npt.NDArray[np.generic]:
        """One array of a track, read-only and in its stored type; a memory map, or decoded where it is compressed."""
        record = track.arrays[name]
        return open_shard(self.path / record.shard, record)[...]

    def damaged_shards(self, *, read_every_byte: bool = True) -> list[str]:
        """Paths, relative to the store, of shards that are missing, resized or (read whole) changed."""
        return [
            record.shard
            for track in self.manifest.tracks.values()
            for record in track.arrays.values()
            if shard_damage(self.path, record, read_every_byte=read_every_byte)
        ]


def is_intact(store_path: Path, track: TrackRecord) -> bool:
    """Whether every byte of a track's shards is as its record says."""
    return not any(shard_damage(store_path, record, read_every_byte=True) for record in track.arrays.values())


def shard_damage(store_path: Path, record: ArrayRecord, *, read_every_byte: bool) -> str:
    """What is wrong with a shard, in words; empty if nothing is."""
    # Not a Path, which costs more than the look at the disk: a large store has tens of thousands of shards.
    path = f"{store_path}/{record.shard}"
    try:
        size = os.stat(path).st_size  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if size != record.bytes:
        return f"{size} bytes instead of {record.bytes}"
    if not read_every_byte:
        return ""
    return "" if size_and_checksum(Path(path))[1] == record.crc32c else "its bytes changed"


def write_groups(path: Path, manifest: Manifest) -> None:
    """Make the Zarr groups of a store at `path`, root and splits, where there are none; note them in the manifest."""
    attributes = manifest.model_dump(mode="json", exclude={"tracks", "metadata"})
    root = zarr.open_group(path, mode="a", attributes=attributes)
    for split in SPLITS:
        root.require_group(split)
    manifest.metadata = {name: metadata_checksum(path / name) for name in store_metadata()}


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing if it is missing or a link."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def temporary_beside(path: Path) -> Path:
    """A new name next to a store, for what is to become the store or was it; leftovers go with unfinished tracks."""
    whole = path.resolve()
    return whole.with_name(f"{_beside_prefix(path)}{uuid.uuid4().hex}")


def _beside_prefix(path: Path) -> str:
    return f".{path.resolve().name}.unfinished-"


def _manifest_version(path: Path) -> tuple[int, int]:
    """Tells one state of a store's manifest from another."""
    try:
        status = (path / MANIFEST_NAME).stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
