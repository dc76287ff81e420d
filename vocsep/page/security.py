"""Who may ask the page for anything: its own scripts in a browser on this machine, and nobody else.

A web site that the user visits can send requests to loopback, and point its own name there. So every request must
name this host (else a foreign name leads here: DNS rebinding), come from this page or from the address bar (`Origin`,
`Sec-Fetch-Site`), and any request that changes something must hold the token that the page contains (CSRF).
"""

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vocsep.html.pages import player_script_hash

TOKEN_HEADER = "x-vocsep-token"
_READING = ("GET", "HEAD")
_FOREIGN = "asked for by another page; type the address into the browser's address bar"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
REPORT_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src '{player_script_hash()}'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "media-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
        "sandbox allow-scripts",
    )
)
"""Of a report, which holds its style, pictures and sounds; no script runs but that of the players, to the letter."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what does not come from the page itself, and adds the headers that browsers need to keep it so."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._token = token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal:
            await JSONResponse({"error": refusal}, status_code=403)(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> str:
        """Why a request is refused; empty if it is not."""
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            return "this page answers under its own address alone"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return _FOREIGN
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _FOREIGN
        if method not in _READING:
            given = headers.get(TOKEN_HEADER, "")
            if not secrets.compare_digest(given.encode("latin-1", "replace"), self._token.encode()):
                return "the page was restarted; load it again"
        return ""
