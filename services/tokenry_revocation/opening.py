"""
A store that is opened in the background, so that a service whose store is away starts, says so, and waits for
it.

Until the store is open every operation is `StoreUnavailable`: the same to all callers as an outage later on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from tokenry.errors import ConfigurationError
from tokenry_revocation.ports import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tokenry_revocation.ports import Batch, RevocationStore, StoredRecord

RETRY_SECONDS: Final = 2.0
_log = structlog.get_logger("tokenry.revocation.store")


class OpeningStore:
    """A `RevocationStore` that may not be open yet."""

    def __init__(self, open_store: Callable[[], Awaitable[RevocationStore]], *, needed_retention_seconds: int) -> None:
        """
        Open nothing yet.

        Args:
            open_store: Opens the store, or raises `StoreUnavailable`.
            needed_retention_seconds: What the store has to keep records for.
        """
        self._open_store = open_store
        self._needed = needed_retention_seconds
        self._store: RevocationStore | None = None
        self._fault = "the store is being opened"

    @property
    def fault(self) -> str | None:
        """Return why the store is not open; None when it is."""
        return self._fault if self._store is None else None

    async def open(self) -> None:
        """Open the store, once; while it is away or wrongly configured, say so and try again."""
        while self._store is None:
            try:
                store = await self._open_store()
                await self._check(store)
                self._store = store
            except (StoreUnavailable, ConfigurationError) as error:
                self._fault = str(error)
                _log.error("the store cannot be opened", error=self._fault)
                await asyncio.sleep(RETRY_SECONDS)

    async def _check(self, store: RevocationStore) -> None:
        kept = store.retention_seconds
        if kept is not None and kept < self._needed:
            await store.close()
            raise ConfigurationError(
                [
                    (
                        f"the store keeps records for {kept} s, and TOKENRY_MAX_TOKEN_LIFETIME needs "
                        f"{self._needed} s: "
                        "migrate the store's schema, or lower the lifetime"
                    )
                ]
            )

    @property
    def _opened(self) -> RevocationStore:
        if self._store is None:
            raise StoreUnavailable(self._fault)
        return self._store

    @property
    def overlap(self) -> int:
        """Return the store's overlap."""
        return self._opened.overlap

    @property
    def retention_seconds(self) -> int | None:
        """Return for how long the store keeps records."""
        return self._opened.retention_seconds

    @property
    def clock_offset(self) -> float | None:
        """Return by how many seconds our clock differs from the store's, where it can tell."""
        return getattr(self._store, "clock_offset", None)

    async def append(self, record: StoredRecord) -> None:
        """Append to the store."""
        await self._opened.append(record)

    async def get(self, record_id: str) -> StoredRecord | None:
        """Get from the store."""
        return await self._opened.get(record_id)

    async def read(self, after: int | None) -> Batch:
        """Read the store."""
        return await self._opened.read(after)

    def pages(self) -> AsyncGenerator[Batch, None]:
        """Read all of the store in portions."""
        return self._opened.pages()

    async def remember(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Remember in the store."""
        await self._opened.remember(key, value, ttl_seconds=ttl_seconds)

    async def recall(self, key: str) -> bytes | None:
        """Recall from the store."""
        return await self._opened.recall(key)

    async def remember_member(self, group: str, name: str, value: bytes, *, ttl_seconds: int) -> None:
        """Remember a member of a group in the store."""
        await self._opened.remember_member(group, name, value, ttl_seconds=ttl_seconds)

    async def recall_members(self, group: str) -> dict[str, bytes]:
        """Recall a group from the store."""
        return await self._opened.recall_members(group)

    async def epoch(self) -> int:
        """Return the store's epoch."""
        return await self._opened.epoch()

    async def environment(self) -> str | None:
        """Return the environment that the store names."""
        return await self._opened.environment()

    async def ping(self) -> None:
        """Ping the store."""
        await self._opened.ping()

    async def close(self) -> None:
        """Close the store if it was opened."""
        if self._store is not None:
            await self._store.close()
