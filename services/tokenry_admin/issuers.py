"""
Waiting until the issuers have what was written.

With the addresses of the issuers each is asked how old its credentials are (`tokenry_credentials_age_seconds`, the
time since a refresh *began* that was complete): once that is less than the time since the write, it has it, whatever
any clock says. Without them there is only the promise that an issuer refreshes within a minute; an issuer that cannot
reach the store keeps its last good state for hours, so an installation that rotates by program names its issuers.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import TYPE_CHECKING, Final, Protocol

from tokenry.errors import TokenryError
from tokenry.http.fetch import FetchFailed, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher

LONGEST_REFRESH: Final = 60.0  # seconds: the issuer's own bound on TOKENRY_CREDENTIALS_REFRESH_INTERVAL
FETCH_MARGIN: Final = 15.0  # seconds: jitter, and fetching what has changed
LOOK_SECONDS: Final = 1.0
ASK_SECONDS: Final = 5.0
MAX_METRICS_BYTES: Final = 4 << 20
_AGE: Final = re.compile(rb"^tokenry_credentials_age_seconds(?:\{[^}\n]*\})? ([0-9.eE+-]{1,32})$", re.MULTILINE)


class NotSettled(TokenryError):
    """Not every issuer has it in time; the text says which."""


class Settling(Protocol):
    """Waits until what was written is in force."""

    async def __call__(self, written_at: float) -> None:
        """
        Return once every issuer has what was written before monotonic time *written_at*.

        Raises:
            NotSettled: One does not have it in time.
        """
        ...


class BoundWaited:
    """Waits for as long as an issuer that reaches the store takes at most."""

    def __init__(
        self, *, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        seconds: float = LONGEST_REFRESH + FETCH_MARGIN,
    ) -> None:  # fmt: skip
        """Wait until *seconds* after the write."""
        self._clock = clock
        self._sleep = sleep
        self._seconds = seconds

    async def __call__(self, written_at: float) -> None:
        """Return when the time is over."""
        await self._sleep(max(0.0, written_at + self._seconds - self._clock.monotonic()))


class IssuersAsked:
    """Asks each issuer."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        fetcher: Fetcher,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        deadline: float = LONGEST_REFRESH + FETCH_MARGIN,
    ) -> None:
        """
        Ask nobody yet.

        Args:
            urls: Base URL of the metrics of every single issuer process, not of a balancer in front of them.
            fetcher: Asks them; it blocks, so it is called in threads.
            clock: For how long ago the write was.
            sleep: Waits between two looks.
            deadline: Seconds after which one that does not have it is given up.
        """
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._fetcher = fetcher
        self._clock = clock
        self._sleep = sleep
        self._deadline = deadline

    async def __call__(self, written_at: float) -> None:
        """Return once every issuer's last complete refresh began after *written_at*."""
        waiting = list(self._urls)
        began = self._clock.monotonic()
        while True:
            ages = await asyncio.gather(*(asyncio.to_thread(self._began_at, url) for url in waiting))
            waiting = [url for url, at in zip(waiting, ages, strict=True) if not at > written_at]
            if not waiting:
                return
            if self._clock.monotonic() - began >= self._deadline:
                raise NotSettled(f"these issuers have not read it within {self._deadline:g} s: {', '.join(waiting)}")
            await self._sleep(LOOK_SECONDS)

    def _began_at(self, url: str) -> float:
        """Return no later than when the last complete refresh of the issuer at *url* began; NaN: not known."""
        asked_at = self._clock.monotonic()
        try:
            answer = self._fetcher.fetch(
                Request(url=f"{url}/metrics", deadline_seconds=ASK_SECONDS, max_bytes=MAX_METRICS_BYTES)
            )
        except FetchFailed:
            return math.nan
        found = _AGE.search(answer.body)
        try:
            # It was measured after we asked, so the refresh began at asked_at - age or later.
            return asked_at - float(found[1]) if found and answer.status == 200 else math.nan  # noqa: PLR2004
        except ValueError:
            return math.nan
