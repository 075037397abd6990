"""
Calls of a service to another one, over aiohttp: bounded in time, bytes and connections.

No redirects, cookies, or proxies from outside; the trace that is under way is handed on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

import aiohttp

from tokenry.errors import TokenryError
from tokenry.serving.tracing import trace_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from aiohttp import web

MAX_ANSWER_BYTES = 65_536  # a token response, or an upstream's token info, has a few kilobytes
MAX_CONNECTIONS = 200  # above every bound on concurrency that is set per purpose


class Unreachable(TokenryError):
    """Another service gave no answer that can be used; the text says why and names nothing that was sent."""


class TimedOut(Unreachable):
    """Another service did not answer in time."""


class TooLarge(Unreachable):
    """An answer was larger than what is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    The answer of another service.

    Attributes:
        status: HTTP status.
        body: The whole body, of bounded size; it may hold a token and is not printed.
    """

    status: int
    body: bytes = field(repr=False)


class Outgoing(Protocol):
    """Calls another service over HTTP."""

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        deadline_seconds: float,
        max_bytes: int | None = None,
    ) -> Answer:
        """
        Return the answer, whatever its status; redirects are not followed.

        Args:
            method: HTTP method.
            url: Where to.
            headers: Header fields.
            body: What to send.
            deadline_seconds: For the whole call.
            max_bytes: The largest answer that is taken; None: what is usual for whoever makes the calls.

        Raises:
            TimedOut: There was none within *deadline_seconds*.
            TooLarge: It was larger than *max_bytes*.
            Unreachable: There was none.
        """
        ...


class HttpCalls:
    """`Outgoing` as one pool of connections; use it as an async context manager."""

    def __init__(self, *, max_answer_bytes: int = MAX_ANSWER_BYTES, max_connections: int = MAX_CONNECTIONS) -> None:
        """Make a pool of *max_connections*, not open yet; a call that names no bound takes *max_answer_bytes*."""
        self._max_bytes = max_answer_bytes
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Be open while the application runs (`app.cleanup_ctx`)."""
        async with self:
            yield

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        deadline_seconds: float,
        max_bytes: int | None = None,
    ) -> Answer:
        """Return the answer; see `Outgoing`."""
        if self._session is None:
            raise RuntimeError("open the pool first: async with HttpCalls() as calls")
        limit = self._max_bytes if max_bytes is None else max_bytes
        fields = {**headers, **trace_headers()}
        try:
            async with (
                asyncio.timeout(deadline_seconds),
                self._session.request(method, url, headers=fields, data=body, allow_redirects=False) as response,
            ):
                return Answer(status=response.status, body=await _read(response, limit))
        except TimeoutError:
            raise TimedOut(f"no answer within {deadline_seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(_why(error)) from None


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"the answer is larger than {max_bytes} bytes")
    return bytes(body)


def _why(error: Exception) -> str:
    """Return a cause in words of ours; an exception's own text may repeat what was sent."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "its certificate is not trusted here"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "nothing accepts connections there"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return f"the call failed ({type(error).__name__})"
