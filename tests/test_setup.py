"""`make setup`: what it says of what pip says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PIP = """Looking in indexes: https://pypi.org/simple
Obtaining file:///home/someone/vocsep
  Preparing editable metadata (pyproject.toml): started
WARNING: Location 'file:///opt/simple/numba/' is ignored: it is neither a file nor a directory.
Collecting numba>=0.61 (from vocsep==0.1.0)
  Downloading numba-0.68.1-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (2.8 kB)
  Downloading https://download.pytorch.org/whl/cpu/torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.5 MB)
WARNING: Retrying after connection broken
Installing collected packages: numba, torch, vocsep
Successfully installed numba-0.68.1 torch-2.13.0 vocsep-0.1.0
"""


def test_progress_names_large_downloads_and_warnings_that_matter_and_the_log_has_all(tmp_path: Path) -> None:
    said = PIP + "".join(f"Collecting package{number}\n" for number in range(99))
    (tmp_path / "constraints.txt").write_text("a==1\nb==2\n")
    command = [sys.executable, str(ROOT / ".ci/setup_progress.py"), "log", "constraints.txt"]
    result = subprocess.run(command, cwd=tmp_path, input=said, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert [line for line in lines if "downloading" in line] == [
        "  downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.5 MB)"
    ]
    assert "  installing 3 packages, 191 MB downloaded ..." in lines
    assert [line for line in lines if "WARNING" in line] == ["WARNING: Retrying after connection broken"]
    assert sum("of about 2 packages" in line for line in lines) == 4
    assert (tmp_path / "log").read_text() == said
    assert result.stderr == ""


def test_every_install_goes_through_the_constraints() -> None:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", ".ci/run", ".ci/other_pythons"))
    installs = re.findall(r"pip install[^\n|]*", text)
    assert installs
    assert all("-c constraints.txt" in install for install in installs)
