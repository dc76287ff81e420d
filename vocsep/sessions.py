"""Sessions among which Linux divides the cores.

With `kernel.sched_autogroup_enabled` (the default of most desktops) the kernel divides the cores among sessions first,
and each session's share among its processes (sched(7), "The autogroup feature"): next to b busy programs, each in its
own terminal, one session gets 1 / (1 + b) of the cores, however many of them it could use. A process that computes
therefore has its own session, and counts as the program that it is.
"""

import os
import re
from pathlib import Path

from vocsep.control_groups import has_own_share_of_cores, lines


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


def _is_nice(root: Path) -> bool:
    """Whether this process, or its session as a whole, gives way to others."""
    session = re.search(r"nice (\d+)", " ".join(lines(root / "proc/self/autogroup")))
    return os.getpriority(os.PRIO_PROCESS, 0) > 0 or (session is not None and int(session.group(1)) > 0)
