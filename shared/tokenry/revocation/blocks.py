"""
Millions of fingerprints with their expiries, in little more than the bytes that they consist of.

A block is cut into pages by the leading bits of the fingerprints. These are uniform (outputs of HMAC), so a
page is found without a search and holds some 64 entries: its fingerprints in ascending order, then their
expiries in the same order, four bytes each, big-endian. Adding entries copies the pages that they fall into
and the list of pages; the others are shared with the block before. No entry is a Python object of its own.

Invariants:
    * A block never changes: a reader in another thread needs no lock.
    * Fingerprints ascend strictly over the whole block, so equal content has equal columns.
    * Of two expiries for one fingerprint the later one is kept.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from itertools import chain, pairwise
from operator import is_
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError
from tokenry.revocation.entries import FINGERPRINT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_EXPIRY_BYTES: Final = 4
_ENTRY_BYTES: Final = FINGERPRINT_BYTES + _EXPIRY_BYTES
_PAGE_ENTRIES: Final = 64  # 1.3 KB: quick to search and to copy, and the object's own 50 bytes weigh little
_MAX_BITS: Final = 16  # 65,536 pages; ten million entries make pages of 150
_CHECKED_AT_ONCE: Final = 16_384  # fingerprints compared without letting other threads run: a third of a millisecond


class TooManyEntries(ProtocolError):
    """A list is longer than this reader takes; it is refused whole, never cut."""

    def __init__(self, most: int) -> None:
        """Refuse what has more than *most* entries."""
        super().__init__(f"the revocation list has more than {most} entries")


class Block:
    """An immutable set of fingerprints, each with the Unix second until which it is in force."""

    __slots__ = ("_count", "_pages", "_shift", "bits")

    def __init__(self, pages: Sequence[bytes] = (b"",), *, count: int = 0) -> None:
        """Take *pages*, a power of two of them, holding *count* entries."""
        self._pages = pages
        self._count = count
        self.bits = len(pages).bit_length() - 1
        self._shift = _MAX_BITS - self.bits

    @classmethod
    def of(cls, entries: Mapping[bytes, int]) -> Block:
        """Return the block of *entries*, fingerprint to expiry."""
        bits = _bits_for(len(entries))
        shift = _MAX_BITS - bits
        pages: list[dict[bytes, int]] = [{} for _ in range(1 << bits)]
        for fingerprint, expiry in entries.items():
            pages[int.from_bytes(fingerprint[:2], "big") >> shift][fingerprint] = expiry
        return cls(list(map(_page_of, pages)), count=len(entries))

    @classmethod
    def read(cls, fingerprints: bytes | memoryview, expiries: bytes | memoryview) -> Block:
        """
        Return the block of two columns from outside.

        Raises:
            ProtocolError: The columns differ in length, or the fingerprints do not ascend strictly.
        """
        count, rest = divmod(len(fingerprints), FINGERPRINT_BYTES)
        if rest or len(expiries) != count * _EXPIRY_BYTES:
            raise ProtocolError("the columns of a block differ in length")
        _check_ascending(memoryview(fingerprints))
        return cls.cut(fingerprints, expiries)

    @classmethod
    def cut(cls, fingerprints: bytes | memoryview, expiries: bytes | memoryview, *, bits: int | None = None) -> Block:
        """Return the block of two columns that are known to be of one length and ascending, in 2**bits pages."""
        count = len(fingerprints) // FINGERPRINT_BYTES
        bits = _bits_for(count) if bits is None else bits
        keys, ends = memoryview(fingerprints), memoryview(expiries)
        pages = [
            b"".join(
                (
                    keys[low * FINGERPRINT_BYTES : high * FINGERPRINT_BYTES],
                    ends[low * _EXPIRY_BYTES : high * _EXPIRY_BYTES],
                )
            )
            for low, high in pairwise(_edges(keys, bits))
        ]
        return cls(pages, count=count)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, fingerprint: bytes) -> bool:
        """Tell whether *fingerprint* is in the block; its expiry is not looked at."""
        page = self._pages[(fingerprint[0] << 8 | fingerprint[1]) >> self._shift]
        return fingerprint in page and _find(page, fingerprint) >= 0

    def expiry(self, fingerprint: bytes) -> int | None:
        """Return the second until which *fingerprint* is in force, or None when it is not in the block."""
        page = self._pages[int.from_bytes(fingerprint[:2], "big") >> self._shift]
        index = _find(page, fingerprint)
        return None if index < 0 else _expiry_at(page, index)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Yield each fingerprint with its expiry, ascending."""
        return chain.from_iterable(map(_items, self._pages))

    def columns(self) -> tuple[bytes, bytes]:
        """Return all fingerprints, ascending, and all expiries in the same order."""
        cuts = [(page, len(page) // _ENTRY_BYTES * FINGERPRINT_BYTES) for page in self._pages]
        return (
            b"".join([page[:cut] for page, cut in cuts]),
            b"".join([page[cut:] for page, cut in cuts]),
        )

    def merged(self, news: Mapping[bytes, int]) -> Block:
        """Return this block with *news*, fingerprint to expiry; this very object when they add nothing."""
        if len(news) > self._count:  # everything changes: page by page beats inserting one by one
            return self._united(Block.of(news))
        pages = list(self._pages)
        shift = self._shift
        added = 0
        changed = False
        for fingerprint, expiry in news.items():
            index = int.from_bytes(fingerprint[:2], "big") >> shift
            page = _insert(pages[index], fingerprint, expiry)
            if page is not pages[index]:
                changed = True
                added += len(page) != len(pages[index])
                pages[index] = page
        return _repaged(Block(pages, count=self._count + added)) if changed else self

    def union(self, other: Block, *, most: int = sys.maxsize) -> Block:
        """
        Return what either block holds; pages that are the same in both cost one comparison.

        Raises:
            TooManyEntries: That is more than *most* entries, found out before much more than those were looked at.
        """
        few, many = (self, other) if len(self) < len(other) else (other, self)
        if len(many) > most:
            raise TooManyEntries(most)
        if not few:
            return many
        if self.bits == other.bits or len(few) >> many.bits:  # more than one for each page
            return self._united(other, most=most)
        merged = many.merged(dict(few.items()))
        if len(merged) > most:
            raise TooManyEntries(most)
        return merged

    def _united(self, other: Block, *, most: int = sys.maxsize) -> Block:
        """
        Do as `union` does, page by page, so that no call into C is a long one.

        One dict or one `sorted` of ten million entries would hold up every other thread for seconds.
        """
        bits = max(self.bits, other.bits)
        mine: Block = self._at(bits)
        its: Block = other._at(bits)
        pages: list[bytes] = []
        size = 0
        for page, others in zip(mine._pages, its._pages, strict=True):
            united = _page_union(page, others)
            pages.append(united)
            size += len(united)
            if size > most * _ENTRY_BYTES:
                raise TooManyEntries(most)
        unchanged = all(map(is_, mine._pages, pages))
        return self if unchanged else _repaged(Block(pages, count=size // _ENTRY_BYTES))

    def _at(self, bits: int) -> Block:
        """Return this block in 2**bits pages."""
        return self if bits == self.bits else Block.cut(*self.columns(), bits=bits)

    def pruned(self, now: float) -> Block:
        """Return what is in force later than *now*; this very object when that is all of it."""
        pages = [_pruned(page, now) for page in self._pages]
        count = sum(map(len, pages)) // _ENTRY_BYTES
        return self if count == self._count else _repaged(Block(pages, count=count))

    def __repr__(self) -> str:
        return f"<Block of {self._count}>"


def _repaged(block: Block) -> Block:
    """Cut *block* anew when its pages have become much larger or smaller than they should be."""
    return block if abs(_bits_for(len(block)) - block.bits) <= 1 else Block.cut(*block.columns())


def _bits_for(count: int) -> int:
    return min((count // _PAGE_ENTRIES).bit_length(), _MAX_BITS)


def _find(page: bytes, fingerprint: bytes) -> int:
    """Return the index of *fingerprint* in *page*, or -1: `bytes.find` beats any search written in Python."""
    end = len(page) // _ENTRY_BYTES * FINGERPRINT_BYTES
    start = page.find(fingerprint, 0, end)
    while start > 0 and start % FINGERPRINT_BYTES:  # two neighbours that happen to spell it across their border
        start = page.find(fingerprint, start + 1, end)
    return start if start < 0 else start // FINGERPRINT_BYTES


def _expiry_at(page: bytes, index: int) -> int:
    start = len(page) // _ENTRY_BYTES * FINGERPRINT_BYTES + index * _EXPIRY_BYTES
    return int.from_bytes(page[start : start + _EXPIRY_BYTES], "big")


def _items(page: bytes) -> Iterator[tuple[bytes, int]]:
    count = len(page) // _ENTRY_BYTES
    cut = count * FINGERPRINT_BYTES
    fingerprints = (page[start : start + FINGERPRINT_BYTES] for start in range(0, cut, FINGERPRINT_BYTES))
    return zip(fingerprints, _numbers(page[cut:]), strict=True)


def _page_of(entries: Mapping[bytes, int]) -> bytes:
    fingerprints = sorted(entries)
    expiries = array("I", [entries[fingerprint] for fingerprint in fingerprints])
    return b"".join((*fingerprints, _big_endian(expiries)))


def _page_union(page: bytes, other: bytes) -> bytes:
    """Return what either page holds; *page* itself when that is all."""
    if page == other or not other:
        return page
    if not page:
        return other
    held, news = dict(_items(page)), dict(_items(other))
    united = news | held
    for fingerprint in held.keys() & news.keys():
        united[fingerprint] = max(held[fingerprint], news[fingerprint])
    return page if united == held else _page_of(united)


def _insert(page: bytes, fingerprint: bytes, expiry: int) -> bytes:
    """Return *page* with the entry in its place; the same object when it says so already."""
    cut = len(page) // _ENTRY_BYTES * FINGERPRINT_BYTES
    index = _find(page, fingerprint)
    if index >= 0:
        if _expiry_at(page, index) >= expiry:
            return page
        start = cut + index * _EXPIRY_BYTES
        return page[:start] + expiry.to_bytes(_EXPIRY_BYTES, "big") + page[start + _EXPIRY_BYTES :]
    index = _position(page, fingerprint, cut // FINGERPRINT_BYTES)
    at = index * FINGERPRINT_BYTES
    start = cut + index * _EXPIRY_BYTES
    return b"".join((page[:at], fingerprint, page[at:start], expiry.to_bytes(_EXPIRY_BYTES, "big"), page[start:]))


def _position(page: bytes, fingerprint: bytes, count: int) -> int:
    """Return how many of the *count* fingerprints of *page* are smaller."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        start = middle * FINGERPRINT_BYTES
        if page[start : start + FINGERPRINT_BYTES] < fingerprint:
            low = middle + 1
        else:
            high = middle
    return low


def _pruned(page: bytes, now: float) -> bytes:
    cut = len(page) // _ENTRY_BYTES * FINGERPRINT_BYTES
    expiries = _numbers(page[cut:])
    if not expiries or min(expiries) > now:
        return page
    alive = [index for index, expiry in enumerate(expiries) if expiry > now]
    return b"".join(
        chain(
            (page[index * FINGERPRINT_BYTES : (index + 1) * FINGERPRINT_BYTES] for index in alive),
            (page[cut + index * _EXPIRY_BYTES : cut + (index + 1) * _EXPIRY_BYTES] for index in alive),
        )
    )


def _edges(fingerprints: memoryview, bits: int) -> list[int]:
    """Return where each of the 2**bits pages begins in the ascending *fingerprints*, and their end."""
    count = len(fingerprints) // FINGERPRINT_BYTES
    first, second = fingerprints[0::FINGERPRINT_BYTES], fingerprints[1::FINGERPRINT_BYTES]
    starts = [bisect_left(first, byte) for byte in range(256)]
    if bits <= 8:  # noqa: PLR2004 -- one byte decides
        return [*starts[:: 1 << (8 - bits)], count]
    edges: list[int] = []
    inner = range(0, 256, 1 << (_MAX_BITS - bits))
    for low, high in zip(starts, [*starts[1:], count], strict=True):
        edges += [bisect_left(second, byte, low, high) for byte in inner]
    return [*edges, count]


def _check_ascending(fingerprints: memoryview) -> None:
    """
    Refuse *fingerprints* unless each is larger than the one before.

    Their first four bytes are compared for thousands of neighbours at once, in fields of one long integer;
    only the few pairs that share those bytes, or are out of order, are looked at one by one.

    Raises:
        ProtocolError: One is not.
    """
    count = len(fingerprints) // FINGERPRINT_BYTES
    for start in range(0, count - 1, _CHECKED_AT_ONCE):
        pairs = min(_CHECKED_AT_ONCE, count - 1 - start)
        begin = start * FINGERPRINT_BYTES
        ascends = _ascends(bytes(fingerprints[begin : begin + (pairs + 1) * FINGERPRINT_BYTES]), pairs)
        index = ascends.find(0)
        while index >= 0:
            first = begin + index * FINGERPRINT_BYTES
            second = first + FINGERPRINT_BYTES
            pair = bytes(fingerprints[first : second + FINGERPRINT_BYTES])
            if pair[:FINGERPRINT_BYTES] >= pair[FINGERPRINT_BYTES:]:
                raise ProtocolError("the fingerprints of a block are not sorted")
            index = ascends.find(0, index + 1)


def _ascends(piece: bytes, pairs: int) -> bytes:
    """
    Return for each of the *pairs* of neighbours in *piece* 1 where their first four bytes ascend, else 0.

    Each pair has a field of five bytes: `1 xx xx xx xx` of the right neighbour, less the left one, less 1.
    The leading 1 is used up exactly when the right one is not larger, so no field borrows from the next.
    """
    left, right = bytearray(5 * pairs), bytearray(b"\x01" * (5 * pairs))
    for byte in range(4):
        column = piece[byte::FINGERPRINT_BYTES]
        left[byte + 1 :: 5] = column[:-1]
        right[byte + 1 :: 5] = column[1:]
    ones = int.from_bytes(b"\x00\x00\x00\x00\x01" * pairs, "big")
    rest = int.from_bytes(right, "big") - int.from_bytes(left, "big") - ones
    return rest.to_bytes(5 * pairs, "big")[::5]


def _numbers(data: bytes) -> array[int]:
    """Read big-endian numbers."""
    numbers = array("I", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _big_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
