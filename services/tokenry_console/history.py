"""
An hour of metrics in memory. Pure: what was read, and when, are arguments.

Invariants:
    * All places are read in rounds; a round has one moment. What was not read in a round is NaN there.
    * Memory is bounded: rounds, places, and series.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry_console.exposition import MAX_SERIES, POLLS, SERVER_ERRORS, Key, Reading, bucket_bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KEEP_SECONDS: Final = 3600.0
MAX_POINTS: Final = 120  # of a curve
MAX_KEYS: Final = 2 * MAX_SERIES
NAN: Final = math.nan


@dataclass(slots=True, kw_only=True)
class Place:
    """
    One place where metrics are read.

    Attributes:
        url: Where.
        service: What it is, once it has said so.
        version: Its version.
        fault: Why it was not read in the last round; None when it was.
        latest: What it said last.
        read_at: Unix seconds of that; None before the first.
        skew: By how many seconds its clock was ahead of ours then, less what the call may explain; None when not said.
    """

    url: str
    service: str = ""
    version: str = ""
    fault: str | None = None
    latest: Mapping[Key, float] | None = None
    read_at: float | None = None
    skew: float | None = None

    def value(self, name: str, label: str = "") -> float | None:
        """Return what it said last of a sample; None for what it did not say, or NaN."""
        if self.latest is None or self.fault is not None:
            return None
        value = self.latest.get((name, label))
        return None if value is None or math.isnan(value) else value

    def labelled(self, name: str) -> dict[str, float]:
        """Return what it said last of all series of a sample, by label."""
        if self.latest is None or self.fault is not None:
            return {}
        return {label: value for (each, label), value in self.latest.items() if each == name and not math.isnan(value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """
    Curves with one x axis.

    Attributes:
        times: Unix seconds, the ends of the steps.
        lines: Values by label; None where nothing is known.
    """

    times: Sequence[float]
    lines: Mapping[str, Sequence[float | None]]


class History:
    """The rounds of the last hour, summed over all places: what a page shows costs the same for one and for many."""

    def __init__(self, urls: Iterable[str], *, interval: float, keep: float = KEEP_SECONDS) -> None:
        """Begin with nothing read of *urls*, every *interval* seconds of *keep*."""
        self.places = {url: Place(url=url) for url in urls}
        self._interval = interval
        self._slots = max(2, math.ceil(keep / interval))
        self._times = array("d", [NAN]) * self._slots
        self._rounds = 0
        # Of a counter its growth since the round before, of a gauge the largest value.
        self._values: dict[Key, array[float]] = {}
        # Curves of this round, by sample and seconds (constants of ours): all who look get the same ones.
        self._drawn: dict[tuple[str, float], Curves] = {}

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return self._rounds

    def add(
        self, readings: Mapping[str, Reading | str], *, at: float, skews: Mapping[str, float | None] | None = None
    ) -> None:
        """
        Add one round.

        Args:
            readings: What each place said, or why it was not read, by URL.
            at: Unix seconds.
            skews: By how much their clocks are ahead, by URL.
        """
        self._drawn.clear()
        slot = self._rounds % self._slots
        self._times[slot] = at
        self._rounds += 1
        for values in self._values.values():
            values[slot] = NAN
        for url, reading in readings.items():
            place = self.places[url]
            if isinstance(reading, str):
                place.fault = reading
                continue
            self._take(slot, reading.values, before=place.latest)
            place.fault, place.latest, place.read_at = None, reading.values, at
            place.service, place.version = reading.service or place.service, reading.version or place.version
            place.skew = None if skews is None else skews.get(url)

    def _take(self, slot: int, values: Mapping[Key, float], *, before: Mapping[Key, float] | None) -> None:
        """Add what one place said to the round in *slot*."""
        for key, value in values.items():
            ring = self._values.get(key)
            if ring is None:
                if len(self._values) >= MAX_KEYS:  # labels may change within the hour, but not without end
                    continue
                ring = self._values[key] = array("d", [NAN]) * self._slots
            if math.isnan(value):
                continue
            held = ring[slot]
            if not is_counter(key[0]):
                ring[slot] = value if math.isnan(held) else max(held, value)
            elif before is not None:
                grown = _growth(before.get(key, 0.0), value)
                ring[slot] = grown if math.isnan(held) else held + grown

    # --- reading ---------------------------------------------------------------------------------------------

    def rates(self, name: str, *, seconds: float = KEEP_SECONDS) -> Curves:
        """Return by how much a counter has grown a second, by label, summed over all places."""
        return self._binned(name, seconds=seconds)

    def levels(self, name: str, *, seconds: float = KEEP_SECONDS) -> Curves:
        """Return a gauge by label: the largest of all places, in each step."""
        return self._binned(name, seconds=seconds)

    def _binned(self, name: str, *, seconds: float) -> Curves:
        found = self._drawn.get((name, seconds))
        if found is None:
            found = self._drawn[name, seconds] = self._draw(name, seconds=seconds)
        return found

    def _draw(self, name: str, *, seconds: float) -> Curves:
        order = self._window(seconds)
        if len(order) < 2:  # noqa: PLR2004 -- a rate needs two moments
            return Curves(times=(), lines={})
        first, last = self._times[order[0]], self._times[order[-1]]
        step = max(2 * self._interval, (last - first) / MAX_POINTS)  # a round may be late
        bins = max(1, math.ceil((last - first) / step - 1e-6))
        # What grew until the first moment did so before the window.
        places = [
            (slot, min(bins - 1, max(0, math.ceil((self._times[slot] - first) / step - 1e-6) - 1)))
            for slot in order[1:]
        ]
        as_rate = is_counter(name)
        lines: dict[str, Sequence[float | None]] = {}
        for (each, label), ring in self._values.items():
            if each == name:
                lines[label] = _sums(ring, places, bins, step) if as_rate else _largest(ring, places, bins)
        return Curves(times=[first + step * (index + 1) for index in range(bins)], lines=lines)

    def growth(self, name: str, *, seconds: float) -> dict[str, float] | None:
        """Return by how much a counter has grown in the last *seconds*, by label; None when it was not read twice."""
        order = self._window(seconds)[1:]
        grown: dict[str, float] = {}
        known = False
        for (each, label), ring in self._values.items():
            if each == name:
                values = [value for slot in order if not math.isnan(value := ring[slot])]
                known = known or bool(values)
                grown[label] = sum(values)
        return grown if known else None

    def span(self, *, seconds: float) -> float:
        """Return how many of the last *seconds* are known."""
        order = self._window(seconds)
        return self._times[order[-1]] - self._times[order[0]] if order else 0.0

    def per_second(self, name: str, *, seconds: float) -> float | None:
        """Return by how much a counter has grown a second in the last *seconds*, all labels together."""
        grown, span = self.growth(name, seconds=seconds), self.span(seconds=seconds)
        return None if grown is None or span <= 0 else sum(grown.values()) / span

    def quantile(self, name: str, share: float, *, seconds: float) -> float | None:
        """Return the *share* quantile of a histogram over the last *seconds*; None when nothing was observed."""
        return quantile(self.growth(name, seconds=seconds) or {}, share)

    def _window(self, seconds: float) -> list[int]:
        """Return the slots of the last *seconds*, the oldest first."""
        known = min(self._rounds, self._slots)
        order = [(self._rounds - known + index) % self._slots for index in range(known)]
        if not order:
            return order
        begin = self._times[order[-1]] - seconds - self._interval / 2
        return [slot for slot in order if self._times[slot] >= begin]


def is_counter(name: str) -> bool:
    """Tell whether a sample only grows, by its name."""
    return name.endswith(("_total", "_bucket")) or name in {SERVER_ERRORS, POLLS}


def _growth(before: float, value: float) -> float:
    """Return by how much a counter grew; one that went back was begun anew."""
    return value - before if value >= before else value


def _sums(ring: array[float], places: Iterable[tuple[int, int]], bins: int, step: float) -> list[float | None]:
    line: list[float | None] = [None] * bins
    for slot, index in places:
        value = ring[slot]
        if value == value:  # noqa: PLR0124 -- not NaN, at half the cost of asking
            line[index] = (line[index] or 0.0) + value / step
    return line


def _largest(ring: array[float], places: Iterable[tuple[int, int]], bins: int) -> list[float | None]:
    line: list[float | None] = [None] * bins
    for slot, index in places:
        value, before = ring[slot], line[index]
        if value == value and (before is None or value > before):  # noqa: PLR0124 -- likewise
            line[index] = value
    return line


def quantile(buckets: Mapping[str, float], share: float) -> float | None:
    """Return the *share* quantile of cumulative *buckets* by their bound `le`, as Prometheus computes it."""
    ranked = sorted((bucket_bound(bound), count) for bound, count in buckets.items())
    if not ranked or ranked[-1][1] <= 0:
        return None
    rank = share * ranked[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in ranked:
        if count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below) if count > below else bound
        lower, below = bound, count
    return lower
