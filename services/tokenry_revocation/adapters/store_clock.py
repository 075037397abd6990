"""
The store's clock, seen from one process.

A record's place in the log must not depend on the clock of whoever wrote it: a row placed by a clock that
is 90 seconds slow lands where no reader looks any more. So nobody's own wall clock is used. Each process
asks several coordinators of the cluster for their time, on its monotonic clock notes when it asked and when
it heard, and so knows for each an interval that the difference of the two clocks lies in. The middle one of
these is the estimate, and its error is how far any coordinator's clock may be from it.

Invariant: while `writable_ms` answers, every coordinator that was asked is within `skew_ms` of the estimate.
Two processes which asked at least one coordinator in common (each asked a majority) are then at most twice
`skew_ms` apart. That number is what readers reach back by.
"""

from __future__ import annotations

import math
import statistics
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry_revocation.ports import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenry.clock import Clock

# After a minute without any answer the cluster is not there for writes either.
STALE_AFTER_SECONDS: Final = 60.0
# Two machines' oscillators differ by less than 200 parts in a million; 500 leaves room for a bad one.
DRIFT: Final = 500e-6
_DRIFT_MS: Final = STALE_AFTER_SECONDS * 1000 * DRIFT
# Time given out never goes back in a process, even if the cluster's does. Beyond this much it is a fault.
MAX_STEP_BACK_MS: Final = 10 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """
    What one coordinator's answer tells: its clock minus our monotonic clock lies in an interval.

    Attributes:
        earliest_ms: The least that the difference can be, in milliseconds.
        latest_ms: The most.
    """

    earliest_ms: float
    latest_ms: float

    @classmethod
    def of(cls, *, sent: float, received: float, told_ms: int) -> Sample:
        """Conclude from a question at *sent*, heard at *received* (monotonic seconds), answered *told_ms*."""
        # The answer is cut to whole milliseconds, so the clock stood up to one further on.
        return cls(earliest_ms=told_ms - received * 1000, latest_ms=told_ms + 1 - sent * 1000)

    @property
    def middle_ms(self) -> float:
        """The middle of the interval."""
        return (self.earliest_ms + self.latest_ms) / 2

    @property
    def width_ms(self) -> float:
        """How much is unknown: the time that question and answer took."""
        return self.latest_ms - self.earliest_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """
    The store's clock, from one round of samples.

    Attributes:
        offset_ms: To be added to the monotonic clock.
        error_ms: No coordinator that was asked is further away from this than so much.
    """

    offset_ms: float
    error_ms: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Estimate:
        """Take the median, which one wrong clock among three cannot move far; *samples* is not empty."""
        middle = statistics.median(sample.middle_ms for sample in samples)
        error = max(max(s.latest_ms - middle, middle - s.earliest_ms) for s in samples)
        return cls(offset_ms=middle, error_ms=error)


class StoreClock:
    """
    The last estimate, and the time that it gives.

    Used from the event loop and, for the timestamps of writes, from the driver's threads.
    """

    def __init__(self, clock: Clock, *, skew_ms: int) -> None:
        """Know nothing yet; accept coordinators within *skew_ms* of each other's middle."""
        self._clock = clock
        self._skew_ms = skew_ms
        self._lock = threading.Lock()
        self._estimate: Estimate | None = None
        self._estimated_at = -math.inf
        self._last_ms = 0
        self._last_timestamp = 0

    def set(self, estimate: Estimate, *, at: float) -> None:
        """Go by *estimate*, whose first question was asked at *at* (monotonic seconds)."""
        with self._lock:
            self._estimate, self._estimated_at = estimate, at

    @property
    def error_ms(self) -> float | None:
        """How far the coordinators are from the estimate at most, for a metric; None before the first."""
        estimate = self._estimate
        return None if estimate is None else estimate.error_ms

    def now_ms(self) -> int:
        """
        Return the store's time in Unix milliseconds, as well as it is known; in one process it never goes back.

        Raises:
            StoreUnavailable: It has not been measured for too long.
        """
        with self._lock:
            now = self._measured_ms(self._clock.monotonic())
            return self._advance(now) if self._is_certain() else max(self._last_ms, math.floor(now))

    def certain_ms(self) -> int | None:
        """
        Return the store's time in Unix milliseconds; None while its nodes disagree beyond what is allowed.

        Their middle may be minutes away from every one of them then: whoever took it for the time would pass
        over what is written meanwhile by those who know better.

        Raises:
            StoreUnavailable: It has not been measured for too long.
        """
        with self._lock:
            now = self._measured_ms(self._clock.monotonic())
            return self._advance(now) if self._is_certain() else None

    def writable_ms(self, monotonic: float) -> int:
        """
        Return the store's time at *monotonic* (seconds), good enough to place a record by.

        Raises:
            StoreUnavailable: Measured too long ago, or the coordinators' clocks are too far apart.
        """
        with self._lock:
            now = self._measured_ms(monotonic)
            estimate = self._estimate
            if estimate is not None and not self._is_certain():
                error = round(estimate.error_ms)
                raise StoreUnavailable(
                    f"the clocks of the store's nodes are uncertain by {error} ms, and {self._skew_ms} are"
                    " allowed: check their time service"
                )
            if self._last_ms - now > MAX_STEP_BACK_MS:
                raise StoreUnavailable(
                    f"the store's clock went back by {self._last_ms - now:.0f} ms: check the nodes' time"
                    " service, then restart"
                )
            return self._advance(now)

    def timestamp_us(self) -> int:
        """
        Return a strictly growing time in Unix microseconds, by which the last writer of a cell wins.

        Taken from the store's clock too, because a writer with a slow clock would otherwise never win.
        """
        with self._lock:
            try:
                now = self._measured_ms(self._clock.monotonic()) * 1000
            except StoreUnavailable:  # only the schema is read and written before the first measurement
                now = self._clock.now() * 1_000_000
            self._last_timestamp = max(self._last_timestamp + 1, int(now))
            return self._last_timestamp

    def _is_certain(self) -> bool:
        return self._estimate is not None and self._estimate.error_ms + _DRIFT_MS <= self._skew_ms

    def _measured_ms(self, monotonic: float) -> float:
        if self._estimate is None or monotonic - self._estimated_at > STALE_AFTER_SECONDS:
            raise StoreUnavailable("the store's clock could not be measured: too few of its nodes answer")
        return monotonic * 1000 + self._estimate.offset_ms

    def _advance(self, now_ms: float) -> int:
        # Readers have been told `_last_ms` as their position; what is placed below it could be missed.
        self._last_ms = max(self._last_ms, math.floor(now_ms))
        return self._last_ms
