"""What a spectrogram store says of itself: configuration, dataset, and one record per finished track."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import UserError
from storage.files import value_digest, write_atomically

SPLITS = ("train", "valid", "test")
SPECTROGRAMS = ("mixture", "vocals", "accompaniment")


FORMAT: Literal["vocsep-spectrograms"] = "vocsep-spectrograms"
FORMAT_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"

_NO_DIGEST = "0" * 64


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
    def bytes(self) -> int:
        """Bytes of all shards of the track."""
        return sum(array.bytes for array in self.arrays.values())


class Manifest(BaseModel):
    """Content of a store. A track that is not named here does not exist, whatever lies on disk.

    `config` holds the spectral configuration and all else that decides the stored values; `dataset` says where the
    songs came from (its kind and root folder).
    """

    model_config = ConfigDict(extra="forbid")

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
        sealed = _SealedManifest.model_construct(
            **dict(self), track_digests={key: _track_digest(track) for key, track in self.tracks.items()}
        )
        content = sealed.model_dump_json(indent=1).encode() + b"\n"
        before, _, after = content.rpartition(_NO_DIGEST.encode())
        return before + _digest(content, _NO_DIGEST).encode() + after

    def save(self, store: Path) -> None:
        """Replace the manifest of `store` atomically."""
        write_atomically(store / MANIFEST_NAME, self.to_bytes())

    @classmethod
    def load(cls, store: Path) -> "Manifest":
        """Manifest of `store`.

        Raises
        ------
        UserError
            If there is no store, or its manifest cannot be read, is of another version or was edited.
        """
        found = read_manifest(store)
        if not found.is_as_written:
            raise UserError(f"{store / MANIFEST_NAME}: edited since it was written; run `vocsep store repair`")
        if value_digest(found.manifest.config) != found.manifest.config_digest:
            raise UserError(
                f"{store / MANIFEST_NAME}: configuration and its digest disagree; delete the store and preprocess again"
            )
        return found.manifest


class _SealedManifest(Manifest):
    """A manifest as it lies on disk.

    `digest` is the SHA-256 of the whole file, taken with zeros in its own place. Where it disagrees, `track_digests`
    tell which tracks' records were edited. Manifests of before there were digests have none.
    """

    track_digests: dict[str, str] = {}
    digest: str = _NO_DIGEST


@dataclass(frozen=True)
class FoundManifest:
    """A manifest as it was found: whether it is as it was written, and if not, keys of tracks that were edited."""

    manifest: Manifest
    is_as_written: bool
    edited: frozenset[str]


def read_manifest(store: Path) -> FoundManifest:
    """Manifest of `store`, edited or not.

    Raises
    ------
    UserError
        If there is no store, or its manifest cannot be read or is of another version.
    """
    path = store / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{store}: no spectrogram store here; run `make preprocess` first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        sealed = _SealedManifest.model_validate_json(content)
    except ValidationError as error:
        _require_version(path, content)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise UserError(
            f"{path}: damaged manifest ({where}: {first['msg']}); delete the store and preprocess again"
        ) from None
    manifest = Manifest.model_construct(**{name: getattr(sealed, name) for name in Manifest.model_fields})
    if sealed.digest == _NO_DIGEST or _digest(content, sealed.digest) == sealed.digest:
        return FoundManifest(manifest, is_as_written=True, edited=frozenset())
    edited = {key for key, track in manifest.tracks.items() if sealed.track_digests.get(key) != _track_digest(track)}
    return FoundManifest(manifest, is_as_written=False, edited=frozenset(edited))


def _require_version(path: Path, content: bytes) -> None:
    """Raise `UserError` if a manifest says of itself that it is of another format or version."""
    with contextlib.suppress(ValueError):
        fields = json.loads(content)
        if isinstance(fields, dict) and (fields.get("format"), fields.get("version")) != (FORMAT, FORMAT_VERSION):
            raise UserError(
                f"{path}: format {fields.get('format')!r} version {fields.get('version')!r}, "
                f"this program reads {FORMAT!r} version {FORMAT_VERSION}; make the store again"
            )


def _digest(content: bytes, written: str) -> str:
    """Digest of a manifest file's bytes, in which the digest `written` counts as zeros."""
    before, _, after = content.rpartition(f'"{written}"'.encode())
    return hashlib.sha256(before + f'"{_NO_DIGEST}"'.encode() + after).hexdigest()


def _track_digest(track: TrackRecord) -> str:
    return hashlib.sha256(track.model_dump_json().encode()).hexdigest()
