"""
The rows of many revoked tokens for validators of Plan B, without an object for each.

Rows lie in columns, sixty-odd bytes each, in buckets by the moment from which they are shown as they are. A
bucket is forgotten as a whole when its last row is over. No hash occurs twice: who adds a row whose hash is
there is told so, and decides.
"""

from __future__ import annotations

import base64
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH_BYTES: Final = 32  # SHA-256
BUCKET_SECONDS: Final = 64  # a validator's poll reaches back a minute or two: it looks at two or three buckets

_SHARDS: Final = 1024  # a shard of a table of a million grows in less than a millisecond
_FIRST_SLOTS: Final = 8
_MAX_STEPS: Final = 8  # from where a hash belongs to where it is; a shard grows at a load of about two thirds
_ROW_BITS: Final = 40  # of a place: bucket above, row below
_ROW_MASK: Final = (1 << _ROW_BITS) - 1


class TokenRow(NamedTuple):
    """
    One row as it is kept.

    Attributes:
        names: Names of the claims of a CLAIM row; empty for a TOKEN row.
        hash: The 32 bytes of Plan B's hash.
        issued_before: The exclusive cut-off, Unix seconds.
        revoked_at: Unix seconds.
        until: Unix seconds until which the row matters.
    """

    names: tuple[str, ...]
    hash: bytes
    issued_before: int
    revoked_at: int
    until: int


@dataclass(slots=True, eq=False)
class Bucket:
    """The columns of some rows that settle at about the same time."""

    number: int
    hashes: bytearray = field(default_factory=bytearray)
    issued_before: array[int] = field(default_factory=lambda: array("I"))
    revoked_at: array[int] = field(default_factory=lambda: array("I"))
    until: array[int] = field(default_factory=lambda: array("I"))
    kinds: bytearray = field(default_factory=bytearray)
    dead: set[int] = field(default_factory=set)
    last: int = 0

    def __len__(self) -> int:
        return len(self.kinds)


class Portion(NamedTuple):
    """
    Some rows of a bucket.

    Attributes:
        bucket: Where they are.
        rows: Which ones.
        dead: Those of the bucket that were removed before.
        kinds: Names of the claims, by the number that a row has in place of them.
    """

    bucket: Bucket
    rows: range
    dead: frozenset[int]
    kinds: list[tuple[str, ...]]

    def alive(self, now: float) -> Iterator[TokenRow]:
        """Yield the rows that are not over at *now* (Unix seconds)."""
        bucket, until, dead = self.bucket, self.bucket.until, self.dead
        for index in self.rows:
            if until[index] > now and index not in dead:
                yield _row(bucket, index, self.kinds)


class TokenRows:
    """Rows by hash, and by the time from which they are shown as they are."""

    __slots__ = ("_buckets", "_by_number", "_count", "_index", "_kinds", "_moment", "_numbers")

    def __init__(self) -> None:
        """Begin empty."""
        self._buckets: dict[int, Bucket] = {}  # by time
        self._by_number: dict[int, Bucket] = {}
        self._numbers = 0
        self._count = 0
        self._kinds: list[tuple[str, ...]] = []
        self._index = [array("Q", bytes(8 * _FIRST_SLOTS)) for _ in range(_SHARDS)]

    def __len__(self) -> int:
        """Return the number of rows, those among them that are over and not yet forgotten."""
        return self._count

    def find(self, digest: bytes) -> int | None:
        """Return the place of the row with the hash *digest*; None when there is none."""
        shard = self._index[(digest[0] << 2) | (digest[1] >> 6)]
        mask = len(shard) - 1
        home = int.from_bytes(digest[2:8], "big")
        for slot in range(home, home + _MAX_STEPS):
            place = shard[slot & mask]
            if not place:
                return None
            if self._hash_at(place) == digest:
                return place
        return None

    def row(self, place: int) -> TokenRow:
        """Return the row at *place*."""
        bucket, index = self._at(place)
        return _row(bucket, index, self._kinds)

    def add(self, row: TokenRow, *, moment: int) -> bool:
        """
        Add *row*, which is shown as it is from *moment* on (Unix seconds).

        False, and nothing has changed, when there is a row with its hash.
        """
        return not self.extend(row.hash, like=row, moment=moment)

    def extend(self, hashes: bytes, *, like: TokenRow, moment: int) -> list[bytes]:
        """
        Add a row for each hash of *hashes*, in all else like *like*; return the hashes that have a row already.

        Args:
            hashes: 32 bytes each.
            like: What the rows have in common.
            moment: Unix seconds from which they are shown as they are.
        """
        bucket = self._bucket(moment // BUCKET_SECONDS)
        place = (bucket.number << _ROW_BITS) | len(bucket)
        new: list[bytes] = []
        known: list[bytes] = []
        for start in range(0, len(hashes), HASH_BYTES):
            digest = hashes[start : start + HASH_BYTES]
            if self._claim(digest, place + len(new)):
                new.append(digest)
                bucket.hashes += digest  # at once: the next one may be the same
            else:
                known.append(digest)
        count = len(new)
        bucket.issued_before.extend([like.issued_before] * count)
        bucket.revoked_at.extend([like.revoked_at] * count)
        bucket.until.extend([like.until] * count)
        bucket.kinds += bytes((self._kind(like.names),)) * count
        bucket.last = max(bucket.last, like.until)
        self._count += count
        return known

    def _bucket(self, time: int) -> Bucket:
        bucket = self._buckets.get(time)
        if bucket is None:
            self._numbers += 1
            bucket = self._buckets[time] = self._by_number[self._numbers] = Bucket(self._numbers)
        return bucket

    def _claim(self, digest: bytes, place: int) -> bool:
        """Let *place* be that of *digest*; False when it has one."""
        number = (digest[0] << 2) | (digest[1] >> 6)
        shard = self._index[number]
        mask = len(shard) - 1
        home = int.from_bytes(digest[2:8], "big")
        for slot in range(home, home + _MAX_STEPS):
            held = shard[slot & mask]
            if not held:
                shard[slot & mask] = place
                return True
            if self._hash_at(held) == digest:
                return False
        self._index[number] = self._grown(shard, digest, place)
        return True

    def remove(self, place: int) -> None:
        """Show the row at *place* no more."""
        bucket, index = self._at(place)
        bucket.dead.add(index)
        self._count -= 1

    def prune(self, now: float) -> None:
        """Forget the buckets of which every row is over at *now* (Unix seconds)."""
        for time in [time for time, bucket in self._buckets.items() if bucket.last <= now]:
            bucket = self._buckets.pop(time)
            del self._by_number[bucket.number]
            self._count -= len(bucket) - len(bucket.dead)

    def portions(self, moment: float, *, size: int) -> list[Portion]:
        """
        Return the rows that settle after *moment*, and some before it, in portions of at most *size*.

        They are the rows of this moment, whatever happens before they are looked at.
        """
        first = moment // BUCKET_SECONDS
        buckets = [self._buckets[time] for time in sorted(time for time in self._buckets if time >= first)]
        return [
            Portion(bucket, range(start, min(len(bucket), start + size)), dead, self._kinds)
            for bucket in buckets
            for dead in [frozenset(bucket.dead)]
            for start in range(0, len(bucket), size)
        ]

    def _at(self, place: int) -> tuple[Bucket, int]:
        return self._by_number[place >> _ROW_BITS], place & _ROW_MASK

    def _hash_at(self, place: int) -> bytes | None:
        """Return the hash at *place*; None where a row was removed or forgotten."""
        bucket = self._by_number.get(place >> _ROW_BITS)
        if bucket is None:
            return None
        index = place & _ROW_MASK
        if bucket.dead and index in bucket.dead:
            return None
        return bytes(bucket.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES])

    def _kind(self, names: tuple[str, ...]) -> int:
        try:
            return self._kinds.index(names)
        except ValueError:
            self._kinds.append(names)
            return len(self._kinds) - 1

    def _grown(self, shard: array[int], digest: bytes, place: int) -> array[int]:
        """Return *shard* without what was forgotten, with *place*, and half empty at least."""
        held = [(found, each) for each in shard if each and (found := self._hash_at(each)) is not None]
        held.append((digest, place))
        size = _FIRST_SLOTS
        while True:
            if size >= 2 * len(held):
                grown = array("Q", bytes(8 * size))
                if all(_insert(grown, found, each) for found, each in held):
                    return grown
            size *= 2


def _insert(shard: array[int], digest: bytes, place: int) -> bool:
    """Put *place* into the first free slot; False when it was hard to find: the shard is getting full."""
    mask = len(shard) - 1
    home = int.from_bytes(digest[2:8], "big")
    for slot in range(home, home + _MAX_STEPS):
        if not shard[slot & mask]:
            shard[slot & mask] = place
            return True
    return False


def _row(bucket: Bucket, index: int, kinds: list[tuple[str, ...]]) -> TokenRow:
    return TokenRow(
        kinds[bucket.kinds[index]],
        bytes(bucket.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]),
        bucket.issued_before[index],
        bucket.revoked_at[index],
        bucket.until[index],
    )


def hash_text(digest: bytes) -> str:
    """Return Plan B's spelling of a hash: base64url with padding."""
    return base64.urlsafe_b64encode(digest).decode("ascii")
