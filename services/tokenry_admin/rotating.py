"""
Rotation on a period, in the background: looks at the keys again and again, and writes what is due.

Any number of rotators may run: a write names the version that it replaces, and the worst that two can do at the same
moment is one standby more. Jitter keeps replicas apart.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from tokenry.errors import TokenryError
from tokenry.http.backoff import shortened, system_random
from tokenry_registry.key_management import KeyManagementUnavailable
from tokenry_registry.ports import StoreUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from tokenry.clock import Clock
    from tokenry.serving.metrics import Metrics
    from tokenry_admin.key_actions import KeyActions
    from tokenry_registry.signing_keys import KeyUse, StoredKey

INTERVAL: Final = 600.0  # seconds between two looks: the shortest overlap that is allowed is longer
RETRY: Final = 60.0  # seconds after a look that failed
JITTER: Final = 0.2

_log = structlog.get_logger("tokenry_admin.rotating")


class RotationMeasures:
    """What is counted of rotation."""

    def __init__(self, metrics: Metrics, *, last_success: Callable[[], float | None]) -> None:
        """Declare it in the registry of *metrics*; *last_success* tells the Unix time of the last good look."""
        self._looks = metrics.counter(
            "tokenry_key_rotations", "Looks at the keys of one use by the rotation.", labels=("use", "result")
        )
        metrics.gauge(
            "tokenry_key_rotation_last_success_timestamp_seconds",
            "Unix time at which rotation last saw all keys in order, or put them in order; 0 before the first time.",
            function=lambda: last_success() or 0.0,
        )

    def looked(self, use: KeyUse, result: str) -> None:
        """Count a look."""
        self._looks.labels(str(use), result).inc()


class Rotation:
    """
    Writes what is due, of every use that is kept.

    Attributes:
        last_success: Unix time at which all keys were in order; None before the first time.
        trouble: Why the last look failed; None when it did not.
    """

    def __init__(
        self,
        actions: KeyActions,
        *,
        clock: Clock,
        observe: Callable[[KeyUse, str], None] = lambda _use, _result: None,
        written: Callable[[KeyUse, Sequence[StoredKey]], None] = lambda _use, _keys: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: random.Random = system_random,
    ) -> None:
        """
        Have looked never yet.

        Args:
            actions: What is done.
            clock: Where the time comes from.
            observe: Called with each use and `nothing_due`, `rotated`, or a short word for what went wrong.
            written: Called with the keys that were made or changed, when there are any.
            sleep: How it waits between two looks.
            uniform: Where the jitter comes from.
        """
        self.last_success: float | None = None
        self.trouble: str | None = None
        self._actions = actions
        self._clock = clock
        self._observe = observe
        self._written = written
        self._sleep = sleep
        self._uniform = uniform

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._sleep(await self.once())

    async def once(self) -> float:
        """Look once; return the seconds until the next look. What fails for one use does not keep the others."""
        troubles = [f"{use}: {why}" for use in self._actions.uses if (why := await self._look(use)) is not None]
        self.trouble = "; ".join(troubles) or None
        if troubles:
            return shortened(RETRY, by=JITTER, uniform=self._uniform)
        self.last_success = self._clock.now()
        return shortened(INTERVAL, by=JITTER, uniform=self._uniform)

    async def _look(self, use: KeyUse) -> str | None:
        try:
            written = await self._actions.rotate_due(use)
        except (StoreUnavailable, KeyManagementUnavailable) as error:
            _log.warning("keys cannot be rotated", use=str(use), code=error.code)
            self._observe(use, error.code)
            return str(error)
        except TokenryError as error:
            _log.error("keys cannot be rotated", use=str(use), error=str(error))
            self._observe(use, "refused")
            return str(error)
        except Exception as error:  # noqa: BLE001 -- reported, and tried again
            _log.exception("rotation broke", use=str(use), exc_info=error)
            self._observe(use, "fault")
            return "a fault of ours: see the log"
        if written:
            self._written(use, written)
        self._observe(use, "rotated" if written else "nothing_due")
        return None
