"""What a spectrogram store says of itself: configuration, dataset, and one record per finished track."""

import hashlib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.calling import call
from storage.errors import DamagedError, NotFound, UserError, one_line
from storage.files import parse_json, read_whole, value_digest, write_atomically

SPLITS = ("train", "valid", "test")
SPECTROGRAMS = ("mixture", "vocals", "accompaniment")

FORMAT: Literal["vocsep-spectrograms"] = "vocsep-spectrograms"
FORMAT_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"

# Of a chunk that is decoded whole, however long the array.
MOST_CHUNK_BYTES = 1 << 26
INDEX_BYTES = 16
"""Of a shard's index, for each chunk."""

_END = b'"\n}\n'
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")

Size = Annotated[int, Field(ge=0, lt=1 << 62)]
Checksum = Annotated[int, Field(ge=0, lt=1 << 32)]


class Record(BaseModel):
    """Base of everything in the manifest: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFile(Record):
    """A file that a track was made from, by absolute path. Size and time tell cheaply whether it changed."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str


class ArrayRecord(Record):
    """One array of a track: `shard` is its only shard file, relative to the store.

    `metadata_crc32c` is of its `zarr.json`; stores of earlier versions lack it.
    """

    shard: str
    shape: tuple[Size, ...]
    dtype: Literal["float16", "float32"]
    chunk_length: int = Field(ge=1, lt=1 << 62)
    bytes: Size
    crc32c: Checksum
    metadata_crc32c: Checksum | None = None


class TrackRecord(Record):
    """A finished track: what it was made from and what is in the store; `metadata_crc32c` is of its `zarr.json`."""

    id: str
    name: str
    split: str
    channels: Size
    frames: Size
    seconds: float = Field(ge=0, allow_inf_nan=False)
    sources: tuple[SourceFile, ...]
    arrays: dict[str, ArrayRecord]
    metadata_crc32c: Checksum | None = None

    @property
    def folder(self) -> str:
        """Folder of the track, relative to the store."""
        return f"{self.split}/{self.id}"

    @property
    def bytes(self) -> int:
        """Bytes of all shards of the track."""
        return sum(array.bytes for array in self.arrays.values())


class Manifest(BaseModel):
    """Content of a store. A track that is not named here does not exist, even if it is on disk.

    `config` holds the spectral configuration and all else that decides the stored values; `dataset` says where the
    songs came from (its kind and root folder); `metadata` has the CRC-32C of every `zarr.json` that belongs to no
    track, by its path, and is empty in stores of earlier versions. The file ends with a digest of itself, so that edits
    are noticed.
    """

    # The digest is no field; manifests of version 0.1.0 also hold digests of tracks.
    model_config = ConfigDict(extra="ignore")

    format: Literal["vocsep-spectrograms"] = FORMAT
    version: Literal[1] = FORMAT_VERSION
    tool: str
    config: dict[str, Any]
    config_digest: str
    dataset: dict[str, str]
    metadata: dict[str, Checksum] = {}
    tracks: dict[str, TrackRecord] = {}

    @property
    def kind(self) -> str:
        """The dataset's kind; empty where a manifest says none."""
        return self.dataset.get("kind", "")

    @property
    def root(self) -> str:
        """The dataset's folder; empty where a manifest says none."""
        return self.dataset.get("root", "")

    @property
    def data_digest(self) -> str:
        """Digest of the configuration and of every stored byte, but of no path and no time."""
        arrays = {
            track.id: {name: array.crc32c for name, array in track.arrays.items()} for track in self.tracks.values()
        }
        return value_digest({"config": self.config_digest, "arrays": arrays})

    def to_bytes(self) -> bytes:
        """The manifest as a file, sealed with its digest."""
        body = self.model_dump_json(indent=1).encode().removesuffix(b"\n}") + b',\n "digest": "'
        return body + _digest(body) + _END

    def save(self, store_path: Path) -> None:
        """Replace the manifest of `store_path` atomically."""
        write_atomically(store_path / MANIFEST_NAME, self.to_bytes())

    @classmethod
    def load(cls, store_path: Path) -> "Manifest":
        """Manifest of `store_path`.

        Raises
        ------
        NotFound
            If there is no store.
        UserError
            If its manifest cannot be read, is of another version or was edited.
        """
        manifest, is_as_written = read_manifest(store_path)
        require_usable_records(store_path / MANIFEST_NAME, manifest, is_as_written)
        return manifest


def shard_path(folder: str, name: str, dimensions: int) -> str:
    """Where the shard of an array is in a track's folder; relative to what the folder is relative to."""
    return "/".join([folder, name, "c", *["0"] * dimensions])


def record_fault(key: str, track: TrackRecord) -> str:
    """What is wrong with the record of a track, in words; empty if nothing is.

    Split and id alone say where a track is: a record with another place, or with impossible sizes, must not be
    followed.
    """
    if key != track.id or not _FOLDER.fullmatch(key):
        return f"is of an id {track.id!r}"
    if track.split not in SPLITS:
        return f"is of a split {track.split!r}"
    if not track.arrays:
        return "names no arrays"
    for name, array in track.arrays.items():
        if not _FOLDER.fullmatch(name):
            return f"names an array {name!r}"
        if array.shard != shard_path(track.folder, name, len(array.shape)):
            return f"names a shard {array.shard!r}, which is not in its own place"
        is_apart = name in SPECTROGRAMS and array.shape[:2] != (track.channels, track.frames)
        if is_apart or len(array.shape) not in (2, 3) or 0 in (array.shape[0], *array.shape[2:]):
            return f"contradicts itself ({name} of shape {array.shape})"
        chunks = array.shape[0] * max(1, -(-array.shape[1] // array.chunk_length))
        chunk_bytes = math.prod((array.chunk_length, *array.shape[2:])) * np.dtype(array.dtype).itemsize
        if chunks * INDEX_BYTES > array.bytes or chunk_bytes > MOST_CHUNK_BYTES:
            return f"contradicts itself ({name} of shape {array.shape} in chunks of {array.chunk_length})"
    return ""


def require_usable_records(where: object, manifest: Manifest, is_as_written: bool) -> None:
    """Raise `DamagedError` for a manifest that was edited, or that has records which are not to be followed."""
    if not is_as_written:
        raise DamagedError(f"{where}: edited since it was written; run `vocsep store repair`")
    for key, track in manifest.tracks.items():
        if fault := record_fault(key, track):
            raise DamagedError(f"{where}: the record of {key!r} {fault}; run `vocsep store repair`")


def read_manifest(store_path: Path) -> tuple[Manifest, bool]:
    """Manifest of `store_path`, edited or not, and whether it is as it was written; see `Manifest.load`."""
    path = store_path / MANIFEST_NAME
    try:
        content = read_whole(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{store_path}: no spectrogram store here; run `{call('preprocess', 'preprocess')}` first"
        ) from None
    except OSError as error:
        raise one_line(path, "read", error) from None
    return parse_manifest(content, path)


def parse_manifest(content: bytes, where: object) -> tuple[Manifest, bool]:
    """Manifest of a file's bytes, and whether they are as they were written.

    Raises
    ------
    UserError
        If it is none, or of another version, or its configuration was edited.
    """
    again = "delete the store and preprocess again"
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        _require_version(where, content)
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise DamagedError(f"{where}: damaged manifest ({field}: {first['msg']}); {again}") from None
    if value_digest(manifest.config) != manifest.config_digest:
        raise DamagedError(f"{where}: configuration and its digest disagree; {again}")
    body = content[: -64 - len(_END)]
    return manifest, content == body + _digest(body) + _END


def _require_version(where: object, content: bytes) -> None:
    """Raise `UserError` if a manifest says of itself that it is of another format or version."""
    try:
        fields = parse_json(content)
    except ValueError:
        return
    if isinstance(fields, dict) and (fields.get("format"), fields.get("version")) != (FORMAT, FORMAT_VERSION):
        raise UserError(
            f"{where}: format {fields.get('format')!r} version {fields.get('version')!r}, "
            f"this program reads {FORMAT!r} version {FORMAT_VERSION}; make the store again"
        )


def _digest(body: bytes) -> bytes:
    """SHA-256 of a manifest's file, taken with zeros in its own place; `body` is what precedes it."""
    return hashlib.sha256(body + b"0" * 64 + _END).hexdigest().encode()
