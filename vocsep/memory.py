"""The memory that this process may still take: how many workers and jobs are started, and what is kept in memory."""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import psutil

from vocsep.control_groups import control_groups, lines

# A process that does one song: scoring one of half a minute took 600 MB, most of it for what it imports.
SONG_BYTES = 800 << 20
# A block of a song that is computed at a time.
BLOCK_BYTES = 250 << 20

# Of glibc's malloc.h.
_M_ARENA_MAX = -8


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes that this process and those that it starts may still take.

    The least of what is available on the machine and of what is left of the limits of its control groups, of either
    version, and of those that they are in. Pages of files count as free: the kernel takes them back.

    Parameters
    ----------
    root
        Folder with the kernel's `proc` and `sys`.
    """
    return max(0, min(memory_limits(root).values()))


def memory_limits(root: Path = Path("/")) -> dict[str, int]:
    """Bytes that are left by what limits them: `machine`, and `control group` where there is such a limit."""
    groups = list(_left(root))
    available: int = psutil.virtual_memory().available
    return {"machine": available} | ({"control group": min(groups)} if groups else {})


def affordable(most: int, each: int) -> int:
    """How many processes or jobs that take `each` bytes there is memory for: from 1 to `most`."""
    return max(1, min(most, usable_memory() // each))


def share_memory_among_threads() -> None:
    """Have all threads of this process take memory from one pool, for as long as it runs; call it before they start.

    By default glibc keeps up to eight pools per core, each with its own holes: training took up to twice the memory,
    and more with every validation. Speed is the same, since threads compute most of the time.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Give memory that is no longer used back to the system: glibc keeps it for what may follow in this process."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _left(root: Path) -> Iterator[int]:
    """What is left of each limit of the control groups."""
    for folder in control_groups("memory", root):
        for limit, used, cache in (
            ("memory.max", "memory.current", ("inactive_file", "active_file")),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
        ):
            # Without a limit the one says "max", the other a number near 2^63.
            if (most := _number(lines(folder / limit))) is not None:
                pages = dict(line.split(maxsplit=1) for line in lines(folder / "memory.stat") if " " in line)
                taken = _number(lines(folder / used)) or 0
                yield most - max(0, taken - sum(_number([pages.get(name, "")]) or 0 for name in cache))


def _number(content: list[str]) -> int | None:
    text = " ".join(content).strip()
    return int(text) if text.isascii() and text.isdigit() else None
