"""Refreshing in the background: at an interval with jitter, sooner while nothing is there yet, for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from tokenry.http.backoff import Backoff, shortened, system_random
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import RefusedObject

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

FIRST_RETRY = 0.5  # seconds after the first failure at start
LONGEST_RETRY = 8.0  # seconds between two tries at start: ready within 10 s of the store's return
JITTER = 0.1  # the interval is shortened by up to so much, never lengthened

_log = structlog.get_logger("tokenry_issuer.refreshing")


@dataclass(slots=True, kw_only=True)
class Refresher:
    """
    Drives one thing that is refreshed.

    Attributes:
        name: In logs and metrics.
        refresh: Does it once.
        loaded: Tells whether it ever succeeded.
        interval: Seconds between two refreshes; not shortened by failures, so that an overloaded store
            recovers.
        observe: Called with the outcome of each: `ok`, or a short word for what went wrong.
        uniform: Where the jitter comes from.
    """

    name: str
    refresh: Callable[[], Awaitable[object]]
    loaded: Callable[[], bool]
    interval: float
    observe: Callable[[str], None]
    uniform: random.Random = field(default=system_random, repr=False)
    _backoff: Backoff = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin without failures."""
        self._backoff = Backoff(first=FIRST_RETRY, longest=LONGEST_RETRY, uniform=self.uniform)

    async def once(self) -> float:
        """Refresh, whatever happens; return the seconds to wait before the next time."""
        outcome = await self._attempt()
        self.observe(outcome)
        if self.loaded():
            self._backoff.succeeded()
            return shortened(self.interval, by=JITTER, uniform=self.uniform)
        return self._backoff.after_failure()

    async def _attempt(self) -> str:
        try:
            await self.refresh()
        except StoreUnavailable as error:
            _log.warning("refresh failed", what=self.name, code=error.code)
            return error.code
        except TimeoutError:
            _log.warning("refresh took too long", what=self.name)
            return "timeout"
        except RefusedObject as refused:
            _log.error("refresh refused", what=self.name, cause=str(refused.cause), detail=str(refused))
            return str(refused.cause)
        except Exception as error:  # noqa: BLE001 -- reported, and tried again
            # A background task that dies in silence looks exactly like a quiet day.
            _log.exception("refresh broke", what=self.name, exc_info=error)
            return "fault"
        return "ok"

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:  # noqa: ASYNC110 -- there is nobody who could set an event
            await asyncio.sleep(await self.once())
