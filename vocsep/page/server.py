"""The server of the page: on loopback alone, until it is told to end."""

import contextlib
import os
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from storage.errors import UserError
from storage.lock import locked
from vocsep.page.queue import Queue
from vocsep.page.routes import Place, application
from vocsep.page.security import Guard
from vocsep.page.songs import Songs
from vocsep.page.uploads import MOST_BYTES, Uploads

HOST = "127.0.0.1"
_END_SECONDS = 3


def serve(
    folder: Path,
    models: Path,
    reports: Path,
    port: int,
    *,
    most_bytes: int = MOST_BYTES,
    on_start: Callable[[str], None],
) -> None:
    """Serve the page until a signal ends it, which is then raised as it would be without the page.

    Parameters
    ----------
    folder
        Of the songs; one server at a time.
    port
        0 takes one that is free.
    most_bytes
        Of an upload.
    on_start
        Called with the address, once it can be asked.

    Raises
    ------
    UserError
        If the port is taken, or the folder is in use or cannot be written.
    """
    with locked(folder / ".lock", folder), contextlib.closing(_listening(port)) as listener:
        actual = listener.getsockname()[1]
        songs, token = Songs(folder), secrets.token_urlsafe(32)
        app = application(songs, Queue(songs, models), Uploads(songs, most_bytes), Place(models, reports, token))
        config = uvicorn.Config(
            Guard(app, actual, token),
            log_config=None,
            access_log=False,
            ws="none",
            http="h11",
            server_header=False,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        server = _Server(config, lambda: on_start(f"http://{HOST}:{actual}/"))
        server.run_until_signal(listener)


def open_browser(address: str) -> None:
    """Open an address in a browser with windows, where there is one."""
    has_windows = sys.platform in ("darwin", "win32") or any(os.environ.get(x) for x in ("DISPLAY", "WAYLAND_DISPLAY"))
    if has_windows:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def run_until_signal(self, listener: socket.socket) -> None:
        """Uvicorn ends by SIGINT and SIGTERM and raises them again; so it is with SIGHUP."""
        hung_up = False

        def on_hangup(number: int, frame: FrameType | None) -> None:
            nonlocal hung_up
            hung_up = self.should_exit = True

        handler = signal.getsignal(signal.SIGHUP)
        if handler is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, on_hangup)
        try:
            self.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGHUP, handler)
        if hung_up:
            signal.raise_signal(signal.SIGHUP)


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        reason = "is taken by another program" if isinstance(error, OSError) else "is no port"
        raise UserError(f"port {port} {reason}; name another one: vocsep page --port {(port + 1) % 65536}") from None
