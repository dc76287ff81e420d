"""What in a store is not as it was written, and dropping exactly that."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from storage.files import read_json, remove
from storage.lock import holder, lock_path
from storage.manifest import MANIFEST_NAME, SPECTROGRAMS, SPLITS, Manifest, TrackRecord, read_manifest, record_fault
from storage.metadata import METADATA, group_metadata, metadata_fault, track_metadata
from storage.store import SpectrogramStore, require_own_folders, shard_damage, write_groups
from storage.track_writer import TEMPORARY_FOLDER


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

    Found are: missing, resized and changed shards and metadata, a manifest that was edited, files that nobody names,
    and what killed writers left behind (the last two not while a living writer holds the store's lock, since these may
    then be its tracks in work).

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
        strays = store.strays()
        named += [
            Problem(f"{stray.relative_to(path)}: left behind by a killed writer, in no manifest", "")
            for stray in strays
        ]
        named += [
            Problem(f"{extra.relative_to(path)}: in no manifest", "") for extra in _extras(path, manifest, strays)
        ]
    return named


def drop_damaged(path: Path) -> tuple[SpectrogramStore, list[TrackRecord], set[str]]:
    """Drop everything that `problems` names from the store at `path`; only under the store's lock.

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
    strays = store.strays()
    half_written = {stray.name for stray in strays if stray.parent.name in SPLITS}
    damaged = [manifest.tracks.pop(key) for key in keys]
    for metadata in _group_problems(path, manifest):
        remove(metadata)
    for extra in _extras(path, manifest, strays):
        remove(extra)
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
    for name, metadata in track_metadata(track).items():
        if damage := metadata_fault(path / name, metadata):
            yield Problem(f"{name}: {damage}", track.name)
    for extra in sorted({array.name for array in (path / track.folder).glob("*/")} - track.arrays.keys()):
        yield Problem(f"{track.folder}/{extra}: not in the manifest", track.name)


def _group_problems(path: Path, manifest: Manifest) -> dict[Path, str]:
    """Metadata files of the store's own groups that are not as they were written, and what is wrong with them."""
    found = {}
    head = {"config": manifest.config, "config_digest": manifest.config_digest}
    for name, metadata in group_metadata(manifest).items():
        damage = metadata_fault(path / name, metadata)
        if not damage and name == METADATA:
            attributes = read_json(path / name).get("attributes")
            if not isinstance(attributes, dict) or any(attributes.get(field) != value for field, value in head.items()):
                damage = "differs from the manifest"
        if damage:
            found[path / name] = f"{name}: {damage}"
    return found


def _extras(path: Path, manifest: Manifest, strays: list[Path]) -> list[Path]:
    """Files and links in a store that nobody names, other than strays and the folders next to a track's arrays."""
    named = {MANIFEST_NAME, *group_metadata(manifest)}
    for track in manifest.tracks.values():
        named.update(track_metadata(track), (array.shard for array in track.arrays.values()))
    folders = {str(parent) for name in named for parent in Path(name).parents}
    tracks = {track.folder for track in manifest.tracks.values()}
    extras = []
    for root, inner, files in os.walk(path):
        here = Path(root)
        place = here.relative_to(path)
        unnamed = {name for name in inner if str(place / name) not in folders}
        links = [name for name in unnamed if (here / name).is_symlink()]
        extras += [here / name for name in sorted(files + links) if str(place / name) not in named]
        apart = unnamed if str(place) in tracks else {name for name in unnamed if here / name in strays}
        inner[:] = sorted(set(inner) - apart)
    return [extra for extra in extras if extra not in strays and extra.parent != path / TEMPORARY_FOLDER]
