"""A page that really runs: `vocsep page` as a process, and what asks it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

# As in a terminal: what a shell starts in the background ignores Ctrl-C.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vocsep.cli.main import main
main()
"""
PATIENCE_SECONDS = 600


@dataclass
class RunningPage:
    """A page at a port of this machine, the folder of its songs, and its process."""

    port: int
    folder: Path
    process: "subprocess.Popen[str]"
    _token: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        if not self._token:
            page = self.ask("GET", "/").content.decode()
            self._token = page.partition('name="vocsep-token" content="')[2].partition('"')[0]
        return self._token

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> "Answer":
        """A request with exactly these headers; `Host` is the page's own unless it is among them."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None and "Content-Length" not in (headers or {}):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            if body is not None:
                connection.send(body)
            response: HTTPResponse = connection.getresponse()
            return Answer(
                response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
            )

    def change(self, method: str, path: str, value: Any = None, body: bytes | None = None) -> "Answer":
        """What the page's own scripts ask: with the token."""
        content = body if value is None else json.dumps(value).encode()
        return self.ask(method, path, content or b"", {"X-Vocsep-Token": self.token})

    def upload(self, name: str, content: bytes, **options: Any) -> str:
        """Id of the song that an upload becomes."""
        announced = self.change("POST", "/api/songs", {"name": name, "size": len(content), "options": options})
        assert announced.status == 201, announced.content
        song: str = announced.json()["id"]
        assert self.change("PUT", f"/api/songs/{song}", body=content).status == 201
        return song

    def songs(self) -> dict[str, Any]:
        """All songs by their ids."""
        return {song["id"]: song for song in self.ask("GET", "/api/state").json()["songs"]}

    def ended(self, song: str, take: int = 1) -> dict[str, Any]:
        """A take, once it is separated or has failed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found: dict[str, Any] = next(one for one in self.songs()[song]["takes"] if one["id"] == take)
            if found["state"] in ("done", "failed"):
                return found
            time.sleep(0.1)
        raise AssertionError(f"take {take} of {song} is not separated after {PATIENCE_SECONDS} s")


@dataclass
class Answer:
    """What the page answered."""

    status: int
    content: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.content)


@contextlib.contextmanager
def running_page(folder: Path, *options: str) -> Iterator[RunningPage]:
    """A page whose songs are in a folder, until the end of the `with` statement."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "page", "--port", "0", "--folder", str(folder), *options],
        env=environment,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line or process.communicate()[1]
        yield RunningPage(int(line.partition("127.0.0.1:")[2].partition("/")[0]), folder, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        process.kill()
        process.communicate()
