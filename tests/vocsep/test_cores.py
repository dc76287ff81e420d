"""How many cores one may use, by files like the kernel's and by a real control group."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kernel_files
from tests.kernel_files import V2, kernel, real_group
from vocsep.cores import keep_algebra_to_one_thread, usable_cores, usable_threads

V1 = kernel_files.V1.replace("{controllers}", "cpu,cpuacct")
HYBRID = "41 31 0:38 {root} /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
CPUSET = "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset"
MANY = 1_000_000


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The affinity of a large machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(MANY), raising=False)


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        # Version 2 in a container with its own name space, 2 of many
        (V2.format(root="/"), "0::/", {"cpu.max": "200000 100000"}, 2),
        (V2.format(root="/"), "0::/", {"cpu.max": "max 100000"}, MANY),
        (V2.format(root="/"), "0::/", {"cpu.max": "150000 100000"}, 2),
        (V2.format(root="/"), "0::/", {"cpu.max": "10000 100000"}, 1),
        (V2.format(root="/"), "0::/", {"cpu.max": "20000 10000"}, 2),
        # Of a service, limited itself, above it, or in both places
        (V2.format(root="/"), "0::/a/b", {"a/b/cpu.max": "300000 100000"}, 3),
        (V2.format(root="/"), "0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        (V2.format(root="/"), "0::/a/b", {"a/b/cpu.max": "800000 100000", "a/cpu.max": "400000 100000"}, 4),
        (V2.format(root="/"), "0::/a/b", {"c/cpu.max": "100000 100000"}, MANY),
        # A container that sees the names of the host, and its own group alone
        (V2.format(root="/docker/x"), "0::/docker/x", {"cpu.max": "500000 100000"}, 5),
        (V2.format(root="/docker/x"), "0::/docker/x/y", {"y/cpu.max": "500000 100000"}, 5),
        (V2.format(root="/../.."), "0::/../../pod/x", {"cpu.max": "500000 100000"}, 5),
        # Version 1
        (V1.format(root="/"), "4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "600000"}, MANY),
        (V1.format(root="/"), "4:cpu,cpuacct:/s", {"s": "-1 100000"}, MANY),
        (V1.format(root="/"), "4:cpu,cpuacct:/s", {"s": "250000 100000"}, 3),
        (V1.format(root="/docker/x"), "4:cpuacct,cpu:/docker/x", {"": "700000 100000"}, 7),
        (V1.format(root="/"), "4:cpu,cpuacct:/s/t", {"s": "200000 100000", "s/t": "-1 100000"}, 2),
        # Both, the limit in version 1; and other controllers
        (f"{HYBRID.format(root='/')}\n{V1.format(root='/')}", "2:cpu,cpuacct:/s\n0::/", {"s": "200000 100000"}, 2),
        (f"{CPUSET}\n{V1.format(root='/')}", "3:cpuset:/q\n2:cpu,cpuacct:/s", {"q": "100000 100000"}, MANY),
        # Nothing to be read, or nothing that is known
        ("", "", {}, MANY),
        ("nonsense", "nonsense", {}, MANY),
        (V2.format(root="/"), "0::/", {"cpu.max": ""}, MANY),
        (V2.format(root="/"), "0::/", {"cpu.max": "0 0"}, MANY),
        (V2.format(root="/"), "0::/", {"cpu.max": "-5 100000"}, MANY),
    ],
)
def test_quotas_of_control_groups_are_kept(
    mounts: str, groups: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    named = {}
    for name, text in files.items():
        if name.rpartition("/")[2].startswith("cpu."):
            named[name] = text
        else:
            quota, period = text.split()
            named |= {f"cpu,cpuacct/{name}/cpu.cfs_quota_us": quota, f"cpu,cpuacct/{name}/cpu.cfs_period_us": period}
    assert usable_cores(kernel(tmp_path, mounts, groups, named), {}) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "6"}, 6),
        ({"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "24"}, 6),
        ({"SLURM_CPUS_ON_NODE": "24"}, 24),
        ({"SLURM_CPUS_ON_NODE": "24", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 6),
        ({"SLURM_CPUS_ON_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "4"}, 1),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_CPUS_ON_NODE": "many"}, MANY),
    ],
)
def test_what_slurm_gives_is_kept(variables: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert usable_cores(tmp_path, variables) == expected
    limited = kernel(tmp_path / "limited", V2.format(root="/"), "0::/", {"cpu.max": "300000 100000"})
    assert usable_cores(limited, variables) == min(expected, 3)


@pytest.mark.parametrize(("value", "expected"), [("8", 8), ("5,2", 5), ("", 2), ("0", 2), ("many", 2)])
def test_omp_num_threads_wins(value: str, expected: int, tmp_path: Path) -> None:
    root = kernel(tmp_path, V2.format(root="/"), "0::/", {"cpu.max": "200000 100000"})
    assert usable_threads(root, {"OMP_NUM_THREADS": value}) == expected
    assert usable_threads(root, {}) == usable_cores(root, {"OMP_NUM_THREADS": value}) == 2


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of half a core; skips where none can be made."""
    version_1 = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}
    with real_group({"cpu": version_1, "": {"cpu.max": "50000 100000"}}) as folder:
        yield folder


def test_quota_of_a_real_control_group_is_kept(group: Path) -> None:
    code = "import sys; open(sys.argv[1], 'w').write('0'); from vocsep.cores import *; import torch; "
    code += "limit_torch_threads(); print(usable_cores(), torch.get_num_threads())"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code, str(group / "cgroup.procs")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.stdout.split() == ["1", "1"], result.stderr


@pytest.mark.parametrize("module", ["vocsep.cli.main", "flows.cli"])
def test_commands_start_no_threads_for_linear_algebra(module: str) -> None:
    code = f"import contextlib, sys, psutil, {module} as command; sys.argv[1:] = ['--help']\n"
    code += "with contextlib.suppress(SystemExit): command.main()\n"
    code += "threads = psutil.Process().num_threads; before = threads(); import numpy; print(threads() - before)"
    unset = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert result.stdout.split()[-1] == "0", result.stderr


def test_threads_of_linear_algebra_that_somebody_asked_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    keep_algebra_to_one_thread()
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    keep_algebra_to_one_thread()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
