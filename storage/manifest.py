"""What a spectrogram store says of itself: configuration, dataset, and one record per finished track."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import UserError
from storage.files import read_json, value_digest, write_json

FORMAT = "vocsep-spectrograms"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"


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

    format: str = FORMAT
    version: int = FORMAT_VERSION
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

    def save(self, store: Path) -> None:
        """Replace the manifest of `store` atomically."""
        write_json(store / MANIFEST_NAME, self.model_dump(mode="json"))

    @classmethod
    def load(cls, store: Path) -> "Manifest":
        """Manifest of `store`.

        Raises
        ------
        UserError
            If there is no store, or the manifest cannot be read or is of another version.
        """
        path = store / MANIFEST_NAME
        if not path.exists():
            raise UserError(f"{store}: no spectrogram store here; run `make preprocess` first")
        try:
            content = read_json(path)
            if content.get("format") != FORMAT or content.get("version") != FORMAT_VERSION:
                raise UserError(
                    f"{path}: format {content.get('format')!r} version {content.get('version')!r}, "
                    f"this program reads {FORMAT!r} version {FORMAT_VERSION}; make the store again"
                )
            manifest = cls.model_validate(content)
        except (ValueError, AttributeError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{path}: damaged manifest ({first}); delete the store and preprocess again") from None
        if value_digest(manifest.config) != manifest.config_digest:
            raise UserError(f"{path}: configuration and its digest disagree; delete the store and preprocess again")
        return manifest
