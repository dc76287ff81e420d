"""Prefect settings that every process of vocsep needs; imported before prefect."""

import os
import socket
import tomllib
import urllib.parse
from pathlib import Path

from storage.errors import UserError

DEFAULTS = {
    # Offline there is nobody to report usage to; without these two the server logs an error every few minutes.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The embedded server of a fresh home takes longer than Prefect's own limit of 20 s to start.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # The library's log lines belong to the run.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "vocsep",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Seconds between two signs of life of a run: the least that Prefect takes; see flows/serving/dead_runs.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}

# Commands in this folder use the server that it names (`prefect` itself reads this file).
PREFECT_TOML = Path("prefect.toml")
PREFECT_TOML_MARK = "# Written by `make serve`, removed by `make stop`."


def set_defaults() -> None:
    """Set what the user has not set, forget a server that is gone, and make the folder that PREFECT_HOME names.

    Raises
    ------
    UserError
        If that folder cannot be made.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    _forget_gone_server()
    # Prefect does not make its parents.
    if home := os.environ.get("PREFECT_HOME"):
        try:
            Path(home).expanduser().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"PREFECT_HOME={home}: cannot be made ({error.strerror}); name another folder") from error


def _forget_gone_server() -> None:
    """Remove the address that `serve` left if nothing is there any more, as after the machine went down."""
    if not PREFECT_TOML.is_file():
        return
    text = PREFECT_TOML.read_text(encoding="utf-8")
    if not text.startswith(PREFECT_TOML_MARK):
        return
    address = urllib.parse.urlsplit(tomllib.loads(text)["api"]["url"])
    try:
        socket.create_connection((address.hostname, address.port), timeout=2).close()
    except OSError:
        PREFECT_TOML.unlink(missing_ok=True)
