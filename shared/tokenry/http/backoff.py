"""When to try again after failures, and by how much to spread what many do at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

system_random: random.Random = random.SystemRandom()  # never seeded alike in two forked children


@dataclass(slots=True, kw_only=True)
class Backoff:
    """
    Doubling pauses: *first*, twice that, and so on up to *longest* seconds, each shortened by up to a half.

    Attributes:
        first: Seconds before the first retry.
        longest: Most seconds between two tries; also bounds what a server asks for by `Retry-After`.
        uniform: Draws from [0, 1).
        failures: Failures since the last success.
    """

    first: float = 1.0
    longest: float = 30.0
    uniform: random.Random = field(default=system_random, repr=False)
    failures: int = 0

    def after_failure(self, *, retry_after: float | None = None) -> float:
        """Count a failure; return the seconds to wait: at least *retry_after*, at most `longest`."""
        pause = min(self.longest, self.first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        pause *= 1.0 - self.uniform.random() / 2
        return min(max(pause, retry_after or 0.0), self.longest)

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0


def shortened(seconds: float, *, by: float, uniform: random.Random = system_random) -> float:
    """Return *seconds*, less a random share of up to *by* (0 to 1): jitter that never makes anything late."""
    return seconds * (1.0 - by * uniform.random())


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` field (RFC 9110 section 10.2.3), or None; dates are not read."""
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 6:  # noqa: PLR2004 -- 11 days
        return None
    return float(value)
