"""A `RevocationStore` in this process's memory, gone with it: for tests, and for nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tokenry_revocation.ports import Batch, StoredRecord, StoreUnavailable, check_lifetime, check_remembered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tokenry.clock import Clock

_PAGE_ROWS = 500


@dataclass(slots=True, eq=False)
class MemoryLog:
    """What several `MemoryStore`s share, as replicas share a database."""

    epoch: int = 1
    environment: str | None = None
    log: list[StoredRecord] = field(default_factory=list)
    latest: dict[str, StoredRecord] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    members: dict[str, dict[str, tuple[bytes, float]]] = field(default_factory=dict)


class MemoryStore:
    """
    One replica's access to a `MemoryLog`, by default one of its own.

    Safe within one event loop: nothing here waits, so every method is one step.
    """

    def __init__(self, clock: Clock, *, shared: MemoryLog | None = None) -> None:
        """Use *shared*, or begin empty."""
        self._clock = clock
        self._all = MemoryLog() if shared is None else shared
        self._closed = False

    @property
    def overlap(self) -> int:
        """Nothing appears late: appends happen one after the other."""
        return 0

    @property
    def retention_seconds(self) -> int | None:
        """Records are kept as long as the process lives."""
        return None

    async def append(self, record: StoredRecord) -> None:
        """Add *record* to the end, unless it is the latest of its id already."""
        await self.ping()
        check_lifetime(record, now=self._clock.now())
        latest = self._all.latest.get(record.id)
        if latest is not None and replace(latest, position=0) == replace(record, position=0):
            return
        stored = replace(record, position=len(self._all.log) + 1)
        self._all.log.append(stored)
        self._all.latest[record.id] = stored

    async def get(self, record_id: str) -> StoredRecord | None:
        """Return the record last appended under *record_id*."""
        await self.ping()
        return self._all.latest.get(record_id)

    async def read(self, after: int | None) -> Batch:
        """Return what came after position *after*, or everything in force."""
        await self.ping()
        position = max(after or 0, len(self._all.log))
        if after is not None:
            return Batch(records=tuple(self._all.log[after:]), position=position)
        now = self._clock.now()
        live = (r for r in self._all.log if r.in_force_until is None or r.in_force_until > now)
        return Batch(records=tuple(live), position=position)

    async def pages(self) -> AsyncGenerator[Batch, None]:
        """Yield everything in force."""
        batch = await self.read(None)
        for start in range(0, max(1, len(batch.records)), _PAGE_ROWS):
            yield Batch(records=batch.records[start : start + _PAGE_ROWS], position=batch.position)

    async def remember(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep *value* for a while."""
        await self.ping()
        check_remembered(value, ttl_seconds=ttl_seconds)
        self._all.keys[key] = (value, self._clock.now() + ttl_seconds)

    async def recall(self, key: str) -> bytes | None:
        """Return the value unless it has expired."""
        await self.ping()
        value, expires_at = self._all.keys.get(key, (None, 0.0))
        return value if expires_at > self._clock.now() else None

    async def remember_member(self, group: str, name: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep *value* for a while, as part of a group."""
        await self.ping()
        check_remembered(value, ttl_seconds=ttl_seconds)
        self._all.members.setdefault(group, {})[name] = (value, self._clock.now() + ttl_seconds)

    async def recall_members(self, group: str) -> dict[str, bytes]:
        """Return the members that have not expired."""
        await self.ping()
        now = self._clock.now()
        members = self._all.members.get(group, {})
        return {name: value for name, (value, expires_at) in members.items() if expires_at > now}

    async def epoch(self) -> int:
        """Return the number of the shared log."""
        return self._all.epoch

    async def environment(self) -> str | None:
        """Return what the shared log was made for."""
        return self._all.environment

    async def ping(self) -> None:
        """Memory always answers, until it is closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def close(self) -> None:
        """Answer nothing any more; the shared log stays."""
        self._closed = True
