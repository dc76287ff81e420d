"""The cores that this process may use: how many threads, workers and jobs are started by default."""

import os
import re
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path, PurePosixPath


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
    limits = [_affinity(), *map(ceil, _quotas(root)), *_slurm(environment)]
    return max(1, min(limits))


def usable_threads(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Threads of one process: OMP_NUM_THREADS, by default one for each usable core."""
    return _first_number(environment, "OMP_NUM_THREADS") or usable_cores(root, environment)


def limit_torch_threads() -> None:
    """Have torch in this process use no more threads than there are usable cores; OMP_NUM_THREADS wins.

    Torch itself knows the affinity alone.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of the control groups that this process is in, and of all above them that can be seen."""
    groups = [line.split(":", 2) for line in _lines(root / "proc/self/cgroup") if line.count(":") >= 2]
    for line in _lines(root / "proc/self/mountinfo"):
        # 36 35 98:0 /what/of/it /where rw,... - cgroup2 cgroup2 rw,...
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), (*right.split(), "", "", "")[:3]
        if len(fields) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        if kind == "cgroup" and "cpu" not in options.split(","):
            continue
        for _, controllers, path in groups:
            if "cpu" in controllers.split(",") if kind == "cgroup" else controllers == "":
                for folder in _seen(root / _unescaped(fields[4]).lstrip("/"), _unescaped(fields[3]), path):
                    yield from _quota(folder)


def _seen(mounted: Path, mounted_path: str, path: str) -> Iterator[Path]:
    """Folders of a control group and of those above it, as far as they are in what is mounted."""
    group = PurePosixPath(path)
    inside = group.relative_to(mounted_path) if group.is_relative_to(mounted_path) else PurePosixPath()
    parts = [part for part in inside.parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:count])


def _quota(folder: Path) -> Iterator[float]:
    version_2 = " ".join(_lines(folder / "cpu.max"))
    version_1 = " ".join([*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")])
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


def _unescaped(path: str) -> str:
    """A path of mountinfo, which writes spaces and their like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
