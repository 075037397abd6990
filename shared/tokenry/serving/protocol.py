"""
The HTTP connection, as aiohttp makes it, with its loose ends tied.

* A head that does not arrive within `Limits.head_seconds` closes the connection (aiohttp waits for more
  than a minute), so that half-open requests cannot pile up.
* What is not HTTP is answered by a 400 that repeats nothing of it (aiohttp's own quotes the offending header,
  which may be a token), and the log names the kind of fault only.
* A caller that does not take its answer is cut off (`Limits.send_seconds`), and so is one whose body was malformed,
  or that wants to speak another protocol.
* Connections beyond `Limits.connections` are closed as they are made, so that those that are there go on being served.
* Bodies are not decompressed: no endpoint takes a compressed one, and `read_body` refuses them.
* The answer names no server software.
* What the application can answer at once (`tokenry.serving.quick`) is answered at once: after the parser, before
  anything else of aiohttp.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.streams import EMPTY_PAYLOAD

from tokenry.serving.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.web_request import BaseRequest

    from tokenry.serving.quick import QuickAnswers, QuickForms

LINGER_SECONDS = 2.0  # to take what is left of a refused body, so that the caller gets to read the refusal
MAX_LINE_BYTES = 16_384  # a token of 8 KiB fits into the request line (`access_token=`) and into a header
MAX_HEADERS = 100
_SWITCHING = 101
_PROGRESS_BYTES = 65_536  # to be taken within `send_seconds` by whoever wants to go on: 1 kB/s
_QUICK_FORM_BYTES = 16_384  # of a form that is answered at once; a larger one goes the ordinary way
_KEPT_BYTES = 65_536  # behind a request that waits for its turn, before no more is read
_SMALL_BYTES = 16_384  # of an answer that fits into what a transport takes without being told to wait (64 KiB)

_log = structlog.get_logger("tokenry.serving.protocol")
_SILENT = logging.getLogger("tokenry.serving.aiohttp")  # aiohttp's texts may quote what was sent
_SILENT.disabled = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What one caller, and all of them together, may take.

    Attributes:
        connections: Connections at a time.
        head_seconds: Within which the head of a request must have come.
        idle_seconds: For which a connection without a request is kept.
        send_seconds: Within which a caller must have taken an answer, or of a large one 64 KiB more.
    """

    connections: int = 10_000
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    send_seconds: float = 60.0


class Crowd:
    """The connections that there are, at most *limit*."""

    __slots__ = ("_on_full", "_present", "_room")

    def __init__(self, limit: int, *, on_full: Callable[[], None]) -> None:
        """Let *limit* in; *on_full* is called for each one that is not."""
        self._room = limit
        self._present: set[Connection] = set()
        self._on_full = on_full

    def enter(self, connection: Connection) -> bool:
        """Tell whether there is room for *connection*; then it is in."""
        if len(self._present) >= self._room:
            self._on_full()
            return False
        self._present.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Make room, if *connection* was in."""
        self._present.discard(connection)


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


_NOTHING: tuple[Sequence[Any], bool, bytes] = ((), False, b"")


class _AnsweringParser:
    """
    aiohttp's parser, without the requests that the connection has answered already.

    Where one of them waits for its turn, it and what comes behind it are held back here, in their order.

    Attributes:
        message_consumed: The parser's own; to be called for each request that was answered.
        waits: Whether the first request held back waits for its turn.
        kept: Bytes that came meanwhile.
    """

    __slots__ = ("_answer", "_feed", "_held", "_look_again", "_parser", "kept", "message_consumed", "waits")

    def __init__(
        self,
        parser: Any,  # noqa: ANN401 -- aiohttp's
        answer: Callable[[Sequence[Any]], Sequence[Any]],
        look_again: Callable[[], None],
    ) -> None:
        self._parser = parser
        self._feed = parser.feed_data
        self.message_consumed = parser.message_consumed
        self._answer = answer
        self._look_again = look_again
        self._held: Sequence[Any] = ()
        self.waits = False
        self.kept = b""

    def hold(self, messages: Sequence[Any]) -> None:
        """Hold *messages* back, of which the first waits for its turn, until `waits` is false and more is fed."""
        self._held, self.waits = messages, True

    def feed_data(self, data: bytes) -> tuple[Sequence[Any], bool, bytes]:
        """
        Return what *data* holds and was not answered.

        The parser stops after some requests until it hears that one was taken, and keeps the bytes of the rest. What is
        answered here makes room, so the rest is asked for: at once, or where requests remain, when those are done.
        """
        if self.kept or self.waits or self._held:
            self.kept += data
            if self.waits:
                return _NOTHING
            messages, upgraded, tail = self._held, False, b""
            self._held = ()
            if not messages:
                messages, upgraded, tail = self._feed_kept()
            alone = False
        else:
            messages, upgraded, tail = self._feed(data)
            alone = len(messages) == 1  # the usual: then the parser has not stopped
        while messages and not upgraded:
            rest = self._answer(messages)
            if alone and not rest:
                return _NOTHING
            if self.waits:
                return _NOTHING
            if rest:
                if len(rest) < len(messages) or self.kept:
                    self._look_again()
                return rest, upgraded, tail
            messages, upgraded, tail = self._feed_kept()
            alone = False
        return messages, upgraded, tail

    def _feed_kept(self) -> tuple[Sequence[Any], bool, bytes]:
        data, self.kept = self.kept, b""
        fed: tuple[Sequence[Any], bool, bytes] = self._feed(data)
        return fed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever else aiohttp wants of its parser
        return getattr(self._parser, name)


class Connection(web.RequestHandler):
    """One connection of a caller."""

    def __init__(
        self,
        server: web.Server,
        *,
        on_malformed: Callable[[], None],
        quick: QuickAnswers | None = None,
        forms: QuickForms | None = None,
        limits: Limits | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        """
        Serve one connection of *server*.

        Args:
            server: The application's server, which hands requests to it.
            on_malformed: Called when the connection is refused or cut for what came, or did not come, on it.
            quick: What is answered at once.
            forms: What is answered at once of requests that have a body.
            limits: How long is waited for what.
            crowd: Where there must be room.
        """
        self._limits = limits or Limits()
        self._crowd = crowd
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._limits.idle_seconds,
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
        self._forms = forms
        self._answered = False
        self._ordinary_answers = 0
        self._stays_open = True
        self._its_turn = False
        if quick is not None or forms is not None:
            self._parser: Any = _AnsweringParser(self._parser, self._answer_at_once, self._look_again)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        if self._crowd is not None and not self._crowd.enter(self):
            self.force_close()
            return
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting."""
        if self._crowd is not None:
            self._crowd.leave(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take *data*; start the clock of a head with its first byte, and stop it with its last."""
        idle = self._waiter is not None and not self._waiter.done()
        seen = self._request_count
        self._answered = False
        super().data_received(data)
        if self._is_waiting() and len(self._parser.kept) > _KEPT_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()
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
        transport = self.transport
        under_way = self._request_count != self._ordinary_answers or not self._stays_open
        if under_way or transport is None:
            return messages
        for number, (message, payload) in enumerate(messages):
            answer = None
            if (
                message.version == HttpVersion11
                and not message.should_close
                and not message.upgrade
                and not self._paused
            ):
                try:
                    answer = self._quick_answer(message, payload, transport, alone=len(messages) == 1)
                except Exception as error:  # noqa: BLE001 -- the ordinary way is there for all requests
                    _log.error("quick answer failed", kind=type(error).__name__)
            if answer is None:
                return messages[number:]
            if isinstance(answer, Turns):
                self._parser.hold(messages[number:])
                answer.wait(self._go_on)
                self._answered = True  # its head is there
                return ()
            transport.write(answer)
            self._parser.message_consumed()
            self._answered = True
            self._next_keepalive_close_time = self._loop.time() + self._limits.idle_seconds
        return ()

    def _quick_answer(
        self,
        message: Any,  # noqa: ANN401 -- aiohttp's
        payload: Any,  # noqa: ANN401 -- aiohttp's
        transport: asyncio.Transport,
        *,
        alone: bool,
    ) -> bytes | Turns | None:
        """
        Return what is to be written, or what is to be waited for, or None.

        A form only if all of it is there and no other request waits.
        """
        if payload is EMPTY_PAYLOAD:
            quick, waited = self._quick, self._its_turn
            if quick is None:
                return None
            self._its_turn = False
            return quick(message.method, message.path, message.headers, transport, waited=waited)
        forms = self._forms
        if (
            forms is None
            or not alone
            or not payload.is_eof()
            or payload.total_bytes > _QUICK_FORM_BYTES
            or payload.exception() is not None
            or not forms.takes(message.method, message.path)
        ):
            return None
        # Looked at, not taken: whoever goes the ordinary way reads it there.
        return forms(message.path, message.headers, b"".join(payload._buffer), transport)  # noqa: SLF001

    def _is_waiting(self) -> bool:
        """Tell whether a request waits for its turn."""
        parser = self._parser
        return isinstance(parser, _AnsweringParser) and parser.waits

    def _go_on(self) -> None:
        """Answer the request that has waited, and what came behind it."""
        if not self._is_waiting():
            return  # the connection is over
        self._parser.waits, self._its_turn = False, True
        self.data_received(b"")
        self._its_turn = False
        if self._buffer_paused and not self._messages and not self._is_waiting():
            self._resume_reading_if_drained()

    def close(self) -> None:
        """Answer what waits for its turn, and close once nothing is under way (when the service ends)."""
        while self._is_waiting():
            self._go_on()
        super().close()

    def _look_again(self) -> None:
        """See to it that the parser is asked for what it has kept, once its requests are done."""
        if not self._buffer_paused:
            self._pause_reading_for_buffer()

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
        if request.content.exception() is not None or (hdrs.UPGRADE in request.headers and resp.status != _SWITCHING):
            # Where the body broke off, or another protocol follows, nobody knows where the next request begins.
            resp.force_close()
        if self._is_taken_at_once(resp):
            return await super().finish_response(request, resp, start_time)
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                finished = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._cut(self.transport)
            raise ConnectionError("the caller does not read its answer") from None
        transport = self.transport
        if transport is not None and (left := transport.get_write_buffer_size()) > 0:
            self._loop.call_later(self._limits.send_seconds, self._see_that_it_reads, transport, left)
        return finished

    def _is_taken_at_once(self, resp: web.StreamResponse) -> bool:
        """Tell whether nothing of *resp* can wait for the caller: it is small, and nothing is ahead of it."""
        transport = self.transport
        return (
            type(resp) is web.Response
            and (resp.body is None or (type(resp.body) is bytes and len(resp.body) <= _SMALL_BYTES))
            and not self._paused
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )

    def _see_that_it_reads(self, transport: asyncio.WriteTransport, left: int) -> None:
        """Cut a caller off that has taken next to nothing since there were *left* bytes to send: closing would wait."""
        now_left = transport.get_write_buffer_size()
        if now_left == 0:
            return
        if now_left > left - _PROGRESS_BYTES:
            self._cut(transport)
        else:
            self._loop.call_later(self._limits.send_seconds, self._see_that_it_reads, transport, now_left)

    def _cut(self, transport: asyncio.WriteTransport | None) -> None:
        self._on_malformed()
        self.force_close()
        if transport is not None:
            transport.abort()

    def log_exception(self, *_args: object, exc_info: object = None, **_kw: object) -> None:
        """Log the kind of a fault in the connection, not its text."""
        _log.error("connection failed", kind=type(exc_info).__name__)

    def _await_head(self) -> None:
        if self._head_timer is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(self._limits.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        self._on_malformed()
        self.force_close()
