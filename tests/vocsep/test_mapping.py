import os
import signal
from pathlib import Path

import pytest

from storage.errors import UserError
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


def session(number: int, started_by: int) -> int:
    """The session of the process that does this item."""
    assert os.getpid() != started_by
    return os.getsid(0)


@pytest.mark.skipif(not cores_are_divided_among_sessions(), reason="this kernel does not divide cores among sessions")
def test_processes_have_sessions_of_their_own() -> None:
    outcomes = pooled(2)(session, [1, 2, 3, 4], (os.getpid(),))
    assert os.getsid(0) not in [outcome.result for outcome in outcomes]
