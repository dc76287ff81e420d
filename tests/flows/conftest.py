"""A Prefect server for the flow tests, and running commands as a user does."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forked import Forked, run_forked
from tests.helpers import free_port

Run = Callable[..., "subprocess.CompletedProcess[str]"]

QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("MUSDB_PATH", "DASK_ADDRESS") and not name.startswith("PREFECT_")
    }


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """API URL of a real server with its own home."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    environment = {**clean_environment(), **QUIET, "PREFECT_HOME": str(home)}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}/api"
            wait_for_health(url, server, home / "server.log")
            yield url
        finally:
            server.terminate()
            server.wait(timeout=600)


def wait_for_health(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no healthy Prefect server after 600 s: {log.read_text()}")


@pytest.fixture(scope="session")
def flows_environment(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("prefect-client")
    return {**clean_environment(), **QUIET, "PREFECT_HOME": str(home), "PREFECT_API_URL": prefect_server}


@pytest.fixture(scope="session")
def run_flows(flows_environment: dict[str, str]) -> Run:
    """Do what `python -m flows ...` does in a folder, against the test server."""

    def run(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return run_forked("flows.cli", *arguments, folder=folder, environment={**flows_environment, **variables})

    return run


@contextlib.contextmanager
def flow_process(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Forked]:
    """What `python -m flows ...` does, while it runs; it is killed at the end."""
    with contextlib.closing(Forked("flows.cli", *arguments, folder=folder, environment=environment)) as process:
        yield process


def wait_until(reached: Callable[[], bool], process: Forked) -> None:
    """Wait until a running process got somewhere."""
    deadline = time.monotonic() + 600
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="session")
def trained(run_flows: Run, demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which preprocess, train and evaluate ran once on the tiny demo dataset; do not modify it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(demo_root, folder / "songs")
    preprocessing = ["preprocess", "--dataset", "songs", "--workers", "1"]
    # Every validation draws pictures, which takes longer than the steps.
    training = ["train", "--steps", "40", "--batch-size", "8", "--width", "8", "--validations", "2"]
    result = run_flows(folder, *preprocessing, *training, "evaluate", "--dataset", "songs")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "output.txt").write_text(result.stdout)
    (folder / "errors.txt").write_text(result.stderr)
    return folder
