"""Whether a process that computes takes its own session, by files like the kernel's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kernel_files
from tests.kernel_files import V2, kernel
from vocsep.sessions import cores_are_divided_among_sessions

V1 = kernel_files.V1.replace("{controllers}", "cpu,cpuacct")
DESKTOP = "0::/user.slice/user-1000.slice/session-2.scope"


def divided(root: Path, mounts: str, groups: str, files: dict[str, str], switch: str = "1", nice: int = 0) -> bool:
    kernel(root, mounts, groups, files)
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/sched_autogroup_enabled").write_text(f"{switch}\n")
    (root / "proc/self/autogroup").write_text(f"/autogroup-120 nice {nice}\n")
    return cores_are_divided_among_sessions(root)


@pytest.fixture(autouse=True)
def _of_usual_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpriority", lambda kind, process: 0)


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        # Version 2: nobody divides the cores among control groups, or somebody does, here or above
        (V2.format(root="/"), DESKTOP, {"user.slice/cgroup.procs": ""}, True),
        (V2.format(root="/"), DESKTOP, {"user.slice/cpu.weight": "100"}, False),
        (V2.format(root="/"), "0::/a/b", {"a/b/cpu.weight": "100"}, False),
        (V2.format(root="/"), "0::/a", {"b/cpu.weight": "100"}, True),
        # A container that sees its own group alone
        (V2.format(root="/"), "0::/", {"cpu.weight": "100"}, False),
        # Version 1
        (V1.format(root="/"), "4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.shares": "1024"}, True),
        (V1.format(root="/docker/x"), "4:cpuacct,cpu:/docker/x", {"cpu,cpuacct/cpu.shares": "1024"}, False),
        (V1.format(root="/"), "5:cpuset:/x\n4:cpu,cpuacct:/\n0::/", {}, True),
        # No control groups
        ("", "", {}, True),
    ],
)
def test_sessions_count_outside_control_groups_with_their_own_cores(
    mounts: str, groups: str, files: dict[str, str], expected: bool, tmp_path: Path
) -> None:
    assert divided(tmp_path / "on", mounts, groups, files) is expected
    assert not divided(tmp_path / "off", mounts, groups, files, switch="0")
    assert not divided(tmp_path / "nice", mounts, groups, files, nice=19)
    assert divided(tmp_path / "important", mounts, groups, files, nice=-5) is expected


def test_process_that_is_nice_to_others_takes_no_second_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert divided(tmp_path / "usual", "", "", {})
    monkeypatch.setattr(os, "getpriority", lambda kind, process: 10)
    assert not divided(tmp_path / "nice", "", "", {})


def test_other_systems_do_not_divide_cores_among_sessions(tmp_path: Path) -> None:
    assert not cores_are_divided_among_sessions(tmp_path)


def test_nice_command_stays_in_its_session() -> None:
    code = "import os; from vocsep.sessions import begin_session; os.nice(1); begin_session(); print(os.getsid(0))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == os.getsid(0)


def test_session_gives_way_while_its_command_does_and_as_it_was_afterwards() -> None:
    code = """if True:
        import os
        from pathlib import Path
        from vocsep.sessions import at_low_priority
        with at_low_priority():
            print(Path("/proc/self/autogroup").read_text().split()[-1], os.nice(0))
        print(Path("/proc/self/autogroup").read_text().split()[-1], os.nice(0))
    """
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel has no priorities of sessions")
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    assert result.stdout.split() == ["10", "10", "0", "10"]
