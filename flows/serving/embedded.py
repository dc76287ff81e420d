"""Prefect server processes on this machine: the one that lives as long as a command, and waiting for a healthy one."""

import atexit
import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import prefect
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from storage.errors import UserError

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 600.0
"""Against a server that hangs; on a busy machine its start takes minutes."""

_LOG_LINES_SHOWN = 15


def api_url(port: int) -> str:
    """API address of a server on this machine."""
    return f"http://{HOST}:{port}/api"


def free_port() -> int:
    """A port that no program listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether any program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex((HOST, port)) == 0


def is_healthy(url: str) -> bool:
    """Whether a Prefect server answers at an API address."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: Path | None = None) -> None:
    """Wait for a server that was just started.

    Raises
    ------
    UserError
        If it ends, or does not answer in time; with the end of its log.
    """
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_healthy(url):
        ended = server.poll() is not None
        if ended or time.monotonic() > deadline:
            why = f"ended with code {server.returncode}" if ended else "does not answer"
            raise UserError(f"the Prefect server at {url} {why}{log_end(log)}")
        time.sleep(0.1)


def log_end(log: Path | None) -> str:
    """The last lines of a log for an error message; empty without one."""
    if log is None or not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    return "".join(f"\n  {line}" for line in [f"the end of {log}:", *lines])


@functools.cache
def own_server() -> str:
    """Start a server without a UI that ends with this process, however that ends, once; returns its API address.

    (The server that Prefect starts by itself outlives a process that is killed.)
    """
    port = free_port()
    command = [sys.executable, "-m", "flows.serving.tied", "uvicorn", "--app-dir", str(prefect.__module_path__.parent)]
    command += ["--factory", "prefect.server.api.server:create_app", "--host", HOST, "--port", str(port)]
    command += ["--log-level", "error", "--lifespan", "on", "--ws-ping-timeout", "300"]
    environment = {**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    # Its input is the tie. It has its own session: Ctrl-C ends the flow first, which then tells the server.
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    atexit.register(_end, server)
    wait_until_healthy(api_url(port), server)
    return api_url(port)


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(timeout=60)
    except subprocess.TimeoutExpired:
        server.kill()


@contextlib.contextmanager
def using(url: str, has_ui: bool = True) -> Iterator[None]:
    """Run what is inside against the server at an API address."""
    ui = {} if has_ui else {PREFECT_UI_URL: ""}
    with temporary_settings({PREFECT_API_URL: url} | ui):
        yield
