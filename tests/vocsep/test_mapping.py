import gc
import os
import signal
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from storage.errors import UserError
from tests.forked import forked
from vocsep.mapping import Outcome, pooled
from vocsep.sessions import cores_are_divided_among_sessions


def halved(number: int, by: int) -> int:
    if number % by:
        raise UserError(f"{number}: odd")
    return by // number


def test_item_that_fails_in_another_process_is_named_and_costs_the_others_nothing() -> None:
    done: list[int] = []
    outcomes = pooled(2)(halved, [0, 1, 2], (2,), on_outcome=lambda _, count: done.append(count))
    expected = [
        Outcome(0, None, "ZeroDivisionError: integer division or modulo by zero"),
        Outcome(1, None, "1: odd"),
        Outcome(2, 1, None),
    ]
    assert sorted(outcomes, key=lambda outcome: outcome.item) == expected
    assert done == [1, 2, 3]


def killed_at_three(number: int, folder: Path) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / str(number)).touch()
    return -number


def test_item_whose_process_is_killed_is_named_and_costs_the_others_nothing(tmp_path: Path) -> None:
    done: list[int] = []
    outcomes = pooled(2)(killed_at_three, range(8), (tmp_path,), on_outcome=lambda _, count: done.append(count))
    found = {outcome.item: outcome for outcome in outcomes}
    assert "killed" in (found.pop(3).error or "")
    assert found == {number: Outcome(number, -number, None) for number in (0, 1, 2, 4, 5, 6, 7)}
    assert done == [*range(1, 9)]
    assert len(list(tmp_path.iterdir())) == 7


def kept_waiting(number: int, begun: Path) -> int:
    if number != 1:
        while not begun.exists():
            time.sleep(0.01)
    elif not begun.exists():
        results = next(thing for thing in gc.get_objects() if isinstance(thing, SimpleQueue))
        results._wlock.acquire()  # type: ignore[attr-defined]  # as it does to send a result
        begun.touch()
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    return -number


def check_four(folder: Path) -> None:
    outcomes = pooled(2)(kept_waiting, range(4), (folder / "begun",))
    assert sorted(outcomes, key=lambda outcome: outcome.item) == [Outcome(n, -n, None) for n in range(4)]


def test_pool_ends_if_a_process_is_killed_while_it_sends_a_result(tmp_path: Path) -> None:
    process = forked(check_four, tmp_path)
    process.start()
    process.join(600)
    process.kill()
    assert process.exitcode == 0


def session(number: int, started_by: int) -> int:
    """The session of the process that does this item."""
    assert os.getpid() != started_by
    return os.getsid(0)


@pytest.mark.skipif(not cores_are_divided_among_sessions(), reason="this kernel does not divide cores among sessions")
def test_processes_have_sessions_of_their_own() -> None:
    outcomes = pooled(2)(session, [1, 2, 3, 4], (os.getpid(),))
    assert os.getsid(0) not in [outcome.result for outcome in outcomes]
