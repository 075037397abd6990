"""
Which assertions were used in any issuer process: one object each, written only where there is none yet.

Off by default: then an assertion counts once in each process (docs/adr/0008). Invariants:

* Of two processes that are shown one assertion, the store lets one write; the other answers that it was used.
* What cannot be told is refused: the caller gets 503, and the assertion stays used up in this process.
* An object's name is a digest of owner and id: the store learns neither.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from tokenry.errors import TokenryError
from tokenry.jose.encoding import dump_json
from tokenry_issuer.replay import UsedBefore, digest_of
from tokenry_registry.ports import ObjectUnreadable, StoreUnavailable, WriteConflict, WriteRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry_registry.ports import WritableStore

DEADLINE_SECONDS = 2.0  # a client waits for its token meanwhile
CONNECT_SECONDS = 5.0  # by which a start may be delayed

_log = structlog.get_logger("tokenry_issuer.shared_replay")


class ReplayResult(StrEnum):
    """What the store said: labels of a metric."""

    FRESH = "fresh"
    USED = "used"
    UNAVAILABLE = "unavailable"


class ReplayUnknown(TokenryError):
    """It cannot be told whether the assertion was used before."""


class SharedReplay:
    """The assertions that were used in any process."""

    def __init__(
        self,
        store: WritableStore,
        *,
        observe: Callable[[ReplayResult], None],
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """
        Remember in *store*.

        Args:
            store: Whatever is in it may be deleted a day after it was written.
            observe: Called with what the store said.
            deadline_seconds: For which it is waited for.
        """
        self._store = store
        self._observe = observe
        self._deadline = deadline_seconds
        self._failing = False

    @property
    def failing(self) -> bool:
        """Tell whether the store did not answer when it was last asked."""
        return self._failing

    async def connect(self) -> None:
        """Have the store ready for the first assertion: loading a driver takes longer than a client may wait."""
        with suppress(ObjectUnreadable, StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._store.get("connect.json")  # which is not there, and need not be allowed

    async def use(self, owner: str, jti: str, *, expires_at: float) -> None:
        """
        Remember that the assertion *jti* of *owner* is used now.

        A write whose answer was lost is written again by the adapter and then meets itself: the assertion counts as
        used before, which costs its client a new one, and lets no second use through.

        Args:
            owner: Whoever chooses the ids.
            jti: The assertion's id.
            expires_at: Unix seconds; for people who look at the objects.

        Raises:
            UsedBefore: It was used before, in whatever process.
            ReplayUnknown: The store is away, slow, or lets us write nothing.
        """
        key = f"{digest_of(owner, jti).hex()}.json"
        try:
            async with asyncio.timeout(self._deadline):
                await self._store.put(key, dump_json({"expires_at": int(expires_at)}), replaces=None)
        except WriteConflict:
            self._tell(ReplayResult.USED)
            raise UsedBefore("the assertion was used before, in some process") from None
        except (StoreUnavailable, WriteRefused, TimeoutError) as error:
            if not self._failing:
                _log.error("used assertions cannot be shared", error=getattr(error, "code", "timeout"))
            self._tell(ReplayResult.UNAVAILABLE)
            raise ReplayUnknown("it cannot be told whether the assertion was used before") from None
        self._tell(ReplayResult.FRESH)

    def _tell(self, result: ReplayResult) -> None:
        self._failing = result is ReplayResult.UNAVAILABLE
        self._observe(result)

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()
