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
    # The embedded server of a fresh home takes longer than Prefect's own limit of 20 s to start. These and the next are
    # there against what hangs; a busy machine, where all takes ten times as long, must not come near them.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
    "PREFECT_SERVER_API_WEBSOCKET_PING_TIMEOUT": "300",
    "PREFECT_API_REQUEST_TIMEOUT": "300",
    # The library's log lines belong to the run.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "vocsep",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Seconds between two signs of life of a run: the least that Prefect takes; see flows/serving/dead_runs.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}

# Commands in this folder use the server that it names (`prefect` itself reads this file).
PREFECT_TOML = Path("prefect.toml")
PREFECT_TOML_MARK = "# Written by `make serve`, removed by `make stop`."


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def set_defaults() -> None:
    """Set what the user has not set, keep proxies away from this machine's own servers, forget one that is gone, and
    make the folder that PREFECT_HOME names.

    Raises
    ------
    UserError
        If that folder cannot be made.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    no_proxy_for_loopback()
    _forget_gone_server()
    # Prefect does not make its parents.
    if home := os.environ.get("PREFECT_HOME"):
        try:
            Path(home).expanduser().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"PREFECT_HOME={home}: cannot be made ({error.strerror}); name another folder") from error


def no_proxy_for_loopback() -> None:
    """Have this process and those that it starts connect to this machine directly, without proxies.

    A proxy that Prefect's HTTP client cannot use, such as a SOCKS one, fails even where it would not be asked; so does
    a host that it cannot understand, such as `[::1]`.
    """
    held = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for name in [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        if not _is_usable(os.environ[name]):
            del os.environ[name]
    hosts = [host for host in map(str.strip, held.split(",")) if host and _is_host(host)]
    value = "*" if "*" in hosts else ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = value


def _is_usable(proxy: str) -> bool:
    import httpx

    try:
        httpx.HTTPTransport(proxy=proxy if "://" in proxy else f"http://{proxy}", verify=False).close()
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True


def _is_host(name: str) -> bool:
    import httpx

    os.environ["no_proxy"] = name
    try:
        httpx.Client(verify=False).close()
    except httpx.InvalidURL:
        return False
    return True


def _forget_gone_server() -> None:
    """Remove the address that `serve` left if nothing answers there any more, as after the machine went down."""
    if not PREFECT_TOML.is_file():
        return
    text = PREFECT_TOML.read_text(encoding="utf-8")
    if not text.startswith(PREFECT_TOML_MARK):
        return
    address = urllib.parse.urlsplit(tomllib.loads(text)["api"]["url"])
    try:
        socket.create_connection((address.hostname, address.port), timeout=10).close()
    except OSError:
        PREFECT_TOML.unlink(missing_ok=True)
