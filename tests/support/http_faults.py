"""
An HTTP server between a client and a real one, which answers badly when told to: refusals, damage, silence, old copies.

What a network can do to bytes is `tests.support.fault_proxy`'s; this is what a server, a bucket or a cache can do.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_FORWARD_SECONDS: Final = 120.0  # beyond every held request
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"})


@dataclass(frozen=True, slots=True)
class Exchanged:
    """
    One answer, as the real server gave it or as it is given instead.

    Attributes:
        status: HTTP status.
        headers: Fields; length and connection are added.
        body: Content.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpFaults:
    """
    Passes every request on to *target*, and its answer back, as `change` says.

    Args:
        target: Host and port of the real server.

    Attributes:
        requests: When each request came (monotonic) and its target, oldest first.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._change: Callable[[str, Callable[[], Exchanged]], Exchanged] = lambda _target, ask: ask()
        self.requests: list[tuple[float, str]] = []
        faults = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = _FORWARD_SECONDS

            def _any(self) -> None:
                faults._serve(self)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any  # noqa: N815 -- the names that the base class looks for

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                """Say nothing: connections that are reset are what this is for."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="http-faults", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self._server.server_port

    def pass_(self) -> None:
        """Change nothing any more."""
        self._change = lambda _target, ask: ask()

    def change(self, changed: Callable[[str, Callable[[], Exchanged]], Exchanged]) -> None:
        """Answer with `changed(target, ask)` from now on; `ask()` makes the real server answer."""
        self._change = changed

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer every request like this, without asking the real server."""
        self.change(lambda _target, _ask: Exchanged(status, headers, body))

    def refuse_as_s3(self, status: int, code: str) -> None:
        """Answer every request with an error document of S3."""
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'
        self.answer(status, body.encode(), **{"Content-Type": "application/xml"})

    def since(self, moment: float) -> list[str]:
        """Return the targets of the requests that came after *moment* (monotonic)."""
        return [target for when, target in list(self.requests) if when > moment]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((time.monotonic(), handler.path))
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        try:
            answer = self._change(handler.path, lambda: self._ask(handler, body))
        except (OSError, http.client.HTTPException):
            handler.close_connection = True
            return
        try:
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            if answer.status != http.HTTPStatus.NOT_MODIFIED:
                handler.send_header("Content-Length", str(len(answer.body)))
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(answer.body)
        except OSError:
            handler.close_connection = True

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> Exchanged:
        connection = http.client.HTTPConnection(*self._target, timeout=_FORWARD_SECONDS)
        try:
            fields = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(handler.command, handler.path, body=body or None, headers=fields)
            response = connection.getresponse()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
            return Exchanged(response.status, headers, response.read())
        finally:
            connection.close()
