"""The local Dask cluster: who can reach it, and what it does with little memory."""

import os
import socket
import time

import psutil
import pytest

from flows import cluster
from flows.cluster import dask_client, dask_map
from tests.helpers import beyond_loopback, listening
from vocsep.memory import SONG_BYTES
from vocsep.sessions import cores_are_divided_among_sessions

kept: list[bytes] = []


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


def keep_memory(number: int, share: float) -> int:
    """Keep this share of a worker's memory, as one does that had a long song."""
    missing = round(share * SONG_BYTES) - psutil.Process().memory_info().rss
    kept.append(b"x" * max(0, missing))
    time.sleep(1)  # it is looked at ten times a second
    return number


def test_worker_whose_memory_is_nearly_full_goes_on_with_the_next_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "usable_memory", lambda: 0)  # so that a worker gets the least there is
    with dask_map(1, "songs") as mapped:
        outcomes = mapped(keep_memory, range(3), (0.88,))
    assert {one.result for one in outcomes} == {0, 1, 2}


def session(number: int) -> int:
    return os.getsid(0)


@pytest.mark.skipif(not cores_are_divided_among_sessions(), reason="this kernel does not divide cores among sessions")
def test_workers_have_sessions_of_their_own() -> None:
    with dask_map(2, "songs") as mapped:
        outcomes = mapped(session, range(4), ())
    assert os.getsid(0) not in {one.result for one in outcomes}
