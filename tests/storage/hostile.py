"""Manifests whose records lead elsewhere, or ask for more than there is; sealed as if vocsep had written them."""

from pathlib import Path
from typing import Any

from storage.manifest import Manifest


def _shard(place: str) -> dict[str, Any]:
    return {"arrays": {"vocals": {"shard": place}}}


def records(elsewhere: Path) -> dict[str, dict[str, Any]]:
    """Changes of a record, by name; `elsewhere` is a file outside the store."""
    return {
        "absolute shard": _shard(str(elsewhere)),
        "shard above": _shard(f"train/../../{elsewhere.name}"),
        "shard of the store's own": _shard("manifest.json"),
        "empty shard": _shard(""),
        "split above": {"split": ".."},
        "unknown split": {"split": "other"},
        "absolute split": {"split": str(elsewhere.parent)},
        "id above": {"id": "../../x"},
        "array above": {"arrays": {"../x": {}}},
        "no arrays": {"arrays": None},
        "endless": {"arrays": {"vocals": {"shape": (2, 1 << 60, 8)}}, "frames": 1 << 60},
        "endless chunk": {"arrays": {"vocals": {"chunk_length": 1 << 60}}},
        "no bins": {"arrays": {"vocals": {"shape": (2, 300, 0)}}},
    }


def spoil(content: bytes, key: str, change: dict[str, Any]) -> bytes:
    """A manifest with one record changed."""
    manifest = Manifest.model_validate_json(content)
    track = manifest.tracks[key]
    changed: dict[str, Any] = {}
    for name, value in change.items():
        if name == "arrays":
            old = track.arrays["vocals"]
            changed["arrays"] = {other: old.model_copy(update=fields) for other, fields in (value or {}).items()}
        else:
            changed[name] = value
    manifest.tracks[key] = track.model_copy(update=changed)
    return manifest.to_bytes()
