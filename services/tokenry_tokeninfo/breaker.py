"""
A circuit breaker: who keeps failing is left alone for a while, and then tried with one call. Pure: time is an argument.

    closed --(FAILURES in a row)--> open --(pause over)--> one trial --succeeds--> closed
                                     ^-------------------------+ fails, the pause doubles
"""

from __future__ import annotations

FAILURES = 5  # in a row, before nobody is asked any more
FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0
TRIAL_SECONDS = 15.0  # after which a trial that nobody told the end of counts as failed


class Breaker:
    """Decides whether a call may be made."""

    def __init__(self) -> None:
        """Be closed: calls may be made."""
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._trial_from: float | None = None

    def admits(self, now: float) -> bool:
        """
        Tell whether a call may be made at monotonic time *now*; its end must be told.

        While the breaker is open, the first to ask after the pause gets the one trial.
        """
        if self._trial_from is None:
            return True
        if now < self._trial_from:
            return False
        self._trial_from = now + TRIAL_SECONDS
        return True

    def succeeded(self) -> None:
        """Take note of an answer, whatever it says."""
        self._failures = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._trial_from = None

    def failed(self, now: float) -> None:
        """Take note of a call without a usable answer."""
        self._failures += 1
        if self._trial_from is not None:
            self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
        elif self._failures < FAILURES:
            return
        self._trial_from = now + self._pause

    @property
    def open(self) -> bool:
        """Whether calls are held back."""
        return self._trial_from is not None
