"""
Which assertions were used: each counts once in its life (RFC 7523 section 3, item 7). Time is an argument.

What is remembered is never forgotten before it has expired: when there is no room, the next assertion is refused
for a while rather than an old one let through twice. Only assertions whose signature was verified come here, so
nobody without a key fills it; and no single owner can fill it for the others.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter

from tokenry.errors import TokenryError

MAX_REMEMBERED = 200_000  # ids, some 40 MB: ten thousand first requests a minute for five minutes, four times over
MAX_PER_OWNER = 100_000  # half of it: a client of ten thousand instances that all restart, ten times over


class UsedBefore(TokenryError):
    """This very assertion was used before."""


class MemoryFull(TokenryError):
    """There is no room to remember one more."""


class UsedAssertions:
    """The ids of assertions that were used in this process."""

    def __init__(self, *, max_remembered: int = MAX_REMEMBERED, max_per_owner: int = MAX_PER_OWNER) -> None:
        """Remember at most *max_remembered* ids, and *max_per_owner* of one owner."""
        self._max_remembered = max_remembered
        self._max_per_owner = max_per_owner
        self._used: dict[bytes, str] = {}  # the id's digest to its owner
        self._expiries: list[tuple[float, bytes]] = []
        self._of_owner: Counter[str] = Counter()

    def use(self, owner: str, jti: str, *, expires_at: float, now: float) -> None:
        """
        Remember that the assertion *jti* of *owner* is used now (Unix seconds).

        Args:
            owner: Whoever chooses the ids, so that two of them may choose the same.
            jti: The assertion's id.
            expires_at: Unix seconds until which it could be presented again.
            now: Unix seconds.

        Raises:
            UsedBefore: It was used before.
            MemoryFull: It cannot be remembered.
        """
        self._forget(now)
        digest = digest_of(owner, jti)[:16]
        if digest in self._used:
            raise UsedBefore("the assertion was used before")
        if len(self._used) >= self._max_remembered or self._of_owner[owner] >= self._max_per_owner:
            raise MemoryFull("too many assertions are remembered")
        self._used[digest] = owner
        self._of_owner[owner] += 1
        heapq.heappush(self._expiries, (expires_at, digest))

    def __len__(self) -> int:
        """Return how many are remembered, be they expired since the last use."""
        return len(self._used)

    def _forget(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            owner = self._used.pop(heapq.heappop(self._expiries)[1])
            self._of_owner[owner] -= 1
            if not self._of_owner[owner]:
                del self._of_owner[owner]


def digest_of(owner: str, jti: str) -> bytes:
    """Return 32 bytes that no other pair has."""
    parts = (part.encode("utf-8", "surrogatepass") for part in (owner, jti))
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
