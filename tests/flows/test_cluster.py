"""The local Dask cluster: who can reach it."""

import socket

import psutil

from flows.cluster import dask_client
from tests.helpers import beyond_loopback, listening


def answer(port: int, path: str) -> bytes:
    """The first line that is answered to a browser; empty if what listens there speaks no HTTP."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        try:
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except OSError:
            return b""
    return received.split(b"\r\n")[0] if received.startswith(b"HTTP/") else b""


def test_local_cluster_listens_on_loopback_only_and_shows_no_page() -> None:
    with dask_client(2, 2):
        this = psutil.Process()
        everyone = [this, *this.children(recursive=True)]
        held = listening(everyone)
        assert len(held) > 2
        assert beyond_loopback(everyone) == {}
        paths = ("/info/main/workers.html", "/json/counts.json", "/status", "/metrics", "/")
        answers = [answer(port, path) for _, port in held for path in paths]
        assert any(answers)
        assert {line for line in answers if line and b" 404 " not in line} == set()
