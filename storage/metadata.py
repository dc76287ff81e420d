"""The `zarr.json` files of a store: what each must contain, and whether it does, byte for byte where that is known."""

from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from storage.errors import DamagedError
from storage.files import parse_json, read_whole
from storage.layout import chunk_shape, padded_shape
from storage.manifest import SPLITS, ArrayRecord, Manifest, TrackRecord

METADATA = "zarr.json"

_PLAIN = {"name": "bytes", "configuration": {"endian": "little"}}
_COMPRESSORS = ("zstd", "blosc")
_GROUP = {"zarr_format": 3, "node_type": "group"}
_AXES = {2: ["channel", "sample"], 3: ["channel", "frame", "bin"]}


class Metadata(NamedTuple):
    """What is known of a `zarr.json`.

    Attributes
    ----------
    expected
        Fields of it, and what they must be.
    crc32c
        Of its bytes; None in stores of earlier versions.
    """

    expected: dict[str, Any]
    crc32c: int | None


def store_metadata() -> list[str]:
    """Paths, relative to a store, of the metadata files that belong to no track."""
    return [METADATA, *(f"{split}/{METADATA}" for split in SPLITS)]


def group_metadata(manifest: Manifest) -> dict[str, Metadata]:
    """Path, relative to the store, of every metadata file that belongs to no track, and what is known of it."""
    return {name: Metadata(_GROUP, manifest.metadata.get(name)) for name in store_metadata()}


def track_metadata(track: TrackRecord) -> dict[str, Metadata]:
    """Path, relative to the store, of every metadata file of a track, and what is known of it."""
    attributes = {"name": track.name, "seconds": track.seconds}
    group = Metadata(_GROUP | {"attributes": attributes}, track.metadata_crc32c)
    return {f"{track.folder}/{METADATA}": group} | {
        f"{track.folder}/{name}/{METADATA}": array_metadata(record) for name, record in track.arrays.items()
    }


def array_metadata(record: ArrayRecord) -> Metadata:
    """What is known of the metadata of an array."""
    chunks = {"chunk_shape": list(padded_shape(record.shape, record.chunk_length))}
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(record.shape),
        "data_type": record.dtype,
        "chunk_grid": {"name": "regular", "configuration": chunks},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "attributes": {},
        "storage_transformers": [],
    }
    return Metadata(expected | _sharding(record), record.metadata_crc32c)


def _sharding(record: ArrayRecord) -> dict[str, Any]:
    configuration = {
        "chunk_shape": list(chunk_shape(record.shape, record.chunk_length)),
        "index_codecs": [_PLAIN, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {"codecs": configuration}


def metadata_fault(path: Path, metadata: Metadata) -> str:
    """What is wrong with a metadata file, in words; empty if nothing is."""
    try:
        return content_fault(read_whole(path), metadata)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def content_fault(content: bytes, metadata: Metadata) -> str:
    """What is wrong with the bytes of a metadata file, in words; empty if nothing is."""
    try:
        found = parse_json(content)
    except ValueError:
        return "not JSON"
    if not isinstance(found, dict) or not _says(found, metadata.expected):
        return "differs from the manifest"
    if metadata.crc32c is not None and google_crc32c.value(content) != metadata.crc32c:
        return "its bytes changed"
    return ""


def _says(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether fields are what they must be, and there are no others that change what is read."""
    codecs = expected.get("codecs")
    others = found.keys() - expected.keys() - {"attributes", "dimension_names", "consolidated_metadata"}
    axes = _AXES.get(len(found["shape"])) if isinstance(found.get("shape"), list) else None
    return (
        not others
        and found.get("dimension_names") in (None, axes)
        and found.get("consolidated_metadata") is None
        and all(found.get(name) == value for name, value in expected.items() if name != "codecs")
        and (codecs is None or _inner_codecs(found, codecs) is not None)
    )


def _inner_codecs(found: dict[str, Any], sharding: dict[str, Any] | None = None) -> list[Any] | None:
    """The codecs of an array's chunks; None where they are not those that vocsep knows."""
    try:
        (codec,) = found["codecs"]
        settings = codec["configuration"]
        first, *rest = settings["codecs"]
        is_known = codec["name"] == "sharding_indexed" and first == _PLAIN and len(rest) <= 1
        is_known &= all(one["name"] in _COMPRESSORS for one in rest)
        is_known &= sharding is None or settings == sharding | {"codecs": settings["codecs"]}
    except (KeyError, TypeError, ValueError):
        return None
    return [first, *rest] if is_known else None


def compressor_of(array: Path, record: ArrayRecord) -> str | None:
    """What the chunks of the array in a folder are compressed with; None where they are plain little-endian values.

    Raises
    ------
    DamagedError
        If the metadata is missing, or is not what the record says.
    """
    path = array / METADATA
    if fault := metadata_fault(path, array_metadata(record)):
        raise DamagedError(f"{path}: {fault}; run `vocsep store verify`")
    _, *compressors = _inner_codecs(parse_json(read_whole(path))) or [_PLAIN]
    return compressors[0]["name"] if compressors else None


def metadata_checksum(path: Path) -> int:
    """CRC-32C of a metadata file."""
    checksum: int = google_crc32c.value(path.read_bytes())
    return checksum
