"""One writer at a time for a store, on one host or on several that share a file system.

The lock of `<folder>/<name>.zarr` is the file `<folder>/.<name>.zarr.lock`, beside the store, since it is taken before
there is one. Readers never look at it.

On one host the kernel decides: the holder keeps the file flocked for as long as it lives, and a killed process frees it
at once. Across hosts, where a file system may keep flocks to each host, the file's own existence and its modification
time count: the holder makes the file (which one process alone can do), touches it every 10 s, and deletes it at the
end. A holder on another host, or of an earlier boot, is dead when its file was not touched for 60 s.

What is assumed: the store's parent folder is shared along with the store; exclusive creation of a file is atomic; what
is written to a file is seen by another host within `SETTLE_SECONDS`. Clocks of the hosts may differ, since all times
are the file server's: the age of a lock is the difference of two modification times that the server gave.
"""

import contextlib
import errno
import fcntl
import getpass
import json
import os
import shlex
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from storage.errors import UserError

HEARTBEAT_SECONDS = 10.0
DEAD_AFTER_SECONDS = 60.0
SETTLE_SECONDS = 2.0

_PATIENCE_SECONDS = 0.5
_CONTENT_BYTES = 2048
_COMMAND_CHARACTERS = 200
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_State = Literal["alive", "dead", "silent"]
"""A holder: its kernel says that it lives or died, or no kernel knows, and it was not heard of for long."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: `machine` is one boot of one host, `token` one holding."""

    host: str
    machine: str
    pid: int
    user: str
    since: str
    command: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (user {self.user}, since {self.since}: {self.command})"


class StoreLock:
    """The lock, as its holder has it."""

    def __init__(self, path: Path, token: str) -> None:
        self._path = path
        self._token = token

    def is_held(self) -> bool:
        """Whether nobody deleted the lock or took it over."""
        holder = _read_holder(self._path)
        return holder is not None and holder.token == self._token

    def require(self) -> None:
        """Raise `UserError` unless the lock is still held; a process that stood still for a minute may lose it."""
        if not self.is_held():
            raise UserError(
                f"{self._path}: this run lost its lock ({_read_holder(self._path) or 'the file is gone'}) and stops "
                "writing; run again when nobody else writes"
            )


@contextlib.contextmanager
def store_lock(store: Path) -> Iterator[StoreLock]:
    """Hold the lock of the store at `store`, which need not exist yet.

    Raises
    ------
    UserError
        If another living process holds it, which is named, or the lock file cannot be made.
    """
    path = lock_path(store)
    me = _this_process()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(store, path, me)
    except OSError as error:
        raise UserError(f"{path}: the store's lock cannot be made ({error.strerror})") from error
    lock = StoreLock(path, me.token)
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(descriptor, stop), daemon=True, name="store-lock")
    heart.start()
    try:
        yield lock
    finally:
        stop.set()
        heart.join()
        if lock.is_held():
            path.unlink(missing_ok=True)
        os.close(descriptor)


def require_free(store: Path) -> None:
    """Raise `UserError` if a living process holds the lock of `store`; nothing is written."""
    if holder := living_holder(store):
        raise UserError(_refusal(store, holder))


def living_holder(store: Path) -> str:
    """Who holds the lock of `store`, in words; empty if nobody does. Nothing is written."""
    path = lock_path(store)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        return _words(path) if _state(path, descriptor, fcntl.LOCK_SH) == "alive" else ""
    finally:
        os.close(descriptor)


def lock_path(store: Path) -> Path:
    """Lock file of the store at `store`."""
    whole = store.resolve()
    return whole.with_name(f".{whole.name}.lock")


def _acquire(store: Path, path: Path, me: Holder) -> int:
    """Descriptor of the lock file, flocked and holding `me`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            is_new = True
        except FileExistsError:
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            is_new = False
        try:
            if _take(path, descriptor, me, is_new=is_new):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        holder = _words(path)
        os.close(descriptor)
        # A reader's look at the lock, or a holder about to write its name or to leave, lasts no time.
        if time.monotonic() > deadline:
            raise UserError(_refusal(store, holder))
        time.sleep(_PATIENCE_SECONDS / 10)


def _take(path: Path, descriptor: int, me: Holder, *, is_new: bool) -> bool:
    """Whether the open lock file is this process's now; it is not if its holder lives or it is no longer the lock."""
    state: _State = "dead"
    if is_new:
        _flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_size:
            return False
    else:
        state = _state(path, descriptor, fcntl.LOCK_EX)
        if state == "alive":
            return False
    try:
        if path.stat().st_ino != os.fstat(descriptor).st_ino:
            return False
    except FileNotFoundError:
        return False
    try:
        # One write of a constant length: of two that come at once, one stands there whole.
        os.pwrite(descriptor, json.dumps(asdict(me), ensure_ascii=False).encode().ljust(_CONTENT_BYTES), 0)
        os.fsync(descriptor)
    except OSError:
        path.unlink()
        raise
    if state == "silent":
        # Another host may be taking the same lock over, and neither kernel sees the other's flock.
        time.sleep(SETTLE_SECONDS)
    return StoreLock(path, me.token).is_held()


def _state(path: Path, descriptor: int, operation: int) -> _State:
    """What the holder is; if not alive, the descriptor is flocked now, where the file system can."""
    try:
        is_flocked = _flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return "alive"
    holder = _read_holder(path)
    if is_flocked and holder is not None and holder.machine == _machine():
        return "dead"
    age = _now(path.parent) - os.fstat(descriptor).st_mtime
    return "alive" if age < DEAD_AFTER_SECONDS else "silent"


def _flock(descriptor: int, operation: int) -> bool:
    """Flock; False where the file system cannot."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise
    return True


def _now(folder: Path) -> float:
    """Time of the file server, from a file that it makes; this host's own time where none may be made."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _beat(descriptor: int, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # the next beat may come through; `require` tells if the lock is lost
            os.utime(descriptor)


def _read_holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _words(path: Path) -> str:
    return str(_read_holder(path) or f"a process that has yet to write its name to {path}")


def _refusal(store: Path, holder: str) -> str:
    return f"{store}: being written by {holder}; wait for its end, or end it"


def _this_process() -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        user = str(os.getuid())
    return Holder(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        user=user,
        since=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        command=" ".join(shlex.join(sys.orig_argv).split())[:_COMMAND_CHARACTERS],
        token=uuid.uuid4().hex,
    )


def _machine() -> str:
    """Names this boot of this host: no two kernels that run have the same."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else socket.gethostname()
