"""Sessions among which Linux divides the cores.

With `kernel.sched_autogroup_enabled` (the default of most desktops) the kernel divides the cores among sessions first,
and each session's share among its processes (sched(7), "The autogroup feature"): next to b busy programs, each in its
own terminal, one session gets 1 / (1 + b) of the cores, however many of them it could use. A process that computes
therefore has its own session, and counts as the program that it is.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from vocsep.control_groups import has_own_share_of_cores, lines

LOW_PRIORITY = 10
_SESSION = Path("proc/self/autogroup")


def cores_are_divided_among_sessions(root: Path = Path("/")) -> bool:
    """Whether the kernel does so, and this process may take more by having several sessions.

    In a control group with its own share of the cores, such as a container, sessions do not count. A process that was
    told to be nice to others does not take a second session.

    Parameters
    ----------
    root
        Folder with the kernel's `proc` and `sys`.
    """
    switch = lines(root / "proc/sys/kernel/sched_autogroup_enabled")  # missing on other systems
    return switch == ["1"] and not has_own_share_of_cores(root) and not _is_nice(root)


def begin_session() -> None:
    """Move this process, which another one started to compute, to its own session.

    It hears no terminal any more: the one that started it has to end it.
    """
    if cores_are_divided_among_sessions():
        os.setsid()


@contextlib.contextmanager
def at_low_priority() -> Iterator[None]:
    """Let everything else on the machine come first.

    Nice values of processes count within their session only: it, such as a terminal's, is turned down meanwhile.
    """
    os.nice(max(0, LOW_PRIORITY - os.nice(0)))
    before = _session_niceness()
    if before is None or before >= LOW_PRIORITY:
        yield
        return
    _set_session_niceness(LOW_PRIORITY)
    try:
        yield
    finally:
        _set_session_niceness(before)


def _is_nice(root: Path) -> bool:
    """Whether this process, or its session as a whole, gives way to others."""
    return os.getpriority(os.PRIO_PROCESS, 0) > 0 or (_session_niceness(root) or 0) > 0


def _session_niceness(root: Path = Path("/")) -> int | None:
    """As in `/autogroup-25 nice 0`; None where sessions have none."""
    found = re.search(r"nice (-?\d+)", " ".join(lines(root / _SESSION)))
    return int(found.group(1)) if found else None


def _set_session_niceness(niceness: int) -> None:
    """Without effect where it is not allowed."""
    for _ in range(50):
        try:
            (Path("/") / _SESSION).write_text(str(niceness))
        except BlockingIOError:  # users without privileges change such values ten times a second, all of them together
            time.sleep(0.1)
        except OSError:
            return
        else:
            return
