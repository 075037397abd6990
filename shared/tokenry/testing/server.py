"""An HTTP server on a loopback port, for fakes: the standard library's, one thread a connection."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from tokenry.http.fetch import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.http.fetch import Response

_MAX_BODY_BYTES: Final = 1 << 20


class LoopbackServer:
    """
    Serves *answer* on `127.0.0.1` until it is closed.

    Args:
        answer: Returns the response to a request, or None to close the connection without one.
        port: 0 chooses a free one.
    """

    def __init__(self, answer: Callable[[Request], Response | None], *, port: int = 0) -> None:
        """Bind the port and start to serve."""
        handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="tokenry-loopback", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into `Request` and `Response`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answer: Callable[[Request], Response | None]

    def _serve(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), _MAX_BODY_BYTES)
        host = self.headers.get("Host", "127.0.0.1")
        request = Request(
            url=f"http://{host}{self.path}",
            method=self.command,
            headers=dict(self.headers.items()),
            body=self.rfile.read(length) if length else None,
        )
        response = type(self).answer(request)
        if response is None:
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 -- the names of the base class

    def handle(self) -> None:
        """Serve one connection; a peer that goes away is nothing to report."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Say nothing: the test's output is the test's."""
