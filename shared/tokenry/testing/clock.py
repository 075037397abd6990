"""A clock that moves only when a test says so."""

from __future__ import annotations

import threading


class FakeClock:
    """
    A `Clock` whose wall time and monotonic time advance together, by hand.

    The monotonic time starts elsewhere than the wall time, so that code that mixes the two fails its tests.
    """

    def __init__(self, start: float = 1_800_000_000.0, *, monotonic_start: float = 5_000.0) -> None:
        """Stand still at Unix time *start* (seconds)."""
        self._now = start
        self._monotonic = monotonic_start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the Unix time in seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds of a clock that is never set."""
        return self._monotonic

    def advance(self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0) -> None:
        """
        Let time pass.

        Raises:
            ValueError: Time would go back; use `set_wall_clock` for a wall clock that is set back.
        """
        passed = seconds + 60 * minutes + 3600 * hours
        if passed < 0:
            raise ValueError("time does not go back; set_wall_clock() sets only the wall clock")
        with self._lock:
            self._now += passed
            self._monotonic += passed

    def set_wall_clock(self, now: float) -> None:
        """Set the Unix time alone, as an administrator or a broken time service does."""
        with self._lock:
            self._now = now

    def __repr__(self) -> str:
        """Show the time that it stands at."""
        return f"FakeClock({self._now})"
