"""
The last good version of every object below a prefix, held in memory and refreshed in the background.

One refresh lists the prefix with ETags and fetches only what changed, a bounded number at once. What was
fetched by a refresh that then failed is not fetched again by the next. Invariants:

* A refresh takes effect whole or not at all, and nobody sees it half done.
* An object that is refused keeps its last good version in force; it is reported once for each bad version.
* A listing that removes too much refuses the whole refresh (the `check` that the mirror was made with).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tokenry_issuer.ports import GONE, ObjectUnreadable
from tokenry_issuer.realms import Refusal, RefusedObject

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from tokenry_issuer.ports import ObjectStore

CONCURRENT_READS = 8  # as many as the S3 adapter has threads
REFRESH_DEADLINE = 60.0  # seconds; the next refresh goes on where this one was cut off

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Read(Generic[V]):
    """What became of one version of an object."""

    etag: str
    value: V | RefusedObject


class Mirror(Generic[K, V]):
    """
    The objects below a prefix.

    Attributes:
        values: The last good version of each.
        refused: Why the current version of an object (by its key in the store) is not in force.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        read_key: Callable[[str], K],
        read: Callable[[K, bytes], V],
        check: Callable[[Collection[K], Collection[K]], None],
        on_refused: Callable[[str, RefusedObject], None],
    ) -> None:
        """
        Hold nothing yet.

        Args:
            store: Where the objects are.
            prefix: What their keys begin with.
            read_key: Gives a key its meaning; raises `RefusedObject`.
            read: Gives an object its value; raises `RefusedObject`.
            check: Called with what is in force and what is listed; raises `RefusedObject` for too large a
                change.
            on_refused: Called once for each refused version, with its key.
        """
        self.values: Mapping[K, V] = {}
        self.refused: Mapping[str, RefusedObject] = {}
        self._store = store
        self._prefix = prefix
        self._read_key = read_key
        self._read = read
        self._check = check
        self._on_refused = on_refused
        self._seen: dict[str, _Read[V]] = {}

    async def refresh(self, *, deadline: float = REFRESH_DEADLINE) -> bool:
        """
        Bring everything up to date; return whether any value changed.

        Raises:
            StoreUnavailable: The store could not be asked; everything stays as it was.
            RefusedObject: The listing removes too much; everything stays as it was.
            TimeoutError: The *deadline* in seconds passed.
        """
        async with asyncio.timeout(deadline):
            listed = await self._store.list(self._prefix)
            places = self._places(listed)
            self._check(self.values.keys(), frozenset(places.values()))
            await self._fetch(iter([path for path in places if not self._is_seen(path, listed[path])]), places)
        return self._apply(places)

    def _is_seen(self, path: str, etag: str) -> bool:
        return path in self._seen and self._seen[path].etag == etag

    def _places(self, listed: Mapping[str, str]) -> dict[str, K]:
        places: dict[str, K] = {}
        for path, etag in listed.items():
            try:
                places[path] = self._read_key(path)
            except RefusedObject as refused:
                self._note(path, etag, refused)
        for path in self._seen.keys() - listed.keys():
            del self._seen[path]
        return places

    def _note(self, path: str, etag: str, outcome: V | RefusedObject) -> None:
        known = self._is_seen(path, etag)
        self._seen[path] = _Read(etag, outcome)
        if isinstance(outcome, RefusedObject) and not known:
            self._on_refused(path, outcome)

    async def _fetch(self, paths: Iterator[str], places: Mapping[str, K]) -> None:
        # The workers share one iterator: each takes the next path when it is done with its last.
        workers = [asyncio.ensure_future(self._work(paths, places)) for _ in range(CONCURRENT_READS)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, paths: Iterator[str], places: Mapping[str, K]) -> None:
        for path in paths:
            seen = self._seen.get(path)
            try:
                found = await self._store.get(path, etag=seen.etag or None if seen is not None else None)
                if found is not None:
                    self._note(path, found.etag, self._value(places[path], found.body))
            except ObjectUnreadable as error:
                if error.code == GONE:  # deleted since it was listed: the next listing tells
                    continue
                # Without a version, so that the next refresh tries again: permissions do not change an ETag.
                unreadable = RefusedObject(Refusal.UNREADABLE, str(error))
                if path not in self.refused or self.refused[path].cause is not Refusal.UNREADABLE:
                    self._on_refused(path, unreadable)
                self._seen[path] = _Read("", unreadable)

    def _value(self, key: K, body: bytes) -> V | RefusedObject:
        try:
            return self._read(key, body)
        except RefusedObject as refused:
            return refused

    def _apply(self, places: Mapping[str, K]) -> bool:
        values: dict[K, V] = {}
        for path, key in places.items():
            outcome = self._seen[path].value if path in self._seen else None
            if outcome is not None and not isinstance(outcome, RefusedObject):
                values[key] = outcome
            elif key in self.values:
                values[key] = self.values[key]
        refused = {path: each.value for path, each in self._seen.items() if isinstance(each.value, RefusedObject)}
        changed = values != self.values
        self.values, self.refused = values, refused
        return changed
