"""Shards that were read whole and found intact, remembered for as long as their files stay as they are."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from storage.errors import DamagedError
from storage.files import read_json, write_json
from storage.manifest import ArrayRecord
from storage.store import SpectrogramStore, shard_damage

State = list[int]
"""What changes with a file, and the checksum that it was found to have."""


def require_intact(store: SpectrogramStore, arrays: Iterable[ArrayRecord]) -> int:
    """Read every byte of shards, but of those that were found intact and have not changed since; bytes that were read.

    The result is noted in a file next to the store, if that can be written.

    Raises
    ------
    DamagedError
        That names the first shard that is not what was written.
    """
    note = note_path(store.path)
    seen, found = _noted(note), {}
    read = 0
    for record in arrays:
        state = _state(store.path, record)
        if state != seen.get(record.shard):
            if damage := shard_damage(store.path, record, read_every_byte=True):
                raise DamagedError(f"{store.path / record.shard}: {damage}; run `vocsep store repair {store.path}`")
            read += record.bytes
        found[record.shard] = state
    if read:
        named = {array.shard for track in store.manifest.tracks.values() for array in track.arrays.values()}
        with contextlib.suppress(OSError):
            write_json(note, {shard: state for shard, state in (seen | found).items() if shard in named})
    return read


def note_path(store_path: Path) -> Path:
    """File that says which shards of a store are known to be intact."""
    whole = store_path.resolve()
    return whole.with_name(f".{whole.name}.checked")


def _noted(note: Path) -> dict[str, State | None]:
    with contextlib.suppress(OSError, ValueError):
        content = read_json(note)
        if isinstance(content, dict):
            return content
    return {}


def _state(store_path: Path, record: ArrayRecord) -> State | None:
    try:
        status = os.stat(f"{store_path}/{record.shard}")  # noqa: PTH116 - as in `shard_damage`
    except OSError:
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, record.crc32c]
