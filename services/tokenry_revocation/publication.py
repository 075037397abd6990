"""
What readers get, computed from the records in force. No clock and no store: the same records at the same
moment are the same bytes on every replica.

Invariants:
    * A record leaves only when it is out of force. Deleting a row of the store changes nothing here.
    * A cursor says what a reader has: a read position of the store, and digests of the records that were seen
      not far below it, where later news may still appear. Any replica can tell from it what is new, and nobody
      keeps a list of readers.
    * Repeating a record is harmless, missing one is not: in doubt it is sent again.

Tokens that were revoked for good come by the million: each is kept as some fifty bytes under its name, a
thousand of a batch as one object.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tokenry.revocation.planb import PlanBList, Refresh
from tokenry.revocation.wire import ListDocument, format_list
from tokenry_revocation.cursors import Cursor, CursorGone
from tokenry_revocation.live import AnyLive, Live, LiveSheet, kept_live, without_hashes
from tokenry_revocation.records import RecordType
from tokenry_revocation.sheets import packed_name, spelled_name
from tokenry_revocation.token_table import KeptToken, TokenTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# A delta of more entries than this costs server and reader more than the snapshot in its binary form does.
MAX_DELTA_ENTRIES: Final = 20_000

_DIGEST_MODULUS: Final = 2**64
# The span of positions in which late news may appear is cut into so many: what changed in one is sent again.
_SLICES: Final = 8
_POSITIONS: Final = 64  # in one slice, where nothing appears late
_MOST_DIGESTS: Final = 1024  # remembered: readers that are held have one of a few positions
_PIECE: Final = 200  # entries written at a stretch: a millisecond
_PORTION: Final = 300  # records looked at, and if need be dropped, at a stretch: a millisecond
_NAMES_OF_IDS: Final = ("jti",)


@dataclass(slots=True, eq=False)
class _Slice:
    """The records at some positions next to each other: their names, how many revocations, and their digest."""

    names: list[str | bytes] = field(default_factory=list)
    lines: int = 0
    digest: int = 0


class Publication:
    """
    The records in force, and the read position of the store up to which they are complete.

    Attributes:
        version: Grows whenever what is published changes: what was rendered for another one is out of date.
        position: The read position of the store; everything acknowledged before it was read is here.
        counts: How many revocations of each type are in force.
        digest: The same number for the same records, whatever their order.
        plan_b: The same for validators of Plan B.
    """

    def __init__(self, *, epoch: int, overlap: int, plan_b: PlanBList | None = None) -> None:
        """
        Begin empty.

        Args:
            epoch: Names the store.
            overlap: How far below a position of the store later news may still appear.
            plan_b: The list for validators of Plan B, empty too; None where nobody asks for it.
        """
        self.plan_b = PlanBList(skew=0.0, retention=0) if plan_b is None else plan_b
        self.epoch = epoch
        self.version = 0
        self.position = 0
        self.digest = 0
        self.counts: Counter[RecordType] = Counter()
        self._overlap = overlap
        self._width = -(-overlap // _SLICES) or _POSITIONS
        self._live: dict[str, AnyLive] = {}
        self._tokens = TokenTable()
        self._slices: dict[int, _Slice] = {}
        self._placed_lines = 0
        self._last = 0  # number of the highest slice that there ever was
        self._complete_from = 0  # number of the first slice that is still here
        self._digests: dict[int, int] = {}  # of what stands at a position or later, until anything changes
        self._placeless: dict[str, int] = {}  # acknowledged here, and not yet seen in a read; with their hashes
        self._undone: set[str] = set()

    def __len__(self) -> int:
        """Return the number of revocations in force."""
        return self.counts.total()

    def __iter__(self) -> Iterator[AnyLive]:
        """Go through the records of this moment, whatever comes and goes before the last one was taken."""
        lives, tokens = list(self._live.values()), self._tokens.items()
        yield from lives
        for bits, kept in tokens:
            yield kept_live(bits, kept)

    def of_type(self, kind: RecordType) -> list[AnyLive]:
        """Return the records of one type, which is not TOKEN: of these there are too many to go through."""
        return [live for live in self._live.values() if live.type is kind]

    def is_undone(self, name: str) -> bool:
        """Tell whether the record called *name* was taken back."""
        return name in self._undone

    # --- what comes -----------------------------------------------------------------------------------------

    def knows(self, name: str, position: int) -> bool:
        """Tell whether the record called *name* was seen at *position* or a later one."""
        bits = packed_name(name)
        kept = None if bits is None else self._tokens.get(bits)
        if kept is not None:
            return kept.position >= position
        live = self._live.get(name)
        return live is not None and live.position >= position

    def add(self, records: Iterable[AnyLive], *, now: float) -> list[AnyLive]:
        """
        Take in *records* and return those that are new; what is out of force at *now* is not taken.

        A record that was seen before may come again, at the same position or at a later one.
        """
        new = [live for live in records if live.in_force(now) and self._take(live)]
        if new:
            self.version += 1
        return new

    def _take(self, live: AnyLive) -> bool:
        bits = packed_name(live.id) if isinstance(live, LiveSheet) and live.sheet.lines == 1 else None
        known = self._live.get(live.id) if bits is None else self._tokens.get(bits)
        if known is not None:
            if live.position > known.position:
                self._move(live, bits, known.position)
            return False
        self._list_for_plan_b(live)
        live.position = self._seen_at(live.position)
        if bits is not None and isinstance(live, LiveSheet):
            self._tokens.put(bits, KeptToken.of(live.sheet, position=live.position))
        else:
            self._live[live.id] = without_hashes(live)
        self.counts[live.type] += live.lines
        self.digest = (self.digest + _hash(live.id)) % _DIGEST_MODULUS
        self._place(live.id, bits, live.position, live.lines)
        return True

    def _seen_at(self, position: int) -> int:
        """
        Return where a record that was unknown until now is shown.

        What only a sweep found, below everything that readers may still lack, has to reach those who have read
        on long ago: it stands where they read next.
        """
        return self.position if 0 < position < self._start(self.position) else position

    def _move(self, live: AnyLive, bits: bytes | None, before: int) -> None:
        """Note that a known record stands at a later position, or at one at all."""
        if bits is not None:
            self._tokens.move(bits, live.position)
        else:
            self._live[live.id].position = live.position
        self._displace(live.id, before, live.lines)
        self._place(live.id, bits, live.position, live.lines)

    def _place(self, name: str, bits: bytes | None, position: int, lines: int) -> None:
        self._digests.clear()
        if not position:
            self._placeless[name] = _hash(name)
            return
        number = position // self._width
        if number < self._complete_from:
            return  # far below whatever a cursor reaches back to
        held = self._slices.get(number)
        if held is None:
            held = self._slices[number] = _Slice()
            self._last = max(self._last, number)
        held.names.append(name if bits is None else bits)
        held.lines += lines
        held.digest += _hash(name)
        self._placed_lines += lines

    def _displace(self, name: str, position: int, lines: int) -> None:
        """Take a record's hash away from where it was; its name is passed over there from now on."""
        self._digests.clear()
        if not position:
            self._placeless.pop(name, None)
            return
        number = position // self._width
        held = self._slices.get(number)
        if held is not None:
            held.lines -= lines
            held.digest -= _hash(name)
            self._placed_lines -= lines
            if not held.lines:
                del self._slices[number]

    def _list_for_plan_b(self, live: AnyLive) -> None:
        if isinstance(live, LiveSheet):
            sheet = live.sheet
            for names, hashes in (((), sheet.token_hashes), (_NAMES_OF_IDS, sheet.id_hashes)):
                if hashes:
                    self.plan_b.add_tokens(
                        names=names,
                        hashes=hashes,
                        issued_before=sheet.issued_before,
                        revoked_at=sheet.revoked_at,
                        until=sheet.in_force_until,
                    )
            return
        if live.undoes is not None:
            self._undone.add(live.undoes)
            undone = self._live.get(live.undoes)
            if isinstance(undone, Live):
                for row in undone.rows:
                    self.plan_b.remove(row, until=undone.in_force_until)
        if live.refresh_from is not None:
            self.plan_b.notify(Refresh(since=live.refresh_from, timestamp=live.revoked_at))
        if live.id not in self._undone:
            for row in live.rows:
                self.plan_b.add(row, until=live.in_force_until, single=live.single)

    def advance(self, position: int) -> None:
        """Note that everything up to *position* of the store has been read."""
        self.position = max(self.position, position)
        if self._placed_lines <= 2 * MAX_DELTA_ENTRIES:
            return
        # No cursor that reaches further back is answered with a delta.
        floor = (self.position - self._overlap) // self._width - 1
        for number in sorted(number for number in self._slices if number < floor):
            held = self._slices[number]
            if self._placed_lines - held.lines < MAX_DELTA_ENTRIES:
                break
            del self._slices[number]
            self._placed_lines -= held.lines
            self._complete_from = number + 1

    # --- what goes ------------------------------------------------------------------------------------------

    def prune(self, *, now: float) -> int:
        """Drop what is out of force at *now* and return how many records that was."""
        return sum(self.prune_some(now=now))

    def prune_some(self, *, now: float) -> Iterator[int]:
        """Do the same in steps of a millisecond; yield after each how many records it dropped."""
        dropped = 0
        lives = list(reversed(self._live.values()))
        while lives:
            before = dropped
            for _ in range(min(_PORTION, len(lives))):
                live = lives.pop()  # taken out: freeing them all at the end would be no short step
                # Between two steps somebody else may have dropped it.
                if not live.in_force(now) and self._live.get(live.id) is live:
                    self._drop(live)
                    dropped += 1
            yield dropped - before
        for over in self._tokens.prune(now):
            for bits, kept in over:
                self._forget(spelled_name(bits), RecordType.TOKEN, kept.position, 1)
            dropped += len(over)
            yield len(over)
        if dropped:
            self.version += 1
        yield from (0 for _ in self.plan_b.prune_some(now))

    def _drop(self, live: AnyLive) -> None:
        del self._live[live.id]
        self._forget(live.id, live.type, live.position, live.lines)
        if isinstance(live, Live) and live.undoes is not None:
            self._undone.discard(live.undoes)

    def _forget(self, name: str, kind: RecordType, position: int, lines: int) -> None:
        self.counts[kind] -= lines
        self.digest = (self.digest - _hash(name)) % _DIGEST_MODULUS
        self._displace(name, position, lines)

    # --- what is new ----------------------------------------------------------------------------------------

    def cursor(self, *, as_of: float) -> Cursor:
        """Return the cursor of a reader that has all of this, complete up to *as_of* (Unix seconds)."""
        start = self._start(self.position)
        first = start // self._width
        numbers = range(first, self.position // self._width + 1) if self._overlap else range(0)
        return Cursor(
            epoch=self.epoch,
            position=self.position,
            as_of=max(0, int(as_of * 1000)),
            digest=self._digest(start),
            width=self._width,
            first=first if self._overlap else 0,
            slices=tuple(self._slice_digest(number) for number in numbers),
        )

    def has_news(self, cursor: Cursor) -> bool:
        """Tell whether a reader with *cursor* may lack anything."""
        return self._digest(self._start(cursor.position)) != cursor.digest

    def news(self, cursor: Cursor) -> list[AnyLive]:
        """
        Return what a reader with *cursor* may lack; nothing when it has the same records as we have.

        Raises:
            CursorGone: It is so much that the snapshot is the better answer.
        """
        if not self.has_news(cursor):
            return []
        start = self._start(cursor.position)
        if start // self._width < self._complete_from:
            raise CursorGone("there is too much news since this cursor: take the snapshot")
        known = dict(enumerate(cursor.slices, cursor.first)) if cursor.width == self._width else {}
        numbers = [number for number in self._since(start) if known.get(number) != self._slice_digest(number)]
        placed: list[AnyLive] = []
        left = MAX_DELTA_ENTRIES
        for each in (live for number in numbers for live in self._in_slice(number) if live.position >= start):
            placed.append(each)
            left -= each.lines
            if left < 0:
                raise CursorGone("there is too much news since this cursor: take the snapshot")
        return [*placed, *(live for name in self._placeless if (live := self._find(name)) is not None)]

    def _start(self, position: int) -> int:
        """Return the first position that a reader of everything up to *position* may lack something at."""
        if not self._overlap:
            return position + 1
        reach = max(0, position - self._overlap)
        return reach - reach % self._width

    def _digest(self, start: int) -> int:
        """Return the digest of what stands at *start* or later, or nowhere yet."""
        digest = self._digests.get(start)
        if digest is None:
            if len(self._digests) >= _MOST_DIGESTS:
                self._digests.clear()
            digest = self._digests[start] = self._summed(start)
        return digest

    def _summed(self, start: int) -> int:
        first, inside = divmod(start, self._width)
        digest = sum(self._placeless.values())
        for number in self._since(start):
            if number > first or not inside:
                digest += self._slices[number].digest
            else:
                digest += sum(_hash(live.id) for live in self._in_slice(number) if live.position >= start)
        return digest % _DIGEST_MODULUS

    def _since(self, start: int) -> list[int]:
        """Return the numbers of the slices at *start* and later, ascending."""
        first = start // self._width
        if self._last - first < len(self._slices):
            return [number for number in range(first, self._last + 1) if number in self._slices]
        return sorted(number for number in self._slices if number >= first)

    def _slice_digest(self, number: int) -> int:
        held = self._slices.get(number)
        return 0 if held is None else held.digest % _DIGEST_MODULUS

    def _in_slice(self, number: int) -> Iterator[AnyLive]:
        """Yield the records that stand in the slice *number* now."""
        held = self._slices.get(number)
        for name in () if held is None else tuple(held.names):
            live = self._find(name)
            if live is not None and live.position // self._width == number:
                yield live

    def _find(self, name: str | bytes) -> AnyLive | None:
        if isinstance(name, str):
            live = self._live.get(name)
            bits = packed_name(name)
            if live is not None or bits is None:
                return live
            name = bits
        kept = self._tokens.get(name)
        return None if kept is None else kept_live(name, kept)


def document(
    records: Iterable[AnyLive], *, cursor: Cursor, salts: Mapping[str, bytes], max_token_lifetime: int
) -> ListDocument:
    """Return what our readers get: the entries of *records*, and the cursor behind them."""
    return ListDocument(
        cursor=cursor.format(),
        epoch=cursor.epoch,
        salts=salts,
        max_token_lifetime=max_token_lifetime,
        entries=tuple(entry for live in records for entry in live.entries),
    )


def written(
    records: Iterable[AnyLive],
    *,
    cursor: Cursor,
    salts: Mapping[str, bytes],
    max_token_lifetime: int,
    created_at: bool = False,
) -> Iterator[bytes]:
    """Yield the JSON of `document` in pieces that take a millisecond each; *created_at* for who asks for that."""
    head = format_list(document((), cursor=cursor, salts=salts, max_token_lifetime=max_token_lifetime))
    if not head.endswith(_END):  # pragma: no cover -- the entries are written last
        raise AssertionError("the form of a list has changed")
    yield head[: -len(_END)] + b'"entries":['
    comma = b""
    piece: list[bytes] = []
    for live in records:
        for entry in live.written(created_at=created_at):
            piece.append(entry)
            if len(piece) == _PIECE:
                yield comma + b",".join(piece)
                comma, piece = b",", []
    if piece:
        yield comma + b",".join(piece)
    yield b"]}"


_END: Final = b'"entries":[]}'


def entries_digest(publication: Publication) -> str:
    """Return a short text that is the same for the same entries, for an `ETag`."""
    return f"{publication.digest:016x}"


def _hash(name: str) -> int:
    """Return 64 bits that stand for a record in a digest: names of tokens are keyed hashes already."""
    bits = packed_name(name)
    if bits is None:
        bits = hashlib.sha256(name.encode("ascii")).digest()
    return int.from_bytes(bits[:8], "big")
