"""
What readers get, computed from the records in force. No clock and no store: the same records at the same
moment are the same bytes on every replica.

Invariants:
    * A record leaves only when it is out of force. Deleting a row of the store changes nothing here.
    * A cursor says what a reader has: a read position of the store, and a digest of the records that were
    seen at or
      above it less the store's overlap. Any replica can tell from it what is new, and nobody keeps a list of
      readers.
    * Repeating a record is harmless, missing one is not: in doubt it is sent again.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from tokenry.errors import TokenryError
from tokenry.revocation.planb import Refresh
from tokenry.revocation.wire import ListDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tokenry.revocation.entries import Entry
    from tokenry.revocation.planb import PlanBList, PlanBRow
    from tokenry_revocation.records import Record, RecordType

# A delta of more records than this costs the reader more than the snapshot in its binary form would.
MAX_DELTA_RECORDS: Final = 100_000

_CURSOR = re.compile(r"1\.([0-9]{1,16})\.([0-9]{1,19})\.([0-9a-f]{16})\.([0-9]{1,14})")
_DIGEST_MODULUS: Final = 2**64


class CursorGone(TokenryError):
    """The cursor is of another store or version, or too far back: take the snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """
    What a reader has.

    Attributes:
        epoch: The store that it has read.
        position: The read position of that store up to which it has everything.
        digest: Sum of the hashes of the records that it has at or above that position less the overlap.
        as_of: Unix milliseconds up to which it has every acknowledged revocation.
    """

    epoch: int
    position: int
    digest: int
    as_of: int

    @classmethod
    def parse(cls, text: str, *, epoch: int) -> Self:
        """
        Return the cursor that *text* is.

        Raises:
            CursorGone: It is not one that a server of this store, in this version, has given out.
        """
        found = _CURSOR.fullmatch(text)
        if found is None or int(found[1]) != epoch:
            raise CursorGone("this cursor is of no use here: take the snapshot")
        return cls(epoch=epoch, position=int(found[2]), digest=int(found[3], 16), as_of=int(found[4]))

    def format(self) -> str:
        """Return the opaque text that readers send back."""
        return f"1.{self.epoch}.{self.position}.{self.digest:016x}.{self.as_of}"


@dataclass(slots=True, kw_only=True, eq=False)
class Live:
    """
    What publication needs of one record in force.

    Attributes:
        id: The record's name.
        type: What it is.
        revoked_at: Unix seconds at which it was accepted.
        in_force_until: Unix seconds until which it matters; None for ever.
        entries: What our readers get.
        rows: What Plan B's readers get.
        undoes: Id of the record that it takes back.
        refresh_from: What a notification tells Plan B's validators.
        position: Where the store put it; 0 while that is not known here.
        hash: 64 bits that stand for the id in a digest.
    """

    id: str
    type: RecordType
    revoked_at: int
    in_force_until: int | None
    entries: tuple[Entry, ...]
    rows: tuple[PlanBRow, ...]
    undoes: str | None
    refresh_from: int | None
    position: int
    hash: int = field(init=False)

    def __post_init__(self) -> None:
        """Hash the id."""
        self.hash = int.from_bytes(hashlib.sha256(self.id.encode("ascii")).digest()[:8], "big")

    @classmethod
    def of(cls, record: Record, *, position: int) -> Self:
        """Return what publication needs of *record*."""
        return cls(
            id=record.id,
            type=record.type,
            revoked_at=record.revoked_at,
            in_force_until=record.in_force_until,
            entries=record.entries,
            rows=record.plan_b,
            undoes=record.undoes,
            refresh_from=record.refresh_from,
            position=position,
        )

    @property
    def single(self) -> bool:
        """Whether it revokes one token, for good."""
        return all(entry.single for entry in self.entries)

    def in_force(self, now: float) -> bool:
        """Tell whether it still matters at *now* (Unix seconds)."""
        return self.in_force_until is None or now < self.in_force_until


class Publication:
    """
    The records in force, and the read position of the store up to which they are complete.

    Attributes:
        version: Grows whenever what is published changes: what was rendered for another one is out of date.
        position: The read position of the store; everything acknowledged before it was read is here.
        counts: How many records of each type are in force.
        plan_b: The same for validators of Plan B.
    """

    def __init__(self, *, epoch: int, overlap: int, plan_b: PlanBList) -> None:
        """
        Begin empty.

        Args:
            epoch: Names the store.
            overlap: How far below a position of the store later news may still appear.
            plan_b: The list for validators of Plan B, empty too.
        """
        self.plan_b = plan_b
        self.epoch = epoch
        self.version = 0
        self.position = 0
        self._overlap = overlap
        self._live: dict[str, Live] = {}
        self._order: list[tuple[int, str]] = []  # by position; a record that moved leaves its old place behind
        self._placeless: dict[str, Live] = {}  # acknowledged here, and not yet seen in a read
        self._undone: set[str] = set()
        self.counts: Counter[RecordType] = Counter()

    def __len__(self) -> int:
        """Return the number of records in force."""
        return len(self._live)

    def __iter__(self) -> Iterator[Live]:
        """Go through the records."""
        return iter(self._live.values())

    def is_undone(self, name: str) -> bool:
        """Tell whether the record called *name* was taken back."""
        return name in self._undone

    def add(self, records: Iterable[Live], *, now: float) -> list[Live]:
        """
        Take in *records* and return those that are new; what is out of force at *now* is not taken.

        A record that was seen before may come again, at the same position or at a later one.
        """
        new = []
        for live in records:
            if not live.in_force(now):
                continue
            if self._take(live):
                new.append(live)
        if new:
            self.version += 1
        return new

    def _take(self, live: Live) -> bool:
        known = self._live.get(live.id)
        if known is None:
            self._live[live.id] = live
            self.counts[live.type] += 1
            self._list_for_plan_b(live)
            self._place(live)
            return True
        if live.position > known.position:
            known.position = live.position
            self._placeless.pop(live.id, None)
            self._place(known)
        return False

    def _list_for_plan_b(self, live: Live) -> None:
        if live.undoes is not None:
            self._undone.add(live.undoes)
            undone = self._live.get(live.undoes)
            if undone is not None:
                for row in undone.rows:
                    self.plan_b.remove(row, until=undone.in_force_until)
        if live.refresh_from is not None:
            self.plan_b.notify(Refresh(since=live.refresh_from, timestamp=live.revoked_at))
        if live.id not in self._undone:
            for row in live.rows:
                self.plan_b.add(row, until=live.in_force_until, single=live.single)

    def _place(self, live: Live) -> None:
        if not live.position:
            self._placeless[live.id] = live
            return
        place = (live.position, live.id)
        if not self._order or self._order[-1] < place:
            self._order.append(place)
        else:
            insort(self._order, place)

    def advance(self, position: int) -> None:
        """Note that everything up to *position* of the store has been read."""
        self.position = max(self.position, position)

    def prune(self, *, now: float) -> int:
        """Drop what is out of force at *now* and return how many records that was."""
        dead = [live for live in self._live.values() if not live.in_force(now)]
        for live in dead:
            del self._live[live.id]
            self.counts[live.type] -= 1
            self._placeless.pop(live.id, None)
            if live.undoes is not None:
                self._undone.discard(live.undoes)
        if dead:
            self._order = [place for place in self._order if self._is_at(place)]
            self.version += 1
            self.plan_b.prune(now)
        return len(dead)

    def _is_at(self, place: tuple[int, str]) -> bool:
        live = self._live.get(place[1])
        return live is not None and live.position == place[0]

    def window(self, position: int) -> list[Live]:
        """Return the records that a reader of everything up to *position* may not have."""
        first = bisect_right(self._order, position - self._overlap, key=lambda place: place[0])
        placed = [self._live[place[1]] for place in self._order[first:] if self._is_at(place)]
        return [*placed, *self._placeless.values()]

    def cursor(self, *, as_of: float) -> Cursor:
        """Return the cursor of a reader that has all of this, complete up to *as_of* (Unix seconds)."""
        return Cursor(
            epoch=self.epoch,
            position=self.position,
            digest=_digest(self.window(self.position)),
            as_of=max(0, int(as_of * 1000)),
        )

    def news(self, cursor: Cursor) -> list[Live]:
        """
        Return what a reader with *cursor* may lack; nothing when it has the same records as we have.

        Raises:
            CursorGone: It is so much that the snapshot is the better answer.
        """
        window = self.window(cursor.position)
        if _digest(window) == cursor.digest:
            return []
        if len(window) > MAX_DELTA_RECORDS:
            raise CursorGone("there is too much news since this cursor: take the snapshot")
        return window


def document(
    records: Iterable[Live], *, cursor: Cursor, salts: dict[str, bytes], max_token_lifetime: int
) -> ListDocument:
    """Return what our readers get: the entries of *records*, and the cursor behind them."""
    return ListDocument(
        cursor=cursor.format(),
        epoch=cursor.epoch,
        salts=salts,
        max_token_lifetime=max_token_lifetime,
        entries=tuple(entry for live in records for entry in live.entries),
    )


def entries_digest(records: Iterable[Live]) -> str:
    """Return a short text that is the same for the same entries, for an `ETag`."""
    return f"{_digest(records):016x}"


def _digest(records: Iterable[Live]) -> int:
    return sum(live.hash for live in records) % _DIGEST_MODULUS
