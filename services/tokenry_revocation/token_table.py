"""
Tokens that were revoked for good, one by one: what publication needs of each, in some fifty bytes.

Each is one immutable byte string under its 20-byte name, in one of many dictionaries, so that none of them
ever takes long to grow.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenry.revocation.entries import FINGERPRINT_BYTES
from tokenry_revocation.sheets import milliseconds_of, with_milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenry_revocation.sheets import Sheet

_SHARDS: Final = 1024  # a shard of a table of a million grows in a tenth of a millisecond
_HEAD: Final = struct.Struct(">QIIBBH")
_IDS, _TOKENS = 1, 2


class KeptToken(NamedTuple):
    """
    One token.

    Attributes:
        position: Where the store put its record; 0 while that is not known here.
        revoked_at: Unix seconds.
        in_force_until: Unix seconds until which it matters.
        salt: Id of the salt of the fingerprints.
        id: Fingerprint of its id, or nothing.
        token: Fingerprint of the token itself, or nothing.
        created_at: The same as `revoked_at` with milliseconds; None where they are not known.
    """

    position: int
    revoked_at: int
    in_force_until: int
    salt: str
    id: bytes
    token: bytes
    created_at: float | None = None

    @classmethod
    def of(cls, sheet: Sheet, *, position: int) -> KeptToken:
        """Return the one token of *sheet*."""
        return cls(
            position, sheet.revoked_at, sheet.in_force_until, sheet.salt, sheet.ids, sheet.tokens, sheet.created_at
        )


class TokenTable:
    """Tokens by the 20 bytes of their records' names."""

    __slots__ = ("_salts", "_shards")

    def __init__(self) -> None:
        """Begin empty."""
        self._shards: list[dict[bytes, bytes]] = [{} for _ in range(_SHARDS)]
        self._salts: list[str] = []

    def get(self, bits: bytes) -> KeptToken | None:
        """Return the token named *bits*."""
        packed = self._shard(bits).get(bits)
        return None if packed is None else self._unpacked(packed)

    def put(self, bits: bytes, kept: KeptToken) -> None:
        """Keep a token under *bits*."""
        if kept.salt not in self._salts:
            self._salts.append(kept.salt)
        columns = (_IDS if kept.id else 0) | (_TOKENS if kept.token else 0)
        salt, created = self._salts.index(kept.salt), milliseconds_of(kept.created_at)
        head = _HEAD.pack(kept.position, kept.revoked_at, kept.in_force_until, salt, columns, created)
        self._shard(bits)[bits] = head + kept.id + kept.token

    def move(self, bits: bytes, position: int) -> None:
        """Note that the token named *bits* stands at *position*."""
        shard = self._shard(bits)
        shard[bits] = position.to_bytes(8, "big") + shard[bits][8:]

    def items(self) -> Iterator[tuple[bytes, KeptToken]]:
        """Return all tokens of this moment with their names."""
        held = [item for shard in self._shards for item in shard.items()]
        return ((bits, self._unpacked(packed)) for bits, packed in held)

    def prune(self, now: float) -> Iterator[list[tuple[bytes, KeptToken]]]:
        """Drop what is out of force at *now* (Unix seconds), in steps; yield after each what was dropped."""
        limit = struct.pack(">I", int(now))
        for shard in self._shards:
            over = [(bits, self._unpacked(packed)) for bits, packed in shard.items() if packed[12:16] <= limit]
            for bits, _ in over:
                del shard[bits]
            yield over

    def _shard(self, bits: bytes) -> dict[bytes, bytes]:
        return self._shards[(bits[0] << 2) | (bits[1] >> 6)]

    def _unpacked(self, packed: bytes) -> KeptToken:
        position, revoked_at, until, salt, columns, created = _HEAD.unpack_from(packed)
        start = _HEAD.size
        middle = start + FINGERPRINT_BYTES if columns & _IDS else start
        return KeptToken(
            position,
            revoked_at,
            until,
            self._salts[salt],
            packed[start:middle],
            packed[middle:],
            with_milliseconds(revoked_at, created),
        )
