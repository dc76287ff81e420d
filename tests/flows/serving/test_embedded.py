import signal
import subprocess
import sys
from pathlib import Path

import psutil

from flows.environment import PREFECT_TOML, PREFECT_TOML_MARK
from flows.serving.embedded import is_healthy
from tests.flows.conftest import clean_environment
from tests.helpers import free_port

STARTER = """
import time
from flows.environment import set_defaults
set_defaults()
from flows.serving.embedded import own_server
print(own_server(), own_server(), flush=True)
time.sleep(3600)
"""


def test_server_that_a_command_starts_answers_and_ends_with_a_killed_command(tmp_path: Path) -> None:
    environment = {**clean_environment(), "PREFECT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            url, again = starter.stdout.readline().split()
            assert url == again
            assert is_healthy(url)
            (server,) = psutil.Process(starter.pid).children()
        finally:
            starter.send_signal(signal.SIGKILL)
    psutil.wait_procs([server], timeout=600)
    assert not server.is_running()
    assert not is_healthy(url)


def defaults_in(folder: Path) -> None:
    code = "from flows.environment import set_defaults; set_defaults()"
    environment = clean_environment()
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)


def test_address_of_a_server_that_is_gone_is_forgotten_but_not_one_that_the_user_wrote(tmp_path: Path) -> None:
    address = f'[api]\nurl = "http://127.0.0.1:{free_port()}/api"\n'
    (tmp_path / PREFECT_TOML).write_text(address)
    defaults_in(tmp_path)
    assert (tmp_path / PREFECT_TOML).read_text() == address
    (tmp_path / PREFECT_TOML).write_text(f"{PREFECT_TOML_MARK}\n{address}")
    defaults_in(tmp_path)
    assert not (tmp_path / PREFECT_TOML).exists()
