"""What the issuer knows of revocations, and whether that is enough to sign by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.revocation.lists import RevocationList
    from tokenry.validation.snapshots import SnapshotSource

FIRST_LIST_WAIT = 10.0  # seconds at start for which a fresh revocation list is waited for
FRESH_LIST_AGE = 60.0  # seconds; a list kept over a restart may be older
CLOCK_BOUND = 5.0  # seconds by which our clock may be ahead of the revocation service's, which goes by its store's


class Revocations:
    """The reader's last list, if there is a reader."""

    def __init__(self, source: SnapshotSource[RevocationList] | None, *, clock: Clock) -> None:
        """Begin to wait for the first list of *source*."""
        self._source = source
        self._clock = clock
        self._began = clock.monotonic()

    @property
    def configured(self) -> bool:
        """Tell whether there is a reader at all."""
        return self._source is not None

    def current(self) -> RevocationList | None:
        """Return the last list, whatever its age: an old one still only refuses."""
        snapshot = None if self._source is None else self._source.snapshot()
        return None if snapshot is None else snapshot.value

    def age(self) -> float | None:
        """Return the seconds since the list was complete, or None where there is none."""
        snapshot = None if self._source is None else self._source.snapshot()
        if snapshot is None:
            return None
        return snapshot.age(now=self._clock.now(), monotonic=self._clock.monotonic())

    def clock_ahead(self) -> float | None:
        """
        Return by how many seconds our clock is ahead of the revocation service's at least; None without a list.

        The service's clock stood at `as_of` and the age when it wrote its answer, and that was after our request began:
        what the answer's way took, or the time for which it was held, only makes the figure smaller.
        """
        snapshot = None if self._source is None else self._source.snapshot()
        if snapshot is None:
            return None
        began = self._clock.now() - (self._clock.monotonic() - snapshot.requested_at)
        return began - (snapshot.as_of + snapshot.age_at_request)

    @property
    def clock_is_off(self) -> bool:
        """
        Tell whether our clock is so far ahead that nothing may be signed.

        A token that says to be younger than it is would escape the cut-off of a revocation. With a clock that is behind
        tokens only seem older: they are hit by more, and expire sooner.
        """
        ahead = self.clock_ahead()
        return ahead is not None and ahead > CLOCK_BOUND

    @property
    def waiting(self) -> bool:
        """
        Tell whether a fresh list must still be waited for.

        A key may have been revoked while this process was not there, so nothing is signed before the first
        list was read. A revocation service that is away must not stop the issuer, so the wait is short.
        """
        if self._source is None or self._clock.monotonic() - self._began >= FIRST_LIST_WAIT:
            return False
        age = self.age()
        return age is None or age > FRESH_LIST_AGE
