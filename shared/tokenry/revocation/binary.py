"""
The binary form of a list (`application/vnd.tokenry.revocations`): a million entries load in milliseconds.

    magic           7 bytes, `TOKREVL`
    version         1 byte, 1
    head length     4 bytes, big-endian
    head            the JSON form, its `entries` without those in the columns
    count           4 bytes, big-endian
    fingerprints    count x 16 bytes, strictly ascending
    expiries        count x 4 bytes, big-endian Unix seconds, in the same order

Nothing may follow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import FINGERPRINT_BYTES
from tokenry.revocation.jsonform import MAX_JSON_BYTES, format_list, parse_list
from tokenry.revocation.lists import MAX_ENTRIES, TooManyEntries

if TYPE_CHECKING:
    from tokenry.revocation.documents import ListDocument

BINARY_TYPE: Final = "application/vnd.tokenry.revocations"
MAX_BINARY_BYTES: Final = 256 * 2**20  # `MAX_ENTRIES` take 200 MB, and the rules the rest

_MAGIC: Final = b"TOKREVL"
_VERSION: Final = 1
_PREFIX_BYTES: Final = len(_MAGIC) + 1
_LENGTH_BYTES: Final = 4
_EXPIRY_BYTES: Final = 4


def format_binary_list(document: ListDocument) -> bytes:
    """
    Return *document* in the binary form; tokens and ids that cannot be undone go into the columns.

    Raises:
        ProtocolError: There are so many other entries that no reader would take it.
    """
    singles = {
        entry.fingerprint: entry.in_force_until
        for entry in sorted(document.entries, key=lambda entry: entry.in_force_until or 0)  # the latest stays
        if entry.single and entry.fingerprint is not None and entry.in_force_until is not None
    }
    others = tuple(entry for entry in document.entries if not entry.single)
    block = document.block.merged(singles) if singles else document.block
    head = format_list(replace(document, entries=others, block=Block()))
    if len(head) > MAX_JSON_BYTES:
        raise ProtocolError("the list has more rules than a reader takes")
    fingerprints, expiries = block.columns()
    return b"".join((
        _MAGIC, bytes((_VERSION,)), len(head).to_bytes(_LENGTH_BYTES, "big"), head,
        len(block).to_bytes(_LENGTH_BYTES, "big"), fingerprints, expiries,
    ))  # fmt: skip


def max_binary_bytes(max_entries: int) -> int:
    """Return how long the binary form may be for a reader of *max_entries*."""
    return MAX_BINARY_BYTES + max(0, max_entries - MAX_ENTRIES) * (FINGERPRINT_BYTES + _EXPIRY_BYTES)


def parse_binary_list(body: bytes, *, max_entries: int = MAX_ENTRIES) -> ListDocument:
    """
    Read the binary form strictly.

    Raises:
        TooManyEntries: It has more than *max_entries*; its columns were not read.
        ProtocolError: It is too large, of another version, cut, longer than it says, not sorted, or its
            head is not a list.
    """
    if len(body) > max_binary_bytes(max_entries):
        raise ProtocolError("the binary list is larger than this reader takes")
    if not body.startswith(_MAGIC):
        raise ProtocolError("not a binary revocation list")
    if body[len(_MAGIC) : _PREFIX_BYTES] != bytes((_VERSION,)):
        raise ProtocolError("a binary revocation list of a version that this reader does not know")
    head_length, start = _length(body, _PREFIX_BYTES)
    document = parse_list(body[start : start + head_length], max_entries=max_entries)
    count, start = _length(body, start + head_length)
    cut = start + count * FINGERPRINT_BYTES
    if len(body) != cut + count * _EXPIRY_BYTES:
        raise ProtocolError("a binary revocation list that is shorter or longer than it says")
    if count + len(document.entries) > max_entries:
        raise TooManyEntries(max_entries)
    columns = memoryview(body)  # copying 160 MB would hold up every other thread
    return replace(document, block=Block.read(columns[start:cut], columns[cut:]))


def _length(body: bytes, start: int) -> tuple[int, int]:
    """Return the length written at *start* and where it ends."""
    end = start + _LENGTH_BYTES
    if end > len(body):
        raise ProtocolError("a binary revocation list that is shorter or longer than it says")
    return int.from_bytes(body[start:end], "big"), end
