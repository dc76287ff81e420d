"""What in a store is not as it was written, and dropping exactly that."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from storage.files import read_json
from storage.lock import holder, lock_path
from storage.manifest import MANIFEST_NAME, SPECTROGRAMS, SPLITS, Manifest, TrackRecord, read_manifest, record_fault
from storage.store import SpectrogramStore, require_own_folders, shard_damage, write_groups

_METADATA = "zarr.json"


class Problem(NamedTuple):
    """Something in a store that is not as it was written.

    Attributes
    ----------
    what
        What and where, in one line; paths are relative to the store.
    track
        Name of the track that it damages; empty where it is the track of none.
    """

    what: str
    track: str


EDITED = Problem(f"{MANIFEST_NAME}: edited since it was written", "")


def problems(path: Path, on_bytes: Callable[[int, int], object] | None = None) -> list[Problem]:
    """Read every byte of the store at `path` and say what is not as it was written; nothing is changed.

    Found are: missing, resized and changed shards, metadata from which plain zarr would read something else, a
    manifest that was edited, and what killed writers left behind (not while a living writer holds the store's
    lock, since these are then its tracks in work).

    Parameters
    ----------
    on_bytes
        Called with how many of how many bytes were read.

    Raises
    ------
    UserError
        If there is no store, or its manifest cannot be read at all.
    """
    is_being_written = bool(holder(lock_path(path)))
    manifest, is_as_written = read_manifest(path)
    store = SpectrogramStore(path, manifest)
    by_track = {}
    total = sum(track.bytes for track in manifest.tracks.values())
    done = 0
    for key, track in manifest.tracks.items():
        by_track[key] = list(_track_problems(path, key, track))
        done += track.bytes
        if on_bytes is not None:
            on_bytes(done, total)
    if is_being_written:
        # Its writer drops a track from the manifest before it replaces its files: what is gone by now was not damaged.
        current = read_manifest(path)[0].tracks
        by_track = {key: damage for key, damage in by_track.items() if current.get(key) == manifest.tracks[key]}
    named = [] if is_as_written else [EDITED]
    named += [problem for damage in by_track.values() for problem in damage]
    named += [Problem(what, "") for what in _group_problems(path, manifest).values()]
    if not is_being_written:
        named += [
            Problem(f"{stray.relative_to(path)}: left behind by a killed writer, in no manifest", "")
            for stray in store.strays()
        ]
    return named


def drop_damaged(path: Path) -> tuple[SpectrogramStore, list[TrackRecord], set[str]]:
    """Drop whatever `problems` names from the store at `path`; only under the store's lock.

    Of a manifest that was edited, what agrees with the stored files stays.

    Returns
    -------
    store, damaged, half_written
        The store, whose manifest names its intact tracks alone; the tracks that were dropped; and ids of tracks that
        no manifest named, which were deleted.

    Raises
    ------
    UserError
        If there is no store, or its manifest cannot be read.
    """
    require_own_folders(path)
    manifest, _ = read_manifest(path)
    store = SpectrogramStore(path, manifest)
    keys = [key for key, track in manifest.tracks.items() if any(True for _ in _track_problems(path, key, track))]
    half_written = {stray.name for stray in store.strays() if stray.parent.name in SPLITS}
    damaged = [manifest.tracks.pop(key) for key in keys]
    for metadata in _group_problems(path, manifest):
        metadata.unlink(missing_ok=True)
    write_groups(path, manifest)
    store.discard_unfinished()
    return store, damaged, half_written


def record_problems(key: str, track: TrackRecord) -> list[Problem]:
    """What is wrong with a record of the manifest, as may be with one that was edited; its files are not looked at."""
    fault = record_fault(key, track)
    if not fault and not any(name in track.arrays for name in SPECTROGRAMS):
        fault = "names no spectrograms"
    return [Problem(f"{MANIFEST_NAME}: the record of {key!r} {fault}", track.name)] if fault else []


def _track_problems(path: Path, key: str, track: TrackRecord) -> Iterator[Problem]:
    if faults := record_problems(key, track):
        yield from faults
        return
    for record in track.arrays.values():
        if damage := shard_damage(path, record, read_every_byte=True):
            yield Problem(f"{record.shard}: {damage}", track.name)
    for metadata, expected in track_metadata(track).items():
        if damage := _metadata_damage(path / metadata, expected):
            yield Problem(f"{metadata}: {damage}", track.name)
    for extra in sorted({array.name for array in (path / track.folder).glob("*/")} - track.arrays.keys()):
        yield Problem(f"{track.folder}/{extra}: not in the manifest", track.name)


def store_metadata() -> list[str]:
    """Paths, relative to a store, of the metadata files that belong to no track."""
    return [_METADATA, *(f"{split}/{_METADATA}" for split in SPLITS)]


def track_metadata(track: TrackRecord) -> dict[str, dict[str, Any]]:
    """Path, relative to the store, of every metadata file of a track, and what must stand in it."""
    attributes = {"name": track.name, "seconds": track.seconds}
    return {f"{track.folder}/{_METADATA}": {"node_type": "group", "attributes": attributes}} | {
        f"{track.folder}/{name}/{_METADATA}": {
            "node_type": "array",
            "shape": list(record.shape),
            "data_type": record.dtype,
        }
        for name, record in track.arrays.items()
    }


def _group_problems(path: Path, manifest: Manifest) -> dict[Path, str]:
    """Metadata files of the store's own groups that are not as they were written, and what is wrong with them."""
    found = {}
    head = {"config": manifest.config, "config_digest": manifest.config_digest}
    for metadata in (path / name for name in store_metadata()):
        damage = _metadata_damage(metadata, {"node_type": "group"})
        if not damage and metadata.parent == path:
            attributes = read_json(metadata).get("attributes")
            if not isinstance(attributes, dict) or any(attributes.get(name) != value for name, value in head.items()):
                damage = "differs from the manifest"
        if damage:
            found[metadata] = f"{metadata.relative_to(path)}: {damage}"
    return found


def _metadata_damage(path: Path, expected: dict[str, Any]) -> str:
    """What is wrong with a metadata file, in words; empty if all that is `expected` stands in it."""
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except ValueError:
        return "not JSON"
    if not isinstance(content, dict) or any(content.get(name) != value for name, value in expected.items()):
        return "differs from the manifest"
    return ""
