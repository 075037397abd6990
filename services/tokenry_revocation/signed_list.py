"""
The issues of the signed list, one after another. Pure: the content and the moment in, the statement out.

A publisher's run is a stream with a random name. A number is used once, also when it is not known whether the
list was written: readers take two lists of one number for a forgery.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tokenry.revocation.signed import SignedList

if TYPE_CHECKING:
    from tokenry.revocation.wire import ListDocument

# Below it the entries are written one by one, which any JWT library reads; above it as columns, which take a
# seventh of the space.
MAX_WRITTEN_ENTRIES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """
    Where a publisher stands.

    Attributes:
        issuer: Whose list it is.
        name: Random name of this run.
        interval: Seconds between two issues.
        seq: The last number used, by whichever run.
        previous: SHA-256 of the issue that is in place; None where there is none.
    """

    issuer: str
    name: str
    interval: float
    seq: int = 0
    previous: str | None = None

    def after(self, *, seq: int, digest: str) -> Stream:
        """Return where it stands once the issue *seq* with *digest* is in place."""
        return replace(self, seq=max(self.seq, seq), previous=digest)

    def used(self, seq: int) -> Stream:
        """Return where it stands once *seq* was given to an issue, in place or not."""
        return replace(self, seq=max(self.seq, seq))

    def next(self, content: ListDocument, *, as_of: float, now: float) -> SignedList:
        """
        Return the next issue.

        Args:
            content: What a snapshot has.
            as_of: Unix seconds up to which it is complete; cut to the millisecond before.
            now: Unix seconds.
        """
        issued_at = math.floor(now)
        return SignedList(
            issuer=self.issuer,
            issued_at=issued_at,
            as_of=max(0, math.floor(as_of * 1000)) / 1000,
            next_update=issued_at + math.ceil(self.interval),
            stream=self.name,
            seq=self.seq + 1,
            previous=self.previous,
            content=content,
        )
