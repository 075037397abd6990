"""Reading everybody's metrics every few seconds; the console needs no Prometheus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from tokenry.errors import ProtocolError
from tokenry.serving.outgoing import Unreachable
from tokenry_console.exposition import MAX_BYTES, Reading, read_exposition

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.serving.outgoing import Outgoing
    from tokenry_console.history import History

OK = 200
_CLOCK = ("tokenry_clock_timestamp_seconds", "")
_log = structlog.get_logger("tokenry.console")


class Scraper:
    """Fills a history."""

    def __init__(self, history: History, *, calls: Outgoing, clock: Clock, interval: float) -> None:
        """Read all places of *history* every *interval* seconds."""
        self._history = history
        self._calls = calls
        self._clock = clock
        self._interval = interval

    async def run(self) -> None:
        """Read round after round, until cancelled; a fault of ours is logged, and the next round is another try."""
        while True:
            began = self._clock.monotonic()
            try:
                await self.once()
            except Exception:  # noqa: BLE001 -- whatever it is, the next round may go well
                _log.exception("the metrics were not read")
            await asyncio.sleep(max(0.1, self._interval - (self._clock.monotonic() - began)))

    async def once(self) -> None:
        """Read every place once, all at a time."""
        urls = list(self._history.places)
        found = await asyncio.gather(*map(self._read, urls))
        self._history.add(
            {url: reading for url, (reading, _) in zip(urls, found, strict=True)},
            at=self._clock.now(),
            skews={url: skew for url, (_, skew) in zip(urls, found, strict=True)},
        )

    async def _read(self, url: str) -> tuple[Reading | str, float | None]:
        before = self._clock.now()
        try:
            answer = await self._calls.call(
                "GET",
                url,
                headers={"Accept": "text/plain;version=0.0.4"},
                deadline_seconds=max(1.0, self._interval),
                max_bytes=MAX_BYTES,
            )
            if answer.status != OK:
                return f"it answers {answer.status} instead of metrics", None
            reading = read_exposition(answer.body)
        except (Unreachable, ProtocolError) as error:
            return str(error), None
        theirs = reading.values.get(_CLOCK)
        return reading, None if theirs is None else _ahead(theirs, before, self._clock.now())


def _ahead(theirs: float, before: float, after: float) -> float:
    """Return by how much a clock is ahead of ours; within the time that the call took nobody can say, so zero."""
    return max(0.0, theirs - after) + min(0.0, theirs - before)
