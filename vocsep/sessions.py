"""Sessions among which Linux divides the cores.

With `kernel.sched_autogroup_enabled` (the default of most desktops) the kernel divides the cores among sessions first,
and each session's share among its processes (sched(7), "The autogroup feature"): next to b busy programs, each in its
own terminal, one session gets 1 / (1 + b) of the cores, however many of them it could use. A process that computes
therefore has its own session, and counts as the program that it is.
"""

import os
from pathlib import Path

_SWITCH = Path("/proc/sys/kernel/sched_autogroup_enabled")


def cores_are_divided_among_sessions() -> bool:
    """Whether the kernel does so."""
    try:
        return _SWITCH.read_text().strip() == "1"
    except OSError:  # another system, or a kernel without it
        return False


def begin_session() -> None:
    """Move this process, which another one started to compute, to its own session.

    It hears no terminal any more: the one that started it has to end it.
    """
    if cores_are_divided_among_sessions():
        os.setsid()
