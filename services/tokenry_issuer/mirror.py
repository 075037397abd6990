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

from tokenry_issuer.snapshot import packed
from tokenry_registry.ports import GONE, ObjectUnreadable
from tokenry_registry.realms import Refusal, RefusedObject

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from tokenry_registry.ports import ObjectStore

CONCURRENT_READS = 8  # as many as the S3 adapter has threads
REFRESH_DEADLINE = 60.0  # seconds; the next refresh goes on where this one was cut off

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Read(Generic[V]):
    """What became of one version of an object."""

    etag: str
    value: V | RefusedObject
    packed: bytes | None = None


class Mirror(Generic[K, V]):
    """
    The objects below a prefix.

    Attributes:
        values: The last good version of each.
        refused: Why the current version of an object (by its key in the store) is not in force.
        kept: ETag and compressed body of each object in force, by its key in the store, where they are kept; a new
            mapping for each change.
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
        keep: bool = False,
    ) -> None:
        """
        Hold nothing yet.

        Args:
            store: Where the objects are.
            prefix: What their keys begin with.
            read_key: Gives a key its meaning; raises `RefusedObject`.
            read: Gives an object its value; raises `RefusedObject`.
            check: Called with what is in force and what of it is gone; raises `RefusedObject` for too much.
            on_refused: Called once for each refused version, with its key.
            keep: Whether to keep the bodies as well, for a snapshot.
        """
        self.kept: Mapping[str, tuple[str, bytes]] = {}
        self._keep_bodies = keep
        self.values: Mapping[K, V] = {}
        self.refused: Mapping[str, RefusedObject] = {}
        self._store = store
        self._prefix = prefix
        self._read_key = read_key
        self._read = read
        self._check = check
        self._on_refused = on_refused
        self._listed: Mapping[str, str] = {}  # the ETags of the versions that were judged
        self._places: Mapping[str, K] = {}  # the meaning of each key that has one
        self._fetched: dict[str, _Read[V]] = {}  # what was read and has not taken effect yet

    async def refresh(self, *, deadline: float = REFRESH_DEADLINE, source: ObjectStore | None = None) -> bool:
        """
        Bring everything up to date; return whether any value changed.

        Args:
            deadline: Seconds that it may take.
            source: Where to read this once, in place of the store.

        Raises:
            StoreUnavailable: The store could not be asked; everything stays as it was.
            RefusedObject: The listing removes too much; everything stays as it was.
            TimeoutError: The *deadline* in seconds passed.
        """
        async with asyncio.timeout(deadline):
            store = source or self._store
            listed = await store.list(self._prefix)
            if listed == self._listed:
                return False
            changed = [path for path, etag in listed.items() if self._listed.get(path) != etag]
            gone = (self._listed.keys() | self._places.keys()) - listed.keys()
            if gone:
                keys = {self._places[path] for path in gone if path in self._places}
                self._check(self.values.keys(), keys & self.values.keys())
            await self._fetch(store, iter([path for path in changed if not self._is_fetched(path, listed[path])]))
        return self._apply(listed, changed=changed, gone=gone)

    async def _fetch(self, store: ObjectStore, paths: Iterator[str]) -> None:
        # The workers share one iterator: each takes the next path when it is done with its last.
        workers = [asyncio.ensure_future(self._work(store, paths)) for _ in range(CONCURRENT_READS)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, store: ObjectStore, paths: Iterator[str]) -> None:
        for path in paths:
            try:
                key = self._read_key(path)
                found = await store.get(path, etag=self._listed.get(path))
            except RefusedObject as refused:
                self._keep(path, "", refused)
            except ObjectUnreadable as error:
                if error.code != GONE:  # else deleted since it was listed: the next listing tells
                    self._keep(path, "", RefusedObject(Refusal.UNREADABLE, str(error)))
            else:
                if found is not None:
                    body = packed(found.body) if self._keep_bodies else None
                    self._keep(path, found.etag, self._value(key, found.body), body)

    def _value(self, key: K, body: bytes) -> V | RefusedObject:
        try:
            return self._read(key, body)
        except RefusedObject as refused:
            return refused

    def _is_fetched(self, path: str, etag: str) -> bool:
        return path in self._fetched and self._fetched[path].etag == etag

    def _keep(self, path: str, etag: str, value: V | RefusedObject, body: bytes | None = None) -> None:
        self._fetched[path] = _Read(etag, value, body)
        if not isinstance(value, RefusedObject):
            return
        # One without a version is met again at each refresh.
        known = self.refused.get(path)
        if etag or known is None or known.cause is not value.cause:
            self._on_refused(path, value)

    def _apply(self, listed: Mapping[str, str], *, changed: Iterable[str], gone: Iterable[str]) -> bool:
        values, refused, places, judged, kept = (
            dict(self.values), dict(self.refused), dict(self._places), dict(listed), dict(self.kept),
        )  # fmt: skip
        before = self.values
        for path in gone:
            refused.pop(path, None)
            kept.pop(path, None)
            if path in places:
                values.pop(places.pop(path), None)
        for path in changed:
            read = self._fetched.pop(path, None)
            if read is None or not read.etag:
                # Not judged by its content, so that the next refresh tries again: permissions change no ETag.
                judged.pop(path)
            else:
                judged[path] = read.etag
            if read is None:
                continue
            if isinstance(read.value, RefusedObject):
                refused[path] = read.value
                continue
            refused.pop(path, None)
            key = places[path] = self._read_key(path)
            values[key] = read.value
            if read.packed is not None:
                kept[path] = (read.etag, read.packed)
        self._fetched.clear()
        if kept != self.kept:
            self.kept = kept
        self._places, self._listed, self.refused = places, judged, refused
        if values == before:
            return False
        self.values = values
        return True
