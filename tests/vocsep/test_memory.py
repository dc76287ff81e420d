"""How much memory one may use, by files like the kernel's and by a real control group."""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests import kernel_files
from tests.kernel_files import V2, kernel, real_group
from vocsep.memory import affordable, usable_memory

V1 = kernel_files.V1.replace("{controllers}", "memory")
AVAILABLE = 1 << 40
NO_LIMIT = str(2**63 - 4096)
GB = 1 << 30


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=AVAILABLE))


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "expected"),
    [
        # Version 2 in a container: what is left of 2 GB, with pages of files counted as free
        (V2.format(root="/"), "0::/", {"memory.max": str(2 * GB)}, 2 * GB),
        (V2.format(root="/"), "0::/", {"memory.max": str(2 * GB), "memory.current": str(GB)}, GB),
        (
            V2.format(root="/"),
            "0::/",
            {
                "memory.max": str(2 * GB),
                "memory.current": str(GB),
                "memory.stat": f"anon {GB // 2}\nfile {GB // 2}\nactive_file 1000\ninactive_file 20000",
            },
            GB + 21000,
        ),
        (V2.format(root="/"), "0::/", {"memory.max": "max", "memory.current": str(GB)}, AVAILABLE),
        (V2.format(root="/"), "0::/", {"memory.max": str(GB), "memory.current": str(2 * GB)}, 0),
        (V2.format(root="/"), "0::/", {"memory.max": str(2 * AVAILABLE)}, AVAILABLE),
        # Of a service, limited itself or above it
        (V2.format(root="/"), "0::/a/b", {"a/b/memory.max": str(3 * GB), "a/memory.max": str(4 * GB)}, 3 * GB),
        (
            V2.format(root="/"),
            "0::/a/b",
            {"a/b/memory.max": str(3 * GB), "a/memory.max": str(4 * GB), "a/memory.current": str(2 * GB)},
            2 * GB,
        ),
        (V2.format(root="/docker/x"), "0::/docker/x", {"memory.max": str(GB)}, GB),
        # Version 1
        (V1.format(root="/"), "4:memory:/", {"memory/memory.limit_in_bytes": NO_LIMIT}, AVAILABLE),
        (
            V1.format(root="/docker/x"),
            "4:memory:/docker/x",
            {
                "memory/memory.limit_in_bytes": str(2 * GB),
                "memory/memory.usage_in_bytes": str(GB),
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 5000\ntotal_active_file 600",
            },
            GB + 5600,
        ),
        (V1.format(root="/"), "3:cpu:/s", {"memory/s/memory.limit_in_bytes": str(GB)}, AVAILABLE),
        # Nothing to be read, or nothing that is known
        ("", "", {}, AVAILABLE),
        (V2.format(root="/"), "0::/", {"memory.max": "", "memory.stat": "nonsense"}, AVAILABLE),
        (V2.format(root="/"), "0::/", {"memory.max": "-5"}, AVAILABLE),
    ],
)
def test_limits_of_control_groups_are_kept(
    mounts: str, groups: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert usable_memory(kernel(tmp_path, mounts, groups, files)) == expected


def test_as_many_as_there_is_memory_for_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert [affordable(4, each) for each in (100, 250, 300, 600, 2000)] == [4, 4, 3, 1, 1]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 800 MB; skips where none can be made."""
    size = str(800 << 20)
    with real_group({"memory": {"memory.limit_in_bytes": size}, "": {"memory.max": size}}) as folder:
        yield folder


CODE = """
import json, os, sys
open(sys.argv[1], "w").write("0")
os.sched_getaffinity = lambda process: range(16)
from flows.cluster import dask_client
from vocsep.memory import usable_memory
left = usable_memory()
held = bytearray(100 << 20)
held[:: 4096] = b"x" * len(held[:: 4096])
with dask_client(None, 8) as client:
    workers = client.scheduler_info()["workers"].values()
    print(json.dumps([left, usable_memory(), [worker["memory_limit"] for worker in workers]]))
"""


def test_workers_share_the_memory_of_a_real_control_group(group: Path) -> None:
    command = [sys.executable, "-c", CODE, str(group / "cgroup.procs")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    left, later, limits = json.loads(result.stdout.splitlines()[-1])
    # Less than two of 800 MB in addition to the 100 MB that are held, however much the machine has.
    assert 300 << 20 < left < 800 << 20
    assert later < left - (100 << 20)
    assert len(limits) == 1
    assert limits[0] <= 800 << 20


GIVE_BACK_CODE = """
import psutil
from vocsep.memory import give_back_memory
own = psutil.Process()
blocks = [bytearray(1000) for _ in range(200_000)]
# The last one contains what is before it.
blocks = blocks[-1:]
before = own.memory_info().rss
give_back_memory()
print(before - own.memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_memory_that_was_freed_is_given_back() -> None:
    result = subprocess.run([sys.executable, "-c", GIVE_BACK_CODE], capture_output=True, text=True, timeout=600)
    assert int(result.stdout) > 100_000_000, result.stderr


SHARE_CODE = """
import sys, threading, time
import psutil
from vocsep.memory import share_memory_among_threads
if sys.argv[1] == "shared":
    share_memory_among_threads()
done, kept, turn = threading.Event(), [], threading.Lock()
def work():
    with turn:
        blocks = [b"x" * 50_000 for _ in range(800)]
        kept.append(blocks[-1])  # contains what is before it
        del blocks
    done.wait()
before = psutil.Process().memory_info().rss
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
while len(kept) < len(threads):
    time.sleep(0.01)
print(psutil.Process().memory_info().rss - before)
done.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the pools are glibc's")
def test_threads_use_the_memory_that_others_have_freed() -> None:
    """40 MB each, one after the other."""
    taken = {}
    for way in ("shared", "apart"):
        result = subprocess.run([sys.executable, "-c", SHARE_CODE, way], capture_output=True, text=True, timeout=600)
        taken[way] = int(result.stdout)
    assert taken["shared"] < 100e6 < 250e6 < taken["apart"]
