"""`Outgoing` over aiohttp: bounded in time, bytes and connections; no proxy of the environment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import aiohttp

from tokenry.serving.tracing import trace_headers
from tokenry_tokeninfo.ports import Answer, TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

MAX_ANSWER_BYTES = 65_536  # a token response, or an upstream's token info, has a few kilobytes
MAX_CONNECTIONS = 200  # above every bound on concurrency that is set per purpose


class HttpCalls:
    """One pool of connections; use it as an async context manager."""

    def __init__(self, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        """Bound answers to *max_answer_bytes*."""
        self._max_bytes = max_answer_bytes
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
    ) -> Answer:
        """Return the answer; see `Outgoing`."""
        if self._session is None:
            raise RuntimeError("open the pool first: async with HttpCalls() as calls")
        try:
            async with (
                asyncio.timeout(deadline_seconds),
                self._session.request(
                    method, url, headers={**headers, **trace_headers()}, data=body, allow_redirects=False
                ) as response,
            ):
                return Answer(status=response.status, body=await self._read(response))
        except TimeoutError:
            raise TimedOut(f"no answer within {deadline_seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"the call failed ({type(error).__name__})") from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_bytes:
                raise Unreachable(f"the answer is larger than {self._max_bytes} bytes")
        return bytes(body)
