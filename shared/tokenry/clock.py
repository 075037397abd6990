"""The clock as an argument: nothing in the core reads the time by itself."""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Where the shell takes the time from."""

    def now(self) -> float:
        """Return the Unix time in seconds (UTC), with its fraction."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; it never goes back, and is what ages are made of."""
        ...


# Linux: time spent in suspension makes a list older too, which CLOCK_MONOTONIC would not count.
_AGE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """
    The machine's clock: `monotonic` goes on while the machine is suspended, so that no age is ever too small.

    Both are the interpreter's own functions, without a frame of ours: each request asks half a dozen times.
    """

    now = staticmethod(time.time)
    monotonic = staticmethod(partial(time.clock_gettime, _AGE_CLOCK))
