"""What many tests ask: the line that a mistake gives, what is in a folder, one flipped bit, decibels, processes."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from storage.errors import UserError


def one_line(action: Callable[[], object], *parts: object) -> str:
    """The one line of the `UserError` that `action` raises, which names all `parts`."""
    with pytest.raises(UserError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def bundled_scores() -> tuple[float, float]:
    """SDR in dB that the bundled model's file states: of the validation songs, and of the test songs' vocals."""
    file = Path(__file__).parents[1] / "vocsep" / "models" / "bundled" / "model.json"
    description = json.loads(file.read_text())
    return description["metrics"]["valid_sdr_db"], description["scores"]["rows"]["model"]["vocals"]["SDR"]["median"]


def tree(path: Path) -> dict[str, bytes]:
    """The files in a folder and what is in them, by path relative to it."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def flip(path: Path, position: int | None = None) -> None:
    """Change one bit of a file, by default in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)


def decibels(signal: NDArray[Any], noise: NDArray[Any]) -> float:
    """Power of a signal over that of a noise, in dB."""
    return float(10 * np.log10(np.sum(np.square(signal, dtype=float)) / np.sum(np.square(noise, dtype=float))))


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(*processes: "subprocess.Popen[str]") -> None:
    """Give each process a line of input."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def free_port() -> int:
    """A port of this machine that no program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listening(processes: Iterable[psutil.Process]) -> dict[tuple[str, int], str]:
    """Addresses at which processes listen, and which program does."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found[tuple(connection.laddr)] = " ".join(process.cmdline())
    return found


def beyond_loopback(processes: Iterable[psutil.Process]) -> dict[tuple[str, int], str]:
    """Those of `listening` that other machines could reach."""
    return {place: who for place, who in listening(processes).items() if place[0] not in ("127.0.0.1", "::1")}
