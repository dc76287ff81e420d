"""Files and folders that are complete or missing, digests, JSON, and room on the disk."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from storage.errors import UserError

_BLOCK_BYTES = 1 << 18  # fits into a core's cache
# Of a file that is read whole before anything is known of it: a manifest of 100,000 songs has as much.
MOST_READ_BYTES = 1 << 28


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Where to write a file that becomes `path` at the end; if the body fails, `path` stays as it was.

    At every instant `path` is the old file, whole, or the new one. The bytes reach the disk before the name: after a
    power cut there is no empty file of the right name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not is_replaceable(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: Path, temporary: Path | None = None, *, replace: bool = False) -> Iterator[Path]:
    """A new folder to fill that becomes `path` at the end; if the body fails, nothing is left of it.

    Parameters
    ----------
    temporary
        Its path until then, on the same disk.
    replace
        Whether a folder that is at `path` already is replaced; else the end fails unless that one is empty.
    """
    folder = temporary or path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    old = folder.with_name(f"{folder.name}-replaced")
    folder.mkdir(parents=True)
    try:
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                _to_disk(file)
        if replace and path.exists():
            path.rename(old)
        folder.rename(path)
    finally:
        remove(folder)
        remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder as far as that can be done; of a link, the link and never what it leads to."""
    if path.is_dir() and not path.is_symlink():
        # A network file system keeps a file under another name while a reader has it open.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`; see `writing`."""
    with writing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused with `ValueError`."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    # Names of files that are not UTF-8 hold halves of letters; their escapes are JSON, too.
    write_atomically(path, text.encode(errors="backslashreplace") + b"\n")


def is_replaceable(path: Path) -> bool:
    """Whether a file can come to be at `path`: not where a folder or a device is, nor in the place of a link that names
    an open file, such as /dev/stdout, and what it leads to."""
    links = [path, path.parent / path.readlink()] if path.is_symlink() else [path]
    if any(link.parent.resolve().is_relative_to("/proc") for link in links):
        return False
    return path.is_file() or not path.exists()


def is_file(path: Path) -> bool:
    """Whether a file exists; no name is too odd or too long to ask for."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_whole(path: Path) -> bytes:
    """Content of a regular file; `OSError` for a device, a pipe, or a file of more than `MOST_READ_BYTES`."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not path.is_dir():
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_size > MOST_READ_BYTES:
        raise OSError(errno.EFBIG, f"{status.st_size / 1e6:,.0f} MB, far more than such a file holds")
    return path.read_bytes()


def parse_json(content: bytes) -> Any:
    """The value of a JSON text; `ValueError` if it is none, or is nested beyond all use."""
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Content of the JSON file at `path`; `OSError` or `ValueError` as `read_whole` and `parse_json`."""
    return parse_json(read_whole(path))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_and_checksum(path: Path) -> tuple[int, int]:
    """Size of a file in bytes, and its CRC-32C."""
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            checksum = google_crc32c.extend(checksum, block)
        return file.tell(), checksum


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, independent of the order of its keys, as 64 hex digits."""
    try:
        return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
    except RecursionError:
        raise ValueError("nested too deeply") from None


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


@contextlib.contextmanager
def telling_full_disk(where: object, advice: str) -> Iterator[None]:
    """Turn a write that failed for want of room into a `UserError` that says what to do."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise UserError(f"{where}: disk full; {advice}") from None


def save_arrays(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write arrays as safetensors; `OSError` if that fails, as for any other file."""
    # The library makes a file that only its owner may read, despite the user's umask.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({name: np.asarray(value, order="C") for name, value in arrays.items()}, path)
    except SafetensorError as error:
        # The library's own class says in words what the system said.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None
    path.chmod(mode)


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of room: the disk's, or what a quota grants the user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
