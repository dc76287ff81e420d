"""Local copies of stores at a URL, every shard of which is compared with its digest whenever the copy is asked for."""

import hashlib
import re
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

from storage.errors import DamagedError, UserError, one_line
from storage.files import free_bytes, remove
from storage.lock import store_lock
from storage.manifest import MANIFEST_NAME, SPLITS, ArrayRecord, Manifest, TrackRecord
from storage.metadata import Metadata, group_metadata, metadata_fault, track_metadata
from storage.remote.store import RemoteStore, same_tracks
from storage.remote.transfer import OnBytes, checked, checked_metadata, in_parallel, remote_blocks
from storage.store import SpectrogramStore, require_own_folders, shard_damage
from storage.track_writer import TEMPORARY_FOLDER


def mirror_path(url: str, cache: Path) -> Path:
    """Folder inside `cache` for the copy of the store at `url`."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url.removesuffix(".zarr"))[-60:].strip("-")
    return cache / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}.zarr"


def fetch(url: str, cache: Path, *, splits: Collection[str] = SPLITS, on_bytes: OnBytes | None = None) -> Path:
    """Make a local store that equals the songs of `splits` at `url`, in its own folder in `cache`; return it.

    Every byte of the copy is read and compared with the manifest at `url`; only what is missing or differs is copied,
    and what is no longer wanted is deleted. A copy that was interrupted is no store yet, or the old one without the
    tracks that changed; the next call resumes with what has arrived.

    Raises
    ------
    UserError
        If there is no store at `url`, it cannot be reached or is damaged, the disk is full, or another process makes
        the same copy. Where single tracks are damaged, all others were copied.
    """
    folder = mirror_path(url, cache)
    remote = RemoteStore.open(url)
    tracks = {key: track for key, track in remote.manifest.tracks.items() if track.split in splits}
    wanted = remote.manifest.model_copy(update={"tracks": tracks})
    try:
        with store_lock(folder):
            require_own_folders(folder)
            remove(folder / TEMPORARY_FOLDER)
            (folder / TEMPORARY_FOLDER).mkdir(parents=True)
            _forget(folder, wanted)
            _require_room(folder, wanted)
            damaged = _copy(remote, folder, wanted, on_bytes)
            wanted.tracks = {key: track for key, track in tracks.items() if key not in damaged}
            wanted.save(folder)
            remove(folder / TEMPORARY_FOLDER)
    except OSError as error:
        raise one_line(folder, "written", error) from None
    if damaged:
        raise UserError(
            f"{url}: {len(damaged)} of {len(tracks)} tracks are damaged or just being replaced, first "
            f"{tracks[damaged[0]].name!r}; try again, or run `vocsep store verify {url}`"
        )
    return folder


def _forget(folder: Path, wanted: Manifest) -> None:
    """Name only tracks that stay as they are, and delete files of no wanted track."""
    if (folder / MANIFEST_NAME).exists():
        try:
            held = Manifest.load(folder)
        except UserError:
            (folder / MANIFEST_NAME).unlink()
        else:
            same = same_tracks(held.tracks, wanted.tracks)
            if len(same) < len(held.tracks):
                held.model_copy(update={"tracks": same}).save(folder)
    for stray in SpectrogramStore(folder, wanted).strays():
        remove(stray)
    for track in wanted.tracks.values():
        if (folder / track.folder).is_symlink():
            remove(folder / track.folder)


def _require_room(folder: Path, wanted: Manifest) -> None:
    needed = sum(
        array.bytes
        for track in wanted.tracks.values()
        for array in track.arrays.values()
        if shard_damage(folder, array, read_every_byte=False)
    )
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"{folder}: the copy needs {needed / 1e6:,.0f} MB more, {free / 1e6:,.0f} MB are free; make room"
        )


def _copy(remote: RemoteStore, folder: Path, wanted: Manifest, on_bytes: OnBytes | None) -> list[str]:
    """Bring all files of the wanted tracks; keys of the tracks that are damaged at the other end."""
    damaged = []

    def copy(track: TrackRecord) -> bool:
        try:
            is_new = False
            for array in track.arrays.values():
                if shard_damage(folder, array, read_every_byte=True):
                    is_new = True
                    _bring(remote, folder, array.shard, array)
            for key, metadata in track_metadata(track).items():
                if is_new or metadata_fault(folder / key, metadata):
                    _bring(remote, folder, key, metadata=metadata)
        except DamagedError:
            return False
        return True

    def on_result(track: TrackRecord, is_whole: bool) -> None:
        if not is_whole:
            damaged.append(track.id)

    for key, metadata in group_metadata(wanted).items():
        _bring(remote, folder, key, metadata=metadata)
    in_parallel(copy, list(wanted.tracks.values()), on_bytes, on_result)
    return damaged


def _bring(
    remote: RemoteStore, folder: Path, key: str, record: ArrayRecord | None = None, metadata: Metadata | None = None
) -> None:
    """Copy one object, whole or not at all; the bytes need not reach the disk at once, since every call reads them."""
    blocks: Iterable[bytes] = remote_blocks(remote.bucket, remote.url, key)
    if record is not None:
        blocks = checked(blocks, record, key)
    elif metadata is not None:
        blocks = [checked_metadata(blocks, metadata, key)]
    temporary = folder / TEMPORARY_FOLDER / uuid.uuid4().hex
    try:
        with temporary.open("xb", buffering=0) as file:
            for block in blocks:
                file.write(block)
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(folder / key)
    finally:
        temporary.unlink(missing_ok=True)
