"""What a spectrogram store says of itself: configuration, dataset, and one record per finished track."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import DamagedError, NotFound, UserError, one_line
from storage.files import value_digest, write_atomically

SPLITS = ("train", "valid", "test")
SPECTROGRAMS = ("mixture", "vocals", "accompaniment")

FORMAT: Literal["vocsep-spectrograms"] = "vocsep-spectrograms"
FORMAT_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"

_END = b'"\n}\n'


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
    """One array of a track: `shard` is its only shard file, relative to the store."""

    shard: str
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32"]
    chunk_length: int
    bytes: int
    crc32c: int


class TrackRecord(Record):
    """A finished track: what it was made from and what lies in the store."""

    id: str
    name: str
    split: str
    channels: int
    frames: int
    seconds: float
    sources: tuple[SourceFile, ...]
    arrays: dict[str, ArrayRecord]

    @property
    def folder(self) -> str:
        """Folder of the track, relative to the store."""
        return f"{self.split}/{self.id}"

    @property
    def bytes(self) -> int:
        """Bytes of all shards of the track."""
        return sum(array.bytes for array in self.arrays.values())


class Manifest(BaseModel):
    """Content of a store. A track that is not named here does not exist, whatever lies on disk.

    `config` holds the spectral configuration and all else that decides the stored values; `dataset` says where the
    songs came from (its kind and root folder). The file ends with a digest of itself, so that edits are noticed.
    """

    # The digest is no field; manifests of version 0.1.0 also hold digests of tracks.
    model_config = ConfigDict(extra="ignore")

    format: Literal["vocsep-spectrograms"] = FORMAT
    version: Literal[1] = FORMAT_VERSION
    tool: str
    config: dict[str, Any]
    config_digest: str
    dataset: dict[str, str]
    tracks: dict[str, TrackRecord] = {}

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

    def save(self, store: Path) -> None:
        """Replace the manifest of `store` atomically."""
        write_atomically(store / MANIFEST_NAME, self.to_bytes())

    @classmethod
    def load(cls, store: Path) -> "Manifest":
        """Manifest of `store`.

        Raises
        ------
        NotFound
            If there is no store.
        UserError
            If its manifest cannot be read, is of another version or was edited.
        """
        manifest, is_as_written = read_manifest(store)
        require_as_written(store / MANIFEST_NAME, is_as_written)
        return manifest


def require_as_written(where: object, is_as_written: bool) -> None:
    """Raise `DamagedError` for a manifest that was edited."""
    if not is_as_written:
        raise DamagedError(f"{where}: edited since it was written; run `vocsep store repair`")


def read_manifest(store: Path) -> tuple[Manifest, bool]:
    """Manifest of `store`, edited or not, and whether it is as it was written; see `Manifest.load`."""
    path = store / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{store}: no spectrogram store here; run `make preprocess` first") from None
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
        fields = json.loads(content)
    except ValueError:
        return
    if isinstance(fields, dict) and (fields.get("format"), fields.get("version")) != (FORMAT, FORMAT_VERSION):
        raise UserError(
            f"{where}: format {fields.get('format')!r} version {fields.get('version')!r}, "
            f"this program reads {FORMAT!r} version {FORMAT_VERSION}; make the store again"
        )


def _digest(body: bytes) -> bytes:
    """SHA-256 of a manifest's file, taken with zeros in its own place; `body` is what stands before it."""
    return hashlib.sha256(body + b"0" * 64 + _END).hexdigest().encode()
