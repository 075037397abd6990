"""
One HTTP exchange, with everything bounded: total time, bytes, redirects (none), retries (at most one).

Invariants:
    * A fetch ends within `Request.deadline_seconds`, whatever the peer does: name resolution, connection,
      handshake and every single read share that one budget.
    * No more than `Request.max_bytes` of a body are ever held, before and after decompression.
    * TLS is verified with the system's trust store; plain HTTP goes to loopback only, unless allowed.
    * Redirects are not followed, and proxies named in the environment are not used: a token or a key set
      comes from the host in the configuration or from nowhere.
    * Errors say what happened in our words: no header, body or query string is in them.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

from tokenry.errors import TokenryError
from tokenry.http.forking import renew_after_fork
from tokenry.http.resolve import Resolver

DEFAULT_DEADLINE_SECONDS: Final = 5.0
DEFAULT_MAX_BYTES: Final = 1 << 20  # every document but a revocation list is far below 1 MiB
MAX_URL_LENGTH: Final = 4096  # a cursor is some 100 bytes; nothing that we ask for is longer
_CHUNK_BYTES: Final = 64 * 1024
_IDLE_SECONDS: Final = 50.0  # below the 60 s after which common balancers drop an idle connection
_MAX_IDLE: Final = 4  # a source uses one connection; a few more for a fetcher shared by threads
_BAD_URL_CHARACTERS: Final = frozenset(map(chr, range(0x21))) | {"\x7f", "\\"}


class Failure(StrEnum):
    """Why there is no answer: a label for metrics, and what decides about a retry."""

    BAD_URL = "bad_url"
    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    CANCELLED = "cancelled"
    UNAUTHENTICATED = "unauthenticated"
    INTERNAL = "internal"


class FetchFailed(TokenryError):
    """
    There is no answer that may be used.

    Attributes:
        failure: What went wrong.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        """Fail for *failure*; *message* names the host and no secret."""
        self.failure = failure
        super().__init__(message)


class Headers(Mapping[str, str]):
    """Header fields by lower-cased name; fields of one name are joined by a comma (RFC 9110 section 5.2)."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Join *fields* by name."""
        joined: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
        self._fields = joined

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        """Show the names only: a value may be a credential."""
        return f"Headers({sorted(self._fields)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    What to ask.

    Attributes:
        url: Absolute `https` URL (or `http` to loopback).
        method: HTTP method.
        headers: Fields to send; `Host`, `Accept-Encoding` and `Content-Length` are set by the fetcher.
        body: Bytes to send.
        deadline_seconds: Budget of the whole exchange.
        max_bytes: Largest body that is taken, decompressed.
        repeatable: Whether a request that died with a kept-alive connection may be sent once more.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    deadline_seconds: float = DEFAULT_DEADLINE_SECONDS
    max_bytes: int = DEFAULT_MAX_BYTES
    repeatable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """
    An answer, complete.

    Attributes:
        status: HTTP status.
        headers: Fields by lower-cased name.
        body: Decompressed content.
    """

    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes = field(default=b"", repr=False)


class Fetcher(Protocol):
    """Performs one exchange."""

    def fetch(self, request: Request) -> Response:
        """
        Return the answer to *request*, whatever its status.

        Raises:
            FetchFailed: There is none within the deadline and the bounds.
        """
        ...

    def cancel(self) -> None:
        """Make fetches that are under way fail soon; called from another thread."""
        ...


def check_url(url: str, *, allow_plain_http: bool = False) -> SplitResult:
    """
    Return the parts of *url* if it is one that we would fetch.

    Raises:
        FetchFailed: It is not absolute, not http(s), has a user name or odd characters, or would go
            unencrypted over a network.
    """
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not _BAD_URL_CHARACTERS.isdisjoint(url):
        raise FetchFailed(Failure.BAD_URL, "a URL is at most 4096 characters of ASCII, without spaces")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        raise FetchFailed(Failure.BAD_URL, "a URL cannot be parsed") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise FetchFailed(Failure.BAD_URL, "a URL is http(s)://host[:port]/…, without a user name")
    if parts.scheme == "http" and not allow_plain_http and not is_loopback(parts.hostname):
        raise FetchFailed(
            Failure.BAD_URL, f"http://{parts.netloc} is not encrypted: use https, or allow plain HTTP by name"
        )
    return parts


def is_loopback(host: str) -> bool:
    """Tell whether *host* names this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Budget:
    """What is left of a request's time."""

    __slots__ = ("_end", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, more than zero; raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Stream(io.RawIOBase):
    """The receiving side of a socket, whose every read gets only what is left of the budget."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        connection = self._connection
        connection.wire.settimeout(connection.budget.left())
        received = connection.wire.recv_into(buffer)
        connection.answered = connection.answered or received > 0
        return received


class _Connection(http.client.HTTPConnection):
    """
    A kept-alive connection to one origin; it stands in for its own socket, to bound every operation.

    `http.client` reads through `sock.makefile`, writes through `sock.sendall` and ends with `sock.close`.
    """

    def __init__(self, parts: SplitResult, wire: socket.socket, *, budget: _Budget, cancelled_at: int) -> None:
        default = http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT
        super().__init__(parts.hostname or "", parts.port or default)
        # `default_port` decides whether the Host field names the port.
        self.default_port = default
        self.wire = wire
        self.budget = budget
        self.answered = False
        self.idle_since = 0.0
        self.reused = False
        self.cancelled_at = cancelled_at
        self.sock = self

    def connect(self) -> None:
        """Never connect behind the caller's back: the connection is made once, under the budget."""
        raise http.client.NotConnected

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Stream(self), _CHUNK_BYTES)

    def sendall(self, data: bytes) -> None:
        self.wire.settimeout(self.budget.left())
        self.wire.sendall(data)

    def close(self) -> None:
        """Send no more; called when the peer announces its closing, while its body is still to be read."""
        self.sock = None

    def release(self) -> None:
        self.sock = None
        self.wire.close()

    def interrupt(self) -> None:
        """Wake a thread that is reading, by the plain socket's method: TLS state belongs to that thread."""
        try:
            socket.socket.shutdown(self.wire, socket.SHUT_RDWR)
        except OSError:
            return


class HttpFetcher:
    """
    Fetches over the standard library's HTTP client; safe to use from several threads and across a fork.

    Args:
        allow_plain_http: Also speak unencrypted HTTP to hosts other than this one. Only where the network
            itself encrypts: whoever can change a key set mints tokens.
        tls: TLS settings in place of the system's defaults, for example with a private authority.
        permits: Tells whether an address that a name resolved to may be connected to; default: any. For URLs that
            somebody else chose: `tokenry.http.outward.PublicAddresses`.
    """

    def __init__(
        self,
        *,
        allow_plain_http: bool = False,
        tls: ssl.SSLContext | None = None,
        permits: Callable[[str], bool] | None = None,
    ) -> None:
        """Remember the settings; nothing is opened yet."""
        self._allow_plain_http = allow_plain_http
        self._tls = tls
        self._permits = permits
        self._resolver = Resolver()
        self._forget()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Start without connections; the parent, whose they are, does not notice that our copies close."""
        for held in [*self._idle.values(), self._busy]:
            for connection in held:
                connection.release()
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._cancelled = 0

    def fetch(self, request: Request) -> Response:
        """
        Return the answer to *request*, whatever its status.

        Raises:
            FetchFailed: There is none within the deadline and the bounds.
        """
        parts = check_url(request.url, allow_plain_http=self._allow_plain_http)
        where = f"{request.method} {parts.scheme}://{parts.netloc}{parts.path}"
        budget = _Budget(request.deadline_seconds)
        cancelled = self._cancelled
        try:
            return self._exchange(request, parts, budget)
        except FetchFailed as failed:
            raise FetchFailed(failed.failure, f"{where}: {failed}") from None
        except (OSError, http.client.HTTPException, EOFError, zlib.error, ValueError) as error:
            failure = Failure.CANCELLED if self._cancelled != cancelled else _classify(error)
            detail = f" of {request.deadline_seconds:g} s" if failure is Failure.TIMEOUT else ""
            # Our words only: the texts of these exceptions may repeat what the peer sent.
            raise FetchFailed(failure, f"{where}: {failure}{detail}") from None

    def cancel(self) -> None:
        """Make fetches that are under way fail soon, and close idle connections."""
        with self._lock:
            self._cancelled += 1
            idle = [connection for held in self._idle.values() for connection in held]
            self._idle.clear()
            busy = list(self._busy)
        for connection in busy:
            connection.interrupt()
        for connection in idle:
            connection.release()

    close = cancel

    def __del__(self) -> None:
        """Leave no open socket behind."""
        for held in getattr(self, "_idle", {}).values():
            for connection in held:
                connection.release()

    def _exchange(self, request: Request, parts: SplitResult, budget: _Budget) -> Response:
        connection = self._take(parts, budget)
        try:
            return self._converse(connection, request, parts)
        except (OSError, http.client.HTTPException):
            stale = connection.reused and not connection.answered and request.repeatable
            if not stale or self._is_cancelled(connection):
                raise
        # The peer had closed a kept-alive connection before it saw the request: once more, on a new one.
        budget.left()
        return self._converse(self._open(parts, budget), request, parts)

    def _is_cancelled(self, connection: _Connection) -> bool:
        return connection.cancelled_at != self._cancelled

    def _converse(self, connection: _Connection, request: Request, parts: SplitResult) -> Response:
        with self._lock:
            self._busy.add(connection)
        keep = False
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {**request.headers, "Accept-Encoding": "gzip", "Connection": "keep-alive"}
            connection.request(request.method, target, body=request.body, headers=headers)
            with connection.getresponse() as answer:
                body = _read_body(answer, max_bytes=request.max_bytes)
                response = Response(status=answer.status, headers=Headers(answer.getheaders()), body=body)
                keep = not answer.will_close
            return response
        finally:
            self._give_back(connection, parts, keep=keep)

    def _take(self, parts: SplitResult, budget: _Budget) -> _Connection:
        now = time.monotonic()
        while True:
            with self._lock:
                held = self._idle.get((parts.scheme, parts.netloc))
                connection = held.pop() if held else None
            if connection is None:
                return self._open(parts, budget)
            if now - connection.idle_since < _IDLE_SECONDS:
                connection.budget, connection.answered, connection.reused = budget, False, True
                connection.cancelled_at = self._cancelled
                return connection
            connection.release()

    def _give_back(self, connection: _Connection, parts: SplitResult, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            held = self._idle.setdefault((parts.scheme, parts.netloc), [])
            keep = keep and len(held) < _MAX_IDLE and not self._is_cancelled(connection)
            if keep:
                connection.idle_since = time.monotonic()
                held.append(connection)
        if not keep:
            connection.release()

    def _open(self, parts: SplitResult, budget: _Budget) -> _Connection:
        cancelled_at = self._cancelled
        default = http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT
        wire = self._connect(parts.hostname or "", parts.port or default, budget)
        if parts.scheme == "https":
            try:
                wire = self._wrap(wire, parts.hostname or "", budget)
            except BaseException:
                wire.close()
                raise
        return _Connection(parts, wire, budget=budget, cancelled_at=cancelled_at)

    def _connect(self, host: str, port: int, budget: _Budget) -> socket.socket:
        problem: OSError | None = None
        try:
            addresses = self._resolver.resolve(host, port, timeout=budget.left())
        except socket.gaierror:
            raise FetchFailed(Failure.RESOLVE, "the host name cannot be resolved") from None
        permits = self._permits
        if permits is not None:
            addresses = tuple(each for each in addresses if permits(each[1][0]))
            if not addresses:
                raise FetchFailed(Failure.BAD_URL, "the host's addresses are not ones that may be fetched from")
        for family, address in addresses:
            wire = socket.socket(family, socket.SOCK_STREAM)
            try:
                wire.settimeout(budget.left())
                wire.connect(address)
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                wire.close()
                problem = error
                continue
            return wire
        if isinstance(problem, TimeoutError):
            raise problem
        raise FetchFailed(Failure.CONNECT, "connection refused or unreachable")

    def _wrap(self, wire: socket.socket, host: str, budget: _Budget) -> ssl.SSLSocket:
        # A context of its own for each connection, so that a replaced trust store counts without a restart.
        context = self._tls or ssl.create_default_context()
        wire.settimeout(budget.left())
        return context.wrap_socket(wire, server_hostname=host)


def _classify(error: BaseException) -> Failure:
    """Return the label for an exception of the standard library."""
    match error:
        case TimeoutError():
            return Failure.TIMEOUT
        case ssl.SSLError():
            return Failure.TLS
        case OSError() | http.client.RemoteDisconnected():
            return Failure.DISCONNECTED
        case http.client.IncompleteRead() | EOFError():
            return Failure.DISCONNECTED
        case _:
            return Failure.MALFORMED


def _read_body(answer: http.client.HTTPResponse, *, max_bytes: int) -> bytes:
    """
    Return the decompressed body.

    Raises:
        FetchFailed: It is larger than *max_bytes*, cut short, or in an encoding that was not asked for.
    """
    encoding = (answer.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in {"identity", "gzip"}:
        raise FetchFailed(Failure.MALFORMED, "the answer has a Content-Encoding that was not asked for")
    # A gzip stream that decompresses to max_bytes is never larger than this (RFC 1951: stored blocks).
    raw = _read_bounded(answer, max_bytes=max_bytes + max_bytes // 1000 + 1024)
    body = _gunzip(raw, max_bytes=max_bytes) if encoding == "gzip" and raw else raw
    if len(body) > max_bytes:
        raise FetchFailed(Failure.TOO_LARGE, f"the answer is larger than {max_bytes} bytes")
    return body


def _read_bounded(answer: http.client.HTTPResponse, *, max_bytes: int) -> bytes:
    body = io.BytesIO()  # gives its bytes away without a copy: one of 200 MB would hold up every other thread
    while chunk := answer.read(_CHUNK_BYTES):
        body.write(chunk)
        if body.tell() > max_bytes:
            raise FetchFailed(Failure.TOO_LARGE, f"the answer is larger than {max_bytes} bytes")
    if answer.length:  # http.client notices a short body only when it is read in one piece
        raise FetchFailed(Failure.DISCONNECTED, "the answer was cut short")
    return body.getvalue()


def _gunzip(raw: bytes, *, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    body, portions = io.BytesIO(), io.BytesIO(raw)
    while not stream.eof and (portion := portions.read(_CHUNK_BYTES)):
        body.write(stream.decompress(portion, max_bytes + 1 - body.tell()))
        if body.tell() > max_bytes:
            raise FetchFailed(Failure.TOO_LARGE, f"the answer is larger than {max_bytes} bytes")
    if not stream.eof or stream.unused_data or portions.tell() < len(raw):
        raise FetchFailed(Failure.MALFORMED, "the answer is not one complete gzip stream")
    return body.getvalue()
