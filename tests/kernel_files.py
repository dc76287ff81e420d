"""Control groups: files like those in which a kernel, Docker and SLURM show them, and real ones."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

# A mount of version 1 or 2, of the group `root` of the machine.
V1 = "32 31 0:30 {root} /sys/fs/cgroup/{controllers} rw,relatime - cgroup cgroup rw,{controllers}"
V2 = "41 31 0:38 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def kernel(root: Path, mounts: str, groups: str, files: Mapping[str, str]) -> Path:
    """A folder with `proc` and `sys`: lines of mountinfo, lines of cgroup, and files below `/sys/fs/cgroup`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts + "\n")
    (root / "proc/self/cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@contextlib.contextmanager
def real_group(limits: Mapping[str, Mapping[str, str]]) -> Iterator[Path]:
    """A control group with limits, by the folder below `/sys/fs/cgroup` that it is made in: the first that can be.

    Skips the test where none can be made.
    """
    for base, files in limits.items():
        folder = Path("/sys/fs/cgroup", base, f"vocsep-test-{os.getpid()}")
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            for name, text in files.items():
                (folder / name).write_text(text)
        except OSError:
            folder.rmdir()
            continue
        yield folder
        while (folder / "cgroup.procs").read_text():  # those that were told to end
            time.sleep(0.01)
        folder.rmdir()
        return
    pytest.skip("no control group can be made here")
