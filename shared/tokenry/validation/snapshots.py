"""An immutable value together with the moment that it was true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Generic[T_co]):
    """
    *value* as its server knew it at `as_of`.

    Two ages are kept, and the larger one counts: what the server measured on its own clock plus what has
    passed here since the request began (no comparison of clocks), and the difference of the wall clocks less
    the bound on their skew (which a stopped server cannot hide).

    Attributes:
        value: The immutable value.
        as_of: Unix seconds up to which the value is complete.
        age_at_request: Seconds that the server said had passed since `as_of` when it answered.
        requested_at: The reader's monotonic seconds at which the request began.
        skew: Seconds by which two clocks of the platform may differ.
        seq: Number of the signed list that it came from, if it did.
    """

    value: T_co
    as_of: float
    age_at_request: float
    requested_at: float
    skew: float = 2.0
    seq: int | None = None

    def age(self, *, now: float, monotonic: float) -> float:
        """Return the age in seconds, never negative, at Unix time *now* and monotonic time *monotonic*."""
        # Written out, which costs less than `max` at each validation. What is no number stays so, and is refused.
        age, other = self.age_at_request + (monotonic - self.requested_at), now - self.as_of - self.skew
        if other > age:  # noqa: PLR1730 -- see above
            age = other
        return 0.0 if age < 0.0 else age  # noqa: FURB136 -- likewise


class SnapshotSource(Protocol[T_co]):
    """Where a validator takes the last good value from; it never waits."""

    def snapshot(self) -> Snapshot[T_co] | None:
        """Return the last good value, or None before the first."""
        ...
