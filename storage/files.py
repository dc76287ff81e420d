"""Files that are whole or not there: atomic writes, digests, JSON, room on the disk."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that at every instant `path` is the old file, whole, or the new one.

    The bytes reach the disk before the rename: after a power cut there is no empty file of the right name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused with `ValueError`."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Content of the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, independent of the order of its keys, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def new_folder(parent: Path, name: str) -> Path:
    """A new, empty folder `parent/name`, or `parent/name-2`, `-3`, ... where there is one already."""
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def free_bytes(path: Path) -> int:
    """Bytes that may still be written on the disk of `path`, which need not exist yet."""
    existing = next(folder for folder in (path, *path.resolve().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of room: the disk's, or what a quota grants the user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
