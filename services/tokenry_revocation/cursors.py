"""
What a reader of the list has: an opaque text that any replica can tell from what is new to that reader.

Where records may still appear below what was read (`RevocationStore.overlap`), that span is cut into slices,
and the cursor has a digest of each: only the slices that have changed are sent again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from tokenry.errors import TokenryError

_CURSOR = re.compile(
    r"2\.([0-9]{1,16})\.([0-9]{1,19})\.([0-9]{1,14})\.([0-9a-f]{16})\.([0-9]{1,19})\.([0-9]{1,19})\."
    r"((?:[0-9a-f]{16}){0,20})"
)
_DIGEST_CHARACTERS: Final = 16


class CursorGone(TokenryError):
    """The cursor is of another store or version, or too far back: take the snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """
    What a reader has.

    Attributes:
        epoch: The store that it has read.
        position: The read position of that store up to which it has everything.
        as_of: Unix milliseconds up to which it has every acknowledged revocation.
        digest: Sum of the hashes of the records that it has within reach of that position.
        width: Positions in one slice.
        first: Number of the first slice within reach.
        slices: The same sum for each slice from there on.
    """

    epoch: int
    position: int
    as_of: int
    digest: int
    width: int
    first: int = 0
    slices: tuple[int, ...] = ()

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
        digests = found[7]
        return cls(
            epoch=epoch,
            position=int(found[2]),
            as_of=int(found[3]),
            digest=int(found[4], 16),
            width=int(found[5]),
            first=int(found[6]),
            slices=tuple(
                int(digests[start : start + _DIGEST_CHARACTERS], 16)
                for start in range(0, len(digests), _DIGEST_CHARACTERS)
            ),
        )

    def format(self) -> str:
        """Return the opaque text that readers send back."""
        digests = "".join(f"{each:016x}" for each in self.slices)
        return f"2.{self.epoch}.{self.position}.{self.as_of}.{self.digest:016x}.{self.width}.{self.first}.{digests}"
