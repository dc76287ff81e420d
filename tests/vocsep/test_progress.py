"""Progress bars on real terminals."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

BAR = """
import time
from vocsep.progress import progress_bar
with progress_bar(4, "work", "songs") as bar:
    for _ in range(4):
        time.sleep(0.15)
        bar.update(1)
"""


def shown_in_terminal(columns: int) -> str:
    """What a bar shows in a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([sys.executable, "-c", BAR], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [120, 60, 0])
def test_bar_fits_the_terminal_and_is_seen_where_the_terminal_does_not_tell_its_width(columns: int) -> None:
    lines = shown_in_terminal(columns).split("\r")
    assert "work: 100%" in lines[-2]
    assert "4/4" in lines[-2]
    assert all(len(line.rstrip()) <= (columns or 80) for line in lines)
