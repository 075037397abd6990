"""`Outgoing` over aiohttp: bounded in time, bytes and connections; no redirects, cookies, or proxies from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import aiohttp

from tokenry_console.ports import Answer, TimedOut, TooLarge, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

MAX_CONNECTIONS = 100  # a page makes some thirty calls at a time


class HttpCalls:
    """One pool of connections; use it as an async context manager."""

    def __init__(self) -> None:
        """Make a pool that is not open yet."""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
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

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        deadline_seconds: float,
        max_bytes: int,
    ) -> Answer:
        """Return the answer; see `Outgoing`."""
        if self._session is None:
            raise RuntimeError("open the pool first: async with HttpCalls() as calls")
        try:
            async with (
                asyncio.timeout(deadline_seconds),
                self._session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
            ):
                return Answer(status=response.status, body=await _read(response, max_bytes))
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
