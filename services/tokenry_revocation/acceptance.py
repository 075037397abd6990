"""
Taking a revocation: found or written, then acknowledged, then published.

The store is written first. When its answer is not known the caller gets 503, and doing the same again is
safe: the record's id follows from what is revoked (and from the moment, for a rule without a cut-off of its
own; an idempotency key keeps that moment). Only what the store has acknowledged is published here, so nothing
is half in force.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry_revocation.ports import StoredRecord
from tokenry_revocation.records import Record, RecordType
from tokenry_revocation.revoking import undo, undo_id
from tokenry_revocation.sheets import place_of_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tokenry.clock import Clock
    from tokenry_revocation.feed import Feed
    from tokenry_revocation.metrics import ServiceMetrics
    from tokenry_revocation.ports import RevocationStore
    from tokenry_revocation.revoking import Draft, Fingerprints, Signature, Terms

IDEMPOTENCY_SECONDS: Final = 24 * 3600
MAX_GENERATIONS: Final = 1000  # of one revocation: each was taken back, or had its time, before the next


class NotFound(TokenryError):
    """There is no such record."""


class Conflict(TokenryError):
    """It cannot be done as things are; the message says why."""


class KeyReused(TokenryError):
    """The idempotency key was used before, for another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What became of a request.

    Attributes:
        record: The record in the store.
        created: Whether it is new; otherwise it is the first one of the same revocation.
    """

    record: Record
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """
    What makes the attempts of one caller at one request recognisable.

    Attributes:
        key: Keyed hash of the caller and its idempotency key.
        request: Keyed hash of the request.
    """

    key: str
    request: str


class Acceptance:
    """Writes records, each once."""

    def __init__(
        self,
        *,
        store: RevocationStore,
        feed: Feed,
        clock: Clock,
        terms: Terms,
        fingerprints: Fingerprints,
        metrics: ServiceMetrics,
    ) -> None:
        """Write to *store* and publish through *feed*."""
        self._store = store
        self._feed = feed
        self._clock = clock
        self._terms = terms
        self._fingerprints = fingerprints
        self._metrics = metrics
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def revoke(self, draft: Draft, *, by: Signature, attempt: Attempt | None = None) -> Outcome:
        """
        Put *draft* in force and return its record, or the one that says the same already.

        Args:
            draft: What is revoked.
            by: Who asks for it.
            attempt: With an idempotency key: what this is an attempt at.

        Raises:
            StoreUnavailable: Nothing is known to be in force; the same request may be sent again.
            KeyReused: The idempotency key stands for another request.
            Conflict: The revocation was made and taken back too often.
        """
        async with self._alone(f"record {draft.canonical.hex()}"):
            if attempt is None:
                return await self._write(*await self._choose(draft, by))
            async with self._alone(f"attempt {attempt.key}"):
                return await self._resume(attempt, draft, by)

    async def undo(self, name: str, *, by: Signature) -> Outcome:
        """
        Take the record called *name* back.

        Raises:
            NotFound: There is none.
            Conflict: It is of a kind that is not taken back, or no longer in force.
            StoreUnavailable: Not known to be taken back; the same request may be sent again.
        """
        target = await self.find(name)
        if not target.undoable:
            raise Conflict(_NOT_UNDOABLE.get(target.type, "this cannot be taken back"))
        if not target.in_force(self._clock.now()):
            raise Conflict("this is not in force any more")
        record = undo(target, now=self._clock.now(), terms=self._terms, fingerprints=self._fingerprints, by=by)
        async with self._alone(f"record {record.id}"):
            first = await self._first(record.id)
            return await self._write(first or record, known=first is not None)

    async def publish(self, record: Record) -> Outcome:
        """
        Write *record*, which has an id of its own.

        Raises:
            StoreUnavailable: Not known to be written; the same request may be sent again.
        """
        known = await self._first(record.id) is not None
        return await self._write(record, known=known)

    async def find(self, name: str) -> Record:
        """
        Return the record called *name*.

        Raises:
            NotFound: There is none.
            StoreUnavailable: The store does not answer.
        """
        found = await self._first(name) or await self._line(name)
        if found is None:
            raise NotFound("there is no revocation of this id")
        return found

    async def find_undo(self, name: str) -> Record | None:
        """Return the record that took the one called *name* back, or None."""
        return await self._first(undo_id(name, fingerprints=self._fingerprints))

    async def _first(self, name: str) -> Record | None:
        with self._metrics.store("get"):
            stored = await self._store.get(name)
        return None if stored is None else Record.from_bytes(stored.body)

    async def _line(self, name: str) -> Record | None:
        """Return the record that is one of many in a batch."""
        place = place_of_line(name)
        if place is None:
            return None
        sheet, line = place
        with self._metrics.store("get"):
            stored = await self._store.get(sheet)
        return None if stored is None else Record.from_sheet(stored.body, line=line)

    async def _choose(self, draft: Draft, by: Signature) -> tuple[Record, bool]:
        """Return the record in force that says what *draft* says, or a new one; and whether it is known."""
        for generation in range(MAX_GENERATIONS):
            name = self._fingerprints.identity(draft.canonical, generation)
            first = await self._first(name)
            if first is None:
                return draft.record(name, terms=self._terms, by=by), False
            if draft.stillborn or (first.in_force(draft.now) and not await self._is_undone(first)):
                return first, True
        raise Conflict("this was revoked and taken back too often")

    async def _is_undone(self, record: Record) -> bool:
        return record.undoable and await self.find_undo(record.id) is not None

    async def _write(self, record: Record, known: bool) -> Outcome:  # noqa: FBT001 -- of `_choose`
        """Put *record* into the store, unless it is known to be there, and then into what is published."""
        if known:
            self._feed.add(record)
            return Outcome(record=record, created=False)
        stored = StoredRecord(id=record.id, body=record.to_bytes(), in_force_until=record.in_force_until)
        with self._metrics.store("append"):
            await self._store.append(stored)
        self._feed.add(record)
        self._metrics.created(record.type)
        return Outcome(record=record, created=True)

    async def _resume(self, attempt: Attempt, draft: Draft, by: Signature) -> Outcome:
        """Do what an earlier attempt meant to do: the record is kept before it is written."""
        with self._metrics.store("recall"):
            intended = await self._store.recall(attempt.key)
        if intended is not None:
            request, record = _read_intent(intended)
            if request != attempt.request:
                raise KeyReused("this Idempotency-Key was sent with another request before")
            return await self._write(record, known=await self._first(record.id) is not None)
        record, known = await self._choose(draft, by)
        intent = _intent(attempt.request, record)
        with self._metrics.store("remember"):
            await self._store.remember(attempt.key, intent, ttl_seconds=IDEMPOTENCY_SECONDS)
        return await self._write(record, known=known)

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Let one request at a time of this process do what *name* stands for."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with lock:
            yield


def _intent(request: str, record: Record) -> bytes:
    return dump_json({"request": request, "record": base64.b64encode(record.to_bytes()).decode("ascii")})


def _read_intent(body: bytes) -> tuple[str, Record]:
    members = parse_json_object(body)
    try:
        return str(members["request"]), Record.from_bytes(base64.b64decode(members["record"]))
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("what was remembered of an earlier attempt cannot be read") from None


_NOT_UNDOABLE = {
    RecordType.KEY: "the revocation of a key is never taken back: publish another key",
    RecordType.TOKEN: "the revocation of a token is taken back only when its reason was test",
    RecordType.UNDO: "an undo is not taken back: revoke again",
    RecordType.REFRESH_FROM: "a notification is not taken back",
}
