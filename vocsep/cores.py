"""The cores that this process may use: how many threads, workers and jobs are started by default."""

import os
import re
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path

from vocsep.control_groups import control_groups, lines


def usable_cores(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use, at least 1: the least of what is named by

    - the affinity that `taskset`, a container's cpuset or a batch system gave it;
    - the CPU quotas of its control groups, of either version, and of those that they are in; parts count as whole;
    - SLURM, which does not bind processes everywhere.

    Parameters
    ----------
    root
        Folder with the kernel's `proc` and `sys`.
    """
    return max(1, min(core_limits(root, environment).values()))


def core_limits(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> dict[str, int]:
    """Cores by what limits them: `affinity`, and where there are such, `control group` and `SLURM`."""
    limits = {"affinity": [_affinity()], "control group": list(map(ceil, _quotas(root)))}
    limits["SLURM"] = list(_slurm(environment))
    return {name: min(counts) for name, counts in limits.items() if counts}


def usable_threads(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Threads of one process: OMP_NUM_THREADS, by default one for each usable core."""
    return _first_number(environment, "OMP_NUM_THREADS") or usable_cores(root, environment)


def limit_torch_threads() -> None:
    """Have torch in this process use no more threads than there are usable cores; OMP_NUM_THREADS wins.

    Torch itself knows the affinity alone.
    """
    import torch

    if not _first_number(os.environ, "OMP_NUM_THREADS") and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


def keep_algebra_to_one_thread() -> None:
    """Have numpy and scipy compute in the thread that calls them; call it before they are imported.

    Each would start a thread for every core of the machine, whatever a quota says, and these wait for each other in
    every product of matrices. OMP_NUM_THREADS and OPENBLAS_NUM_THREADS win.
    """
    if not _first_number(os.environ, "OMP_NUM_THREADS"):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of the control groups that this process is in, and of all above them that can be seen."""
    for folder in control_groups("cpu", root):
        yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    version_2 = " ".join(lines(folder / "cpu.max"))
    version_1 = " ".join([*lines(folder / "cpu.cfs_quota_us"), *lines(folder / "cpu.cfs_period_us")])
    for text in (version_2, version_1):
        # "max" and -1 are none.
        if numbers := re.fullmatch(r"(\d+) (\d+)", text):
            quota, period = map(int, numbers.groups())
            if quota and period:
                yield quota / period


def _slurm(environment: Mapping[str, str]) -> Iterator[int]:
    """Cores of a task of SLURM; of a script, those of its node."""
    if each := _first_number(environment, "SLURM_CPUS_PER_TASK"):
        yield each
    elif here := _first_number(environment, "SLURM_CPUS_ON_NODE"):
        yield max(1, here // (_first_number(environment, "SLURM_STEP_TASKS_PER_NODE") or 1))


def _first_number(environment: Mapping[str, str], name: str) -> int:
    """As in `2(x3),1`; 0 where there is none."""
    found = re.match(r"\d+", environment.get(name, ""))
    return int(found.group()) if found else 0
