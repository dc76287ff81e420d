"""Locks between real processes; other hosts are processes for which the kernel's flock does not work."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import storage.lock
from storage.errors import UserError
from storage.lock import DEAD_AFTER_SECONDS, living_holder, lock_path, require_free, store_lock

# A process that takes the lock, says so, and holds it until its input ends. Of another host: it has another machine's
# name, and its flocks are its own.
HOLD = """
import errno, fcntl, sys
from pathlib import Path
import storage.lock
from storage.errors import UserError

def no_flock(*_):
    raise OSError(errno.ENOLCK, "no locks available")

store, host, settle = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if host != "here":
    storage.lock.fcntl.flock = no_flock
    storage.lock._machine = lambda: host
storage.lock.SETTLE_SECONDS = settle
storage.lock.HEARTBEAT_SECONDS = 0.05
print("ready", flush=True)
sys.stdin.readline()
try:
    with storage.lock.store_lock(store):
        print("held", flush=True)
        sys.stdin.readline()
        print("leaving", flush=True)
except UserError as error:
    print("refused:", error, flush=True)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that is about to take the lock; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(store: Path, host: str = "here", settle: float = 0.5) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(store), host, str(settle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def holding(start: Start, store: Path, host: str = "here") -> "subprocess.Popen[str]":
    process = start(store, host)
    go_on(process)
    assert [line(process), line(process)] == ["ready", "held"]
    return process


def one_line(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def refusal(store: Path) -> str:
    return one_line(store_lock(store).__enter__)


def age(path: Path, seconds: float) -> None:
    """Let a lock look as if it had not been touched for a time."""
    before = time.time() - seconds
    os.utime(path, (before, before))


def test_second_writer_is_refused_naming_the_holder_until_the_holder_leaves(tmp_path: Path, start: Start) -> None:
    store = tmp_path / "s.zarr"
    assert living_holder(store) == ""
    require_free(store)
    holder = holding(start, store)
    for message in (refusal(store), one_line(lambda: require_free(store))):
        assert str(store) in message
        assert f"process {holder.pid} on {os.uname().nodename} (user " in message
        assert time.strftime("%Y-%m-%d ") in message
        assert f"{sys.executable} -c" in message
    go_on(holder)
    assert line(holder) == "leaving"
    holder.wait(timeout=10)
    assert list(tmp_path.iterdir()) == []
    with store_lock(store):
        assert f"process {os.getpid()} " in living_holder(store)
    assert list(tmp_path.iterdir()) == []


def test_same_process_is_refused_too_and_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with contextlib.suppress(ZeroDivisionError), store_lock(store):
        assert f"process {os.getpid()} " in refusal(store)
        raise ZeroDivisionError
    with store_lock(store):
        pass


def test_killed_holder_frees_the_lock_at_once_and_a_stopped_one_keeps_it(tmp_path: Path, start: Start) -> None:
    store = tmp_path / "s.zarr"
    holder = holding(start, store)
    holder.send_signal(signal.SIGSTOP)
    age(lock_path(store), 2 * DEAD_AFTER_SECONDS)  # on one host time does not count
    assert f"process {holder.pid} " in refusal(store)
    holder.kill()
    holder.wait()
    assert lock_path(store).exists()
    assert living_holder(store) == ""
    started = time.monotonic()
    with store_lock(store) as lock:
        lock.require()
        assert time.monotonic() - started < 1
        assert f"process {os.getpid()} " in living_holder(store)


def test_dead_holder_whose_process_number_another_process_has_now_does_not_block(tmp_path: Path, start: Start) -> None:
    store = tmp_path / "s.zarr"
    holder = holding(start, store)
    holder.kill()
    holder.wait()
    content = json.loads(lock_path(store).read_text())
    lock_path(store).write_text(json.dumps(content | {"pid": os.getpid()}))
    with store_lock(store):
        pass


def test_stores_are_one_by_every_path_that_leads_to_them_and_others_are_free(tmp_path: Path, start: Start) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    holder = holding(start, tmp_path / "disk" / "s.zarr")
    assert f"process {holder.pid} " in refusal(tmp_path / "link" / ".." / "disk" / "s.zarr")
    assert f"process {holder.pid} " in refusal(tmp_path / "link" / "s.zarr")
    with store_lock(tmp_path / "disk" / "other.zarr"):
        pass


def test_of_many_processes_at_once_exactly_one_gets_the_lock(tmp_path: Path, start: Start) -> None:
    """A lock that is free, then one whose holder was killed."""
    store = tmp_path / "s.zarr"
    for _ in range(2):
        processes = [start(store) for _ in range(6)]
        assert [line(process) for process in processes] == ["ready"] * 6
        go_on(*processes)
        answers = [line(process) for process in processes]
        (winner,) = [process for process, answer in zip(processes, answers, strict=True) if answer == "held"]
        assert all(f"process {winner.pid} " in answer for answer in answers if answer != "held")
        winner.kill()
        winner.wait()


# --- several hosts --------------------------------------------------------------------------------------


def test_living_holder_on_another_host_is_named_for_as_long_as_it_touches_the_lock(
    tmp_path: Path, start: Start
) -> None:
    store = tmp_path / "s.zarr"
    holder = holding(start, store, "there")
    age(lock_path(store), 2 * DEAD_AFTER_SECONDS)
    time.sleep(0.5)
    assert f"process {holder.pid} " in refusal(store)
    assert f"process {holder.pid} " in living_holder(store)
    go_on(holder)
    assert line(holder) == "leaving"
    holder.wait(timeout=10)
    with store_lock(store):
        pass


def test_killed_holder_on_another_host_blocks_for_a_minute(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.lock, "SETTLE_SECONDS", 0.1)
    store = tmp_path / "s.zarr"
    holder = holding(start, store, "there")
    holder.kill()
    holder.wait()
    age(lock_path(store), DEAD_AFTER_SECONDS - 5)
    assert f"process {holder.pid} " in refusal(store)
    age(lock_path(store), DEAD_AFTER_SECONDS + 1)
    assert living_holder(store) == ""
    with store_lock(store) as lock:
        lock.require()


def test_this_hosts_clock_does_not_matter(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "s.zarr"
    holder = holding(start, store, "there")
    now = time.time()
    for wrong in (now - 86400, now + 86400):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: wrong)
        assert f"process {holder.pid} " in refusal(store)


@pytest.mark.parametrize("lock", ["free", "dead"])
def test_of_many_hosts_at_once_exactly_one_gets_the_lock(tmp_path: Path, start: Start, lock: str) -> None:
    store = tmp_path / "s.zarr"
    if lock == "dead":
        holder = holding(start, store, "gone")
        holder.kill()
        holder.wait()
        age(lock_path(store), DEAD_AFTER_SECONDS + 1)
    processes = [start(store, f"host {number}") for number in range(6)]
    assert [line(process) for process in processes] == ["ready"] * 6
    go_on(*processes)
    answers = [line(process) for process in processes]
    (winner,) = [process for process, answer in zip(processes, answers, strict=True) if answer == "held"]
    assert all(f"process {winner.pid} " in answer for answer in answers if answer != "held")
    go_on(winner)
    assert line(winner) == "leaving"


def test_holder_that_slept_until_another_host_took_over_is_told_and_leaves_the_others_lock(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.lock, "_machine", lambda: "here, of another boot")
    store = tmp_path / "s.zarr"
    with store_lock(store) as lock:
        lock.require()
        age(lock_path(store), DEAD_AFTER_SECONDS + 1)
        other = holding(start, store, "there")
        assert f"process {other.pid} " in one_line(lock.require)
    assert f"process {other.pid} " in living_holder(store)


def test_deleted_lock_is_told_to_its_holder(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with store_lock(store) as lock:
        lock_path(store).unlink()
        assert not lock.is_held()
        assert "lost its lock" in one_line(lock.require)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 1}', b"\xff"])
def test_lock_file_that_names_nobody_blocks_for_a_minute_only(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.lock, "SETTLE_SECONDS", 0.0)
    store = tmp_path / "s.zarr"
    lock_path(store).write_bytes(content)
    assert str(lock_path(store)) in refusal(store)
    age(lock_path(store), DEAD_AFTER_SECONDS + 1)
    with store_lock(store):
        pass


def test_folder_in_which_no_lock_can_be_made_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "file" in refusal(tmp_path / "file" / "s.zarr")
