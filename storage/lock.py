"""One process at a time: a lock file that its holder keeps flocked, and that says who the holder is.

The kernel frees the lock of a process that ends, however it ends. Processes on several hosts keep each other out
wherever their file system passes flocks on, as NFS does on Linux.
"""

import contextlib
import fcntl
import getpass
import io
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from storage.errors import UserError, one_line

_PATIENCE_SECONDS = 0.5
_COMMAND_CHARACTERS = 200


class InUse(UserError):
    """Another living process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, what: object = None, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which is gone afterwards.

    Parameters
    ----------
    what
        What it locks, for the message; by default its folder.
    wait
        Wait for the holder to leave, instead of being refused.

    Raises
    ------
    InUse
        If another living process holds it; the message names that process.
    UserError
        If the file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _acquired(path, wait=wait)
    except OSError as error:
        raise one_line(path, "locked", error) from None
    if file is None:
        raise _in_use(what or path.parent, _words(path))
    with file:
        try:
            yield
        finally:
            if _is_at(path, file):
                path.unlink()


def holder(path: Path) -> str:
    """Who holds the lock file `path`, in words; empty if nobody does. Nothing is written."""
    try:
        with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except BlockingIOError:
        return _words(path)
    return ""


def lock_path(store_path: Path) -> Path:
    """Lock file of a store or another folder: next to it, since it is taken before the folder exists."""
    whole = store_path.resolve()
    return whole.with_name(f".{whole.name}.lock")


def store_lock(store_path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of the store at `store_path`, which need not exist yet; see `locked`. Readers never look at it."""
    return locked(lock_path(store_path), store_path)


def require_free(store_path: Path) -> None:
    """Raise `InUse` if a living process holds the lock of `store_path`; nothing is written."""
    if words := holder(lock_path(store_path)):
        raise _in_use(store_path, words)


def _acquired(path: Path, *, wait: bool) -> BinaryIO | None:
    """The lock file, flocked and naming this process; None if another process holds it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        file = _opened(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            # A look at the lock, or a holder that has yet to write its name, lasts no time.
            if time.monotonic() > deadline:
                return None
            time.sleep(_PATIENCE_SECONDS / 10)
            continue
        if _is_at(path, file):
            with contextlib.suppress(OSError):  # on a full disk it is a lock without a name
                file.truncate(0)
                file.write(_this_process().encode())
            return file
        file.close()  # its holder has deleted it


def _opened(path: Path, flags: int) -> BinaryIO:
    """The lock file; a link, which may lead to a file of the user, is an `OSError`."""
    return io.FileIO(os.open(path, flags | os.O_NOFOLLOW, 0o666), "r+" if flags & os.O_RDWR else "r")


def _is_at(path: Path, file: BinaryIO) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _words(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace") or "another process"
    return "another process"


def _in_use(what: object, words: str) -> InUse:
    return InUse(f"{what}: being written by {words}; wait until it finishes, or stop it")


def _this_process() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        user = str(os.getuid())
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    command = " ".join(shlex.join(sys.orig_argv).split())[:_COMMAND_CHARACTERS]
    return f"process {os.getpid()} on {socket.gethostname()} (user {user}, since {since}: {command})"
