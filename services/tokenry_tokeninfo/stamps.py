"""The stamp of the list that answers carry, made once a second."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tokenry.revocation.stamps import ListStamp

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.revocation.lists import RevocationList
    from tokenry.validation.snapshots import Snapshot, SnapshotSource


class Stamps:
    """
    Tells by which list an answer is judged.

    Answers of one second by one list have one stamp, whose age is that at the end of the second: an age is never
    younger than the list.
    """

    def __init__(self, clock: Clock, revocations: SnapshotSource[RevocationList]) -> None:
        """Tell of *revocations*, by *clock*."""
        self._clock = clock
        self._revocations = revocations
        self._made: tuple[Snapshot[RevocationList] | None, int] = (None, 0)
        self._text: str | None = None

    def stamp(self) -> tuple[str | None, int]:
        """Return the stamp, or None before the first list, and the Unix seconds at the end of this second."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        second, held = math.ceil(now), self._revocations.snapshot()
        if self._made[0] is not held or self._made[1] != second:
            if held is None:
                self._text = None
            else:
                age = held.age(now=second, monotonic=monotonic + (second - now))
                self._text = ListStamp(as_of=held.as_of, age=age, seq=held.seq).format()
            self._made = (held, second)
        return self._text, second
