"""
Logs: one JSON object a line on standard output, for our own events and for those of the libraries we use.

Every line has `event`, `level`, `ts`, `service`, and inside a request `request_id`. Nobody logs a token on
purpose; `redact` is the second line of defence and replaces whatever looks like one, also in exceptions'
texts. The access log has method, route template, status, seconds and the caller's address: never a path as
received, a query string or a header.

Writing never blocks the event loop: lines go through a bounded queue to one thread, and when the reader of
our output has stopped reading, lines are dropped and counted (`LineWriter.dropped`).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

from tokenry.serving.keys import current_request_id
from tokenry.serving.tracing import current_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from structlog.typing import EventDict, Processor

    from tokenry.serving.settings import ServiceSettings

REDACTED = "[redacted]"
MAX_DEPTH = 6  # of nested values in an event; what lies deeper is replaced whole
GATHER_SECONDS = 0.02  # by which a line comes later than it could
LINES_AT_ONCE = 1000  # some 500 kB
MAX_QUEUED_LINES = 10_000  # some 5 MB; a reader that is further behind has stopped reading

# A compact JWS or JWE begins with the base64url of `{"`; anything like its first two parts is taken for one.
_SECRETS = re.compile(
    r"""eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_=+/-]*){1,4}
    | (?i:\b(?:bearer|basic|dpop)\s+[^\s"',;]+)
    | (?i:\bauthorization\b["']?\s*[:=]\s*[^\r\n]+)
    | (?i:\b(?:access_token|token|password|client_secret|client_assertion|assertion|secret)=[^&\s"']+)
    """,
    re.VERBOSE,
)


# One of these is in whatever the expression matches: it joins parts, or a name with its value.
_JOINER = re.compile("[. =:\t\n\r\v\f\x1c-\x1f]").search


def redact_text(text: str) -> str:
    """Return *text* with what looks like a token, a credential or an Authorization value replaced."""
    if text.isascii() and _JOINER(text) is None:
        return text  # most texts are names of ours; the expression takes several times as long
    return _SECRETS.sub(REDACTED, text)


def redact_value(value: object, depth: int = 0) -> object:
    """Return *value* with `redact_text` applied to every text in it."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return redact_text(value.decode("utf-8", "replace"))
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= MAX_DEPTH:
        return REDACTED
    if isinstance(value, dict):
        return {redact_text(str(name)): redact_value(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_value(item, depth + 1) for item in value]
    return redact_text(str(value))


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Process one event: see `redact_text`."""
    return {name: redact_value(value) for name, value in event.items()}


def _escape_surrogates(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Make every text encodable: a header of arbitrary bytes reaches us with lone surrogates."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode("utf-8")
        if isinstance(value, str) and not value.isascii()
        else value
        for name, value in event.items()
    }


def _add_request_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    request_id = current_request_id.get()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    trace = current_trace.get()
    if trace is not None:
        event.update(trace_id=trace.trace_id, span_id=trace.span_id)
    return event


class LineWriter:
    """
    Writes lines in a thread of its own, and drops them rather than wait.

    The thread gathers lines for `GATHER_SECONDS` and writes them at once: waking it for each line would cost several
    times what the line itself does.

    Attributes:
        dropped: Lines that were dropped because too many were held back.
    """

    def __init__(self, stream: TextIO, *, max_lines: int = MAX_QUEUED_LINES) -> None:
        """Write to *stream*, holding at most *max_lines* back."""
        self.dropped = 0
        self._stream = stream
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue *line* (without line end), or drop and count it."""
        if len(self._lines) >= self._max_lines:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._wanted.is_set():
            self._wanted.set()

    @property
    def closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._closed.is_set()

    def close(self, *, timeout_seconds: float = 2.0) -> None:
        """Write what is queued, for at most *timeout_seconds*."""
        self._closed.set()
        self._wanted.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            self._closed.wait(GATHER_SECONDS)
            self._wanted.clear()  # before the lines are taken: what comes later wakes this thread again
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        count = 0
        try:
            while self._lines:
                count = min(len(self._lines), LINES_AT_ONCE)
                self._stream.write("\n".join(self._lines.popleft() for _ in range(count)) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # disk full, pipe closed, stream closed
            self.dropped += count


_current: LineWriter | None = None


def dropped_lines() -> int:
    """Return how many log lines of this process were dropped since its start."""
    return 0 if _current is None else _current.dropped


class _ShortWay:
    """
    Writes what the processors would, where none of them would change anything: for lines that come with every request.

    The line is made in one go and then looked at for the beginnings of what `redact_text` replaces; a line that has
    one, or is not ASCII, goes the long way.
    """

    def __init__(self, fixed: Mapping[str, str], processors: Sequence[Processor], writer: LineWriter) -> None:
        self._fixed = dict(fixed)
        self._processors = processors
        self._renderer = processors[-1]
        self._writer = writer
        self._second, self._until_second = -1, ""

    @property
    def open(self) -> bool:
        """Tell whether lines still go where they went when logging was configured."""
        current = structlog.get_config()["processors"]  # whoever configures anew, or captures, gets the lines
        return current is self._processors and current[-1] is self._renderer and not self._writer.closed

    def write(self, event: str, members: Mapping[str, object]) -> bool:
        """Write *event* with *members*, or tell that it has to go the long way."""
        request_id = current_request_id.get()
        line: dict[str, object] = {**self._fixed, **members, "event": event}
        if request_id is not None and "request_id" not in line:
            line["request_id"] = request_id
        trace = current_trace.get()
        if trace is not None:
            line["trace_id"], line["span_id"] = trace.trace_id, trace.span_id
        line["level"] = "info"
        line["ts"] = self._timestamp()
        text = _encode(line)
        if _is_suspicious(text):
            return False
        self._writer.write(text)
        return True

    def write_repeated(self, repeated: RepeatedRecord, text: str) -> bool:
        """
        Write the line of *repeated*, or tell that it has to go the long way.

        Args:
            repeated: What it has in common with others.
            text: Its other members as JSON, each behind a comma.
        """
        if repeated.made_by is not self:
            steady = _encode({**self._fixed, **repeated.members, "event": repeated.event, "level": "info"})
            repeated.made_by, repeated.text = self, "" if _is_suspicious(steady) else steady.removesuffix("}")
        if not repeated.text:
            return False
        request_id = current_request_id.get()
        if request_id is not None:
            text = f'{text},"request_id":{_quoted(request_id)}'
        trace = current_trace.get()
        if trace is not None:
            text = f'{text},"trace_id":"{trace.trace_id}","span_id":"{trace.span_id}"'
        if _is_suspicious(text):
            return False
        self._writer.write(f'{repeated.text}{text},"ts":"{self._timestamp()}"}}')
        return True

    def _timestamp(self) -> str:
        """Return the time in the form of `TimeStamper`."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._until_second = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._until_second}{nanoseconds // 1000:06d}Z"


def _is_suspicious(line: str) -> bool:
    """Tell whether a JSON text of ASCII without white space may hold something that `_SECRETS` matches."""
    if " " not in line and "\\" not in line and "=" not in line and "eyJ" not in line:
        return "authorization" in line.lower()
    lower = line.lower()
    return any(map(lower.__contains__, _SUSPICIOUS))


# In the lower case of a JSON text of ASCII: what each alternative of `_SECRETS` begins with, with what has to follow
# (white space beyond the space is escaped there), and whatever is not ASCII.
_SUSPICIOUS = (
    "eyj", "bearer ", "bearer\\", "basic ", "basic\\", "dpop ", "dpop\\", "authorization",
    "token=", "password=", "secret=", "assertion=", "\\u",
)  # fmt: skip
_short_way: _ShortWay | None = None  # as structlog's own configuration, there is one a process
_plain = structlog.get_logger("tokenry.serving.records")


def record(event: str, members: Mapping[str, object]) -> None:
    """
    Log *event* at level info, as a logger of structlog's does, at a fraction of its cost.

    Args:
        event: What happened: a text of ours.
        members: What belongs to it: texts, numbers, None, and lists of those.
    """
    short = _short_way
    if short is None or not short.open or not short.write(event, members):
        _plain.info(event, **members)


class RepeatedRecord:
    """
    An event that comes with every request, most of which is the same each time: that part is made into text once.

    Attributes:
        event: What happened.
        members: What belongs to it each time.
        made_by: Who made `text`.
        text: The beginning of the line; empty where it has to go the long way.
    """

    __slots__ = ("event", "made_by", "members", "text")

    def __init__(self, event: str, members: Mapping[str, object]) -> None:
        """Take them as `record` does."""
        self.event = event
        self.members = members
        self.made_by: object = None
        self.text = ""

    def write(self, changing: Mapping[str, object]) -> None:
        """Log the event, as `record` does, with what is *changing* besides: texts, numbers, None, lists of those."""
        if not self._write_short("".join([f',"{name}":{_as_json(value)}' for name, value in changing.items()])):
            _plain.info(self.event, **self.members, **changing)

    def write_text(self, changing: str) -> None:
        """
        Do as `write` does, in less time.

        Args:
            changing: Members in JSON as `write` makes them, each behind a comma.
        """
        if not self._write_short(changing):
            _plain.info(self.event, **self.members, **json.loads(f"{{{changing[1:]}}}"))

    def _write_short(self, changing: str) -> bool:
        short = _short_way
        return short is not None and short.open and short.write_repeated(self, changing)


def _as_json(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return repr(value) if type(value) is int else _encode(value)


MAX_ROUTES: Final = 1000  # routes are templates, methods and statuses are few: no service comes near
_requests: dict[tuple[str, str, int], RepeatedRecord] = {}


def record_request(*, method: str, route: str, status: int, seconds: float, client_address: str) -> None:
    """
    Log one answered request: the access log.

    Args:
        method: One of those that we know, or the word for the others.
        route: The template, never the path as received.
        status: Of the answer.
        seconds: From the head of the request to the answer.
        client_address: The caller's, as far as the proxies before us are trusted.
    """
    request = _requests.get((method, route, status))
    if request is None:
        request = RepeatedRecord("request", {"method": method, "route": route, "status": status})
        if len(_requests) < MAX_ROUTES:
            _requests[method, route, status] = request
    # To round so takes a third of the time of `round`, and gives the same number.
    request.write_text(f',"seconds":{seconds:.6f},"client_address":{_quoted(client_address)}')


class _LineLogger:
    """What structlog calls with the rendered line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = write
        self.log = self.fatal = self.exception = self.warn = write


class _StdlibHandler(logging.Handler):
    """Sends records of the standard library's logging the same way."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:  # noqa: BLE001 -- a record that cannot be formatted must not fail its caller
            self._write('{"event": "a log record could not be formatted", "level": "error"}')


def configure_logging(settings: ServiceSettings, *, service: str, stream: TextIO | None = None) -> LineWriter:
    """
    Send all logs of this process to *stream* (default: standard output) in the form that *settings* ask for.

    Returns:
        The writer; close it last, so that what is queued gets written.
    """
    global _current  # noqa: PLW0603 -- a process logs to one place
    writer = _current = LineWriter(stream if stream is not None else sys.stdout)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    fixed = {"service": service, "environment": settings.environment}
    if settings.instance:
        fixed["instance"] = settings.instance
    shared = _processors(fixed)
    renderer = _renderer(settings.log_format)
    processors = [*shared, renderer]
    global _short_way  # noqa: PLW0603 -- as structlog's configuration, which the next call sets
    _short_way = _ShortWay(fixed, processors, writer) if _is_plain(settings.log_format, level) else None
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(writer.write),
        cache_logger_on_first_use=False,
    )
    handler = _StdlibHandler(writer.write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak of themselves at info; what they warn of concerns us.
    root.setLevel(max(level, logging.WARNING) if level >= logging.INFO else logging.INFO)
    logging.getLogger("tokenry").setLevel(level)
    return writer


def _is_plain(log_format: str, level: int) -> bool:
    return log_format != "console" and level <= logging.INFO


def _processors(fixed: dict[str, str]) -> list[Processor]:
    def add_fixed(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**fixed, **event}

    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _add_request_id,
        add_fixed,
        structlog.processors.format_exc_info,
        _redact_but_meta,
        _escape_surrogates,
    ]


def _redact_but_meta(logger: object, method: str, event: EventDict) -> EventDict:
    """Redact; the two members that `ProcessorFormatter` needs are objects and go through untouched."""
    meta = {name: event.pop(name) for name in ("_record", "_from_structlog") if name in event}
    return {**redact(logger, method, event), **meta}


def _renderer(log_format: str) -> Processor:
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    encode = json.JSONEncoder(default=_as_text).encode  # made once: it costs as much as its use
    return structlog.processors.JSONRenderer(serializer=lambda event, **_: encode(event))


def _as_text(value: Any) -> str:  # noqa: ANN401 -- whatever JSON has no form for
    return redact_text(str(value))


# Without white space, so that a space in the line is one of a text.
_encode = json.JSONEncoder(default=_as_text, separators=(",", ":")).encode
