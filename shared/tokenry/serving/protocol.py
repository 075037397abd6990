"""
The HTTP connection, as aiohttp makes it, with its loose ends tied.

* A head that does not arrive within `HEAD_DEADLINE_SECONDS` closes the connection (aiohttp waits for more
  than a minute), so that half-open requests cannot pile up.
* What is not HTTP is answered by a 400 that repeats nothing of it (aiohttp's own quotes the offending header,
  which may be a token), and the log names the kind of fault only.
* Bodies are not decompressed: no endpoint takes a compressed one, and `read_body` refuses them.
* The answer names no server software.
* What the application can answer at once (`tokenry.serving.quick`) is answered at once: after the parser, before
  anything else of aiohttp.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.streams import EMPTY_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.web_request import BaseRequest

    from tokenry.serving.quick import QuickAnswers

HEAD_DEADLINE_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75.0  # longer than the 60 s for which common balancers keep an idle connection
LINGER_SECONDS = 2.0  # to take what is left of a refused body, so that the caller gets to read the refusal
MAX_LINE_BYTES = 16_384  # a token of 8 KiB fits into the request line (`access_token=`) and into a header
MAX_HEADERS = 100

_log = structlog.get_logger("tokenry.serving.protocol")
_SILENT = logging.getLogger("tokenry.serving.aiohttp")  # aiohttp's texts may quote what was sent
_SILENT.disabled = True


class _Refusal(web.Response):
    """An answer outside the application: without the name of the server, and the last on its connection."""

    def __init__(self, status: int, code: str, description: str, headers: dict[str, str]) -> None:
        body = json.dumps({"error": code, "error_description": description}).encode()
        super().__init__(
            status=status,
            body=body,
            content_type="application/json",
            headers={"Cache-Control": "no-store", **headers},
        )
        self.force_close()

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def refusal(status: int, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer to a request that the application never saw."""
    if status >= 500:  # noqa: PLR2004 -- the class of statuses
        return _Refusal(status, "server_error", "internal error", headers or {})
    return _Refusal(status, "invalid_request", "this is not a request that can be understood", headers or {})


class _AnsweringParser:
    """aiohttp's parser, without the requests that the connection has answered already."""

    __slots__ = ("_answer", "_parser")

    def __init__(self, parser: Any, answer: Callable[[Sequence[Any]], Sequence[Any]]) -> None:  # noqa: ANN401 -- aiohttp's
        self._parser = parser
        self._answer = answer

    def feed_data(self, data: bytes) -> tuple[Sequence[Any], bool, bytes]:
        messages, upgraded, tail = self._parser.feed_data(data)
        if messages and not upgraded:
            messages = self._answer(messages)
        return messages, upgraded, tail

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever else aiohttp wants of its parser
        return getattr(self._parser, name)


class Connection(web.RequestHandler):
    """One connection of a caller."""

    def __init__(
        self, server: web.Server, *, on_malformed: Callable[[], None], quick: QuickAnswers | None = None
    ) -> None:
        """
        Serve one connection of *server*.

        Args:
            server: The application's server, which hands requests to it.
            on_malformed: Called when the connection is refused or cut for what came, or did not come, on it.
            quick: What is answered at once.
        """
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            logger=_SILENT,
            access_log=_SILENT,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
        self._on_malformed = on_malformed
        self._head_timer: asyncio.TimerHandle | None = None
        self._quick = quick
        self._answered = False
        self._ordinary_answers = 0
        self._stays_open = True
        if quick is not None:
            self._parser: Any = _AnsweringParser(self._parser, self._answer_at_once)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take *data*; start the clock of a head with its first byte, and stop it with its last."""
        idle = self._waiter is not None and not self._waiter.done()
        seen = self._request_count
        self._answered = False
        super().data_received(data)
        if self._answered or self._request_count > seen:
            self._stop_waiting()
        elif idle:
            self._await_head()

    def _answer_at_once(self, messages: Sequence[Any]) -> Sequence[Any]:
        """
        Answer what can be answered at once, and return the rest of *messages*, in their order.

        Only on a connection on which nothing is under way (all that aiohttp was handed has been answered), so that no
        answer overtakes another; and only while its caller reads (`_paused` is set when too much of our answers is
        waiting to be sent).
        """
        quick, transport = self._quick, self.transport
        under_way = self._request_count != self._ordinary_answers or not self._stays_open
        if under_way or quick is None or transport is None:
            return messages
        for number, (message, payload) in enumerate(messages):
            answer = None
            if (
                payload is EMPTY_PAYLOAD
                and message.version == HttpVersion11
                and not message.should_close
                and not message.upgrade
                and not self._paused
            ):
                try:
                    answer = quick(message.method, message.path, message.headers)
                except Exception as error:  # noqa: BLE001 -- the ordinary way is there for all requests
                    _log.error("quick answer failed", kind=type(error).__name__)
            if answer is None:
                return messages[number:]
            transport.write(answer)
            self._parser.message_consumed()
            self._answered = True
            self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE_SECONDS
        return ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's text quotes what was sent
    ) -> web.StreamResponse:
        """Answer what the application did not see, or what broke outside of it."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        kind = type(exc).__name__ if exc is not None else ""
        if status < 500:  # noqa: PLR2004 -- the class of statuses
            self._on_malformed()
            _log.info("malformed request", kind=kind)
        else:
            _log.error("request failed outside the application", kind=kind)
        return refusal(status)

    async def _handle_request(
        self,
        request: BaseRequest,
        start_time: float | None,
        request_handler: Any,  # noqa: ANN401 -- aiohttp's own type
    ) -> tuple[web.StreamResponse, bool]:
        """Answer the ordinary way, and count it; a request that ends in an exception stays under way for ever."""
        response, reset = await super()._handle_request(request, start_time, request_handler)
        self._ordinary_answers += 1
        self._stays_open = bool(response.keep_alive)
        return response, reset

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send *resp*, or our own words in place of an aiohttp error that no middleware has seen."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:  # noqa: PLR2004 -- an error
            resp = refusal(resp.status)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *_args: object, exc_info: object = None, **_kw: object) -> None:
        """Log the kind of a fault in the connection, not its text."""
        _log.error("connection failed", kind=type(exc_info).__name__)

    def _await_head(self) -> None:
        if self._head_timer is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(HEAD_DEADLINE_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        self._on_malformed()
        self.force_close()
