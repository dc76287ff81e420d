"""Locks between real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.lock import InUse, holder, lock_path, locked, require_free, store_lock
from tests import helpers
from tests.helpers import go_on, line_of, one_line

# A process that takes the lock, says so, and holds it until its input ends.
HOLD = """
import sys
from pathlib import Path
from storage.errors import UserError
from storage.lock import store_lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with store_lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
        print("leaving", flush=True)
except UserError as error:
    print("refused:", error, flush=True)
"""

WAIT = """
import sys
from pathlib import Path
from storage.lock import locked
with locked(Path(sys.argv[1]), wait=True):
    print("mine", flush=True)
"""

Start = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that is about to take the lock; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(store: Path) -> "subprocess.Popen[str]":
        started.append(helpers.start(HOLD, store))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def holding(start: Start, store: Path) -> "subprocess.Popen[str]":
    process = start(store)
    go_on(process)
    assert [line_of(process), line_of(process)] == ["ready", "held"]
    return process


def refusal(store: Path) -> str:
    return one_line(store_lock(store).__enter__)


def test_second_writer_is_refused_naming_the_holder_until_the_holder_leaves(tmp_path: Path, start: Start) -> None:
    store = tmp_path / "s.zarr"
    assert holder(lock_path(store)) == ""
    require_free(store)
    process = holding(start, store)
    for message in (refusal(store), one_line(lambda: require_free(store))):
        assert str(store) in message
        assert f"process {process.pid} on {os.uname().nodename} (user " in message
        assert time.strftime("%Y-%m-%d ") in message
        assert f"{sys.executable} -c" in message
    go_on(process)
    assert line_of(process) == "leaving"
    process.wait(timeout=600)
    assert list(tmp_path.iterdir()) == []
    with store_lock(store):
        assert f"process {os.getpid()} " in holder(lock_path(store))
    assert list(tmp_path.iterdir()) == []


def test_same_process_is_refused_too_and_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with contextlib.suppress(ZeroDivisionError), store_lock(store):
        assert f"process {os.getpid()} " in refusal(store)
        raise ZeroDivisionError
    with store_lock(store):
        pass


def test_killed_holder_frees_the_lock_and_a_stopped_one_keeps_it(tmp_path: Path, start: Start) -> None:
    store = tmp_path / "s.zarr"
    process = holding(start, store)
    process.send_signal(signal.SIGSTOP)
    assert f"process {process.pid} " in refusal(store)
    process.kill()
    process.wait()
    assert holder(lock_path(store)) == ""
    with store_lock(store):
        assert f"process {os.getpid()} " in holder(lock_path(store))


def test_whoever_waits_gets_the_lock_when_its_holder_is_gone(tmp_path: Path, start: Start) -> None:
    process = holding(start, tmp_path / "s.zarr")
    waiting = helpers.start(WAIT, lock_path(tmp_path / "s.zarr"))
    time.sleep(1)
    assert waiting.poll() is None
    process.kill()
    assert waiting.communicate(timeout=600)[0] == "mine\n"


def test_stores_are_one_by_every_path_that_leads_to_them_and_others_are_free(tmp_path: Path, start: Start) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    process = holding(start, tmp_path / "disk" / "s.zarr")
    assert f"process {process.pid} " in refusal(tmp_path / "link" / ".." / "disk" / "s.zarr")
    assert f"process {process.pid} " in refusal(tmp_path / "link" / "s.zarr")
    with store_lock(tmp_path / "disk" / "other.zarr"):
        pass


def test_of_many_processes_at_once_exactly_one_gets_the_lock(tmp_path: Path, start: Start) -> None:
    """A lock that is free, then one whose holder was killed."""
    store = tmp_path / "s.zarr"
    for _ in range(2):
        processes = [start(store) for _ in range(6)]
        assert [line_of(process) for process in processes] == ["ready"] * 6
        go_on(*processes)
        answers = [line_of(process) for process in processes]
        (winner,) = [process for process, answer in zip(processes, answers, strict=True) if answer == "held"]
        assert all(f"process {winner.pid} " in answer for answer in answers if answer != "held")
        winner.kill()
        winner.wait()


def test_lock_file_that_a_dead_process_left_does_not_block_whatever_it_says(tmp_path: Path) -> None:
    for content in (b"", b"process 1 on another host", b"\xff"):
        (tmp_path / ".lock").write_bytes(content)
        assert holder(tmp_path / ".lock") == ""
        with locked(tmp_path / ".lock"), pytest.raises(InUse, match=f"{tmp_path}: .*process {os.getpid()} "):
            locked(tmp_path / ".lock").__enter__()


def test_deleted_lock_file_of_a_living_holder_leaves_the_next_holders_alone(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"):
        (tmp_path / ".lock").unlink()
        (tmp_path / ".lock").write_bytes(b"another's")
    assert (tmp_path / ".lock").read_bytes() == b"another's"


def test_folder_in_which_no_lock_can_be_made_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "file" in refusal(tmp_path / "file" / "s.zarr")
