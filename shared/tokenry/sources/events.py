"""What a source counts and tells: for the metrics and logs of whoever embeds it."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

log = logging.getLogger("tokenry")
log.addHandler(logging.NullHandler())

# From one round trip over the promises (1, 31 and 61 s) to an outage.
PROPAGATION_BUCKETS: Final = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 28.0, 31.0, 45.0, 60.0, 61.0, 90.0,
    120.0, 300.0, 900.0,
)  # fmt: skip
MAX_RESULT_LABELS: Final = 64  # results come from fixed enumerations and HTTP statuses; a bound all the same


class EventKind(StrEnum):
    """What happened in a source."""

    LOADED = "loaded"  # a new value is in force
    REFRESHED = "refreshed"  # the server confirmed the value that is held
    REJECTED = "rejected"  # an answer was refused; the value that is held stays
    FAILED = "failed"  # no answer
    METADATA = "metadata"  # the issuer's metadata were read
    ALARM = "alarm"  # somebody must look: a rollback, a damaged file, an odd clock


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEvent:
    """
    One event of one source; called back in the source's own thread, so be quick.

    Attributes:
        source: `keys` or `revocations`.
        kind: What happened.
        reason: A label of few values, usable in a metric; empty where there is no more to say.
        detail: A sentence for the log; no secret is in it.
        applied: Entries that were new to this reader.
        propagation: Seconds from the creation of each new revocation to its enforcement here; below 0 where the
            clocks of service and reader differ by more than that took.
    """

    source: str
    kind: EventKind
    reason: str = ""
    detail: str = ""
    applied: int = 0
    propagation: tuple[float, ...] = ()


OnEvent = Callable[[SourceEvent], None]


@dataclass(slots=True)
class PropagationTimes:
    """
    A histogram: how long revocations took from their creation until they were enforced here.

    Attributes:
        counts: How many took at most as long as each of `PROPAGATION_BUCKETS`, and longer than the one before; the
            last one: longer than all.
        total: Seconds of all of them.
        ahead: How many came from a clock ahead of ours; they count as no time at all.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(PROPAGATION_BUCKETS) + 1))
    total: float = 0.0
    ahead: int = 0

    def observe(self, seconds: float) -> None:
        """Count one revocation."""
        if seconds < 0:
            self.ahead += 1
            seconds = 0.0
        self.counts[bisect_left(PROPAGATION_BUCKETS, seconds)] += 1
        self.total += seconds

    def as_mapping(self) -> Mapping[str, object]:
        """Return a copy for reports, with the upper bounds of the buckets in seconds."""
        bounds = [*map(str, PROPAGATION_BUCKETS), "+Inf"]
        return {
            "buckets": dict(zip(bounds, self.counts, strict=True)),
            "count": sum(self.counts),
            "seconds": self.total,
            "ahead": self.ahead,
        }


@dataclass(slots=True)
class SourceCounters:
    """
    Plain numbers, written by the source's thread alone.

    Attributes:
        polls: Finished exchanges by result: an HTTP status, or why there was no answer.
        rejected: Refused answers by reason.
        applied: Entries that were new when they were read.
        last_success: Unix seconds of the last accepted answer; 0 before the first.
        propagation: How long new revocations took to be enforced here.
    """

    polls: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    applied: int = 0
    last_success: float = 0.0
    propagation: PropagationTimes = field(default_factory=PropagationTimes)

    def as_mapping(self) -> Mapping[str, object]:
        """Return a copy for reports."""
        return {
            "polls": dict(self.polls),
            "rejected": dict(self.rejected),
            "applied": self.applied,
            "last_success": self.last_success,
            "propagation": self.propagation.as_mapping(),
        }


@dataclass(slots=True)
class Reporter:
    """Counts, logs and passes on the events of one source."""

    source: str
    on_event: OnEvent | None = None
    counters: SourceCounters = field(default_factory=SourceCounters)
    _troubled: bool = False

    def polled(self, result: str) -> None:
        """Count one finished exchange."""
        self.counters.polls[str(result) if len(self.counters.polls) < MAX_RESULT_LABELS else "other"] += 1

    def loaded(self, *, now: float, applied: int = 0, detail: str = "", propagation: tuple[float, ...] = ()) -> None:
        """A new value is in force; *propagation*: the seconds that each new revocation took."""
        self._succeeded(now)
        self.counters.applied += applied
        for seconds in propagation:
            self.counters.propagation.observe(seconds)
        self._tell(EventKind.LOADED, detail=detail, applied=applied, propagation=propagation)

    def refreshed(self, *, now: float) -> None:
        """The value that is held was confirmed."""
        self._succeeded(now)
        self._tell(EventKind.REFRESHED)

    def rejected(self, reason: str, detail: str) -> None:
        """An answer was refused."""
        self.counters.rejected[reason] += 1
        self._troubled = True
        log.warning("tokenry: an answer for %s was refused (%s): %s", self.source, reason, detail)
        self._tell(EventKind.REJECTED, reason=reason, detail=detail)

    def failed(self, reason: str, detail: str) -> None:
        """There was no answer; the first failure of a row is a warning, the rest are details."""
        level = logging.DEBUG if self._troubled else logging.WARNING
        self._troubled = True
        log.log(level, "tokenry: %s could not be refreshed (%s): %s", self.source, reason, detail)
        self._tell(EventKind.FAILED, reason=reason, detail=detail)

    def alarm(self, reason: str, detail: str) -> None:
        """Somebody must look."""
        log.error("tokenry: %s: %s: %s", self.source, reason, detail)
        self._tell(EventKind.ALARM, reason=reason, detail=detail)

    def metadata(self, detail: str) -> None:
        """The issuer's metadata were read."""
        self._tell(EventKind.METADATA, detail=detail)

    def _succeeded(self, now: float) -> None:
        self.counters.last_success = now
        if self._troubled:
            self._troubled = False
            log.info("tokenry: %s are being refreshed again", self.source)

    def _tell(
        self,
        kind: EventKind,
        *,
        reason: str = "",
        detail: str = "",
        applied: int = 0,
        propagation: tuple[float, ...] = (),
    ) -> None:
        if self.on_event is None:
            return
        event = SourceEvent(
            source=self.source, kind=kind, reason=reason, detail=detail, applied=applied, propagation=propagation
        )
        try:
            self.on_event(event)
        except Exception:
            # The listener's defect must not stop the keys or the revocations from arriving.
            log.exception("tokenry: the listener for events of %s failed", self.source)
