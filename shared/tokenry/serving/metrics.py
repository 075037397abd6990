"""
Metrics: one Prometheus registry an application, the four golden signals, and nothing with an unbounded label.

Labels are route templates, methods of HTTP, statuses and our own enumerations: never a client's id, a path as
received, or anything else that a caller chooses. On a hot path bind the labels once (`counter.labels(...)`).
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tokenry.clock import Clock

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# A local validation takes well under a millisecond, a password hash some 100 ms, a held poll up to 50 s.
REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# A request waits for what the loop does before it: 0.1 s of that is too much, 1 s makes the service not ready.
DELAY_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER_METHOD = "_OTHER"  # the name that the OpenTelemetry conventions give to it
UNMATCHED_ROUTE = "unmatched"


def package_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("tokenry")
    except PackageNotFoundError:  # run from a tree that was never installed
        return "unknown"


def _tasks() -> float:
    """Return how many tasks the running event loop has; NaN where the metrics are read outside of one."""
    try:
        return float(len(asyncio.all_tasks()))
    except RuntimeError:
        return math.nan


class LoopSeries:
    """One series of a `LoopHistogram`."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count *value*."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


_Series = TypeVar("_Series")


class _LoopFamily(Collector, Generic[_Series]):
    """Series that one thread changes, the event loop's: without locks. They may be read in any thread."""

    def __init__(self, name: str, documentation: str, *, labels: Sequence[str], new: Callable[[], _Series]) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._new = new
        self._series: dict[tuple[str, ...], _Series] = {}

    def labels(self, *values: str) -> _Series:
        """Return the series of the label *values*; bind it once on a hot path."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {', '.join(self._labels)}")
        return self._series.setdefault(values, self._new())


class LoopHistogram(_LoopFamily[LoopSeries]):
    """A histogram of the event loop's, at a fifth of the cost of others."""

    def __init__(self, name: str, documentation: str, *, labels: Sequence[str], buckets: Sequence[float]) -> None:
        """Make a histogram that has no series yet."""
        self._buckets = tuple(buckets)
        super().__init__(name, documentation, labels=labels, new=lambda: LoopSeries(self._buckets))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in list(self._series.items()):
            passed, buckets = 0, []
            for bound, count in zip((*self._buckets, float("inf")), list(series.counts), strict=True):
                passed += count
                buckets.append((floatToGoString(bound), passed))  # type: ignore[no-untyped-call]
            family.add_metric(values, buckets, series.total)
        yield family


class LoopCount:
    """One series of a `LoopCounter`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Count one."""
        self.value += 1


class LoopCounter(_LoopFamily[LoopCount]):
    """A counter of the event loop's."""

    def __init__(self, name: str, documentation: str, *, labels: Sequence[str]) -> None:
        """Make a counter that has no series yet."""
        super().__init__(name, documentation, labels=labels, new=LoopCount)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the family."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, series in list(self._series.items()):
            family.add_metric(values, series.value)
        yield family


class Metrics:
    """The registry of one application and the metrics that all services have."""

    def __init__(self, *, service: str) -> None:
        """Make a registry for *service*, with the process's own metrics."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Info("tokenry_build", "What is running.", registry=self.registry).info(
            {"version": package_version(), "service": service}
        )
        self.requests = self.loop_histogram(
            "http_server_request_duration_seconds",
            "Time from a request's head to its answer, by route template.",
            labels=("http_request_method", "http_route", "http_response_status_code"),
            buckets=REQUEST_BUCKETS,
        )
        self.in_flight = 0  # counted by the event loop's thread alone
        self.gauge(
            "tokenry_http_requests_in_flight", "Requests being answered now.", function=lambda: float(self.in_flight)
        )
        self.crowded = self.counter(
            "tokenry_http_connections_refused",
            "Connections closed at once because there were as many as TOKENRY_MAX_CONNECTIONS allows.",
        )
        self.malformed = self.counter(
            "tokenry_http_malformed_requests",
            "Connections closed because what came was not HTTP, or too slow.",
        )
        self.unhandled = self.counter("tokenry_unhandled_errors", "Requests answered 500 by a fault of ours.")
        self.certificate_expiry = self.gauge(
            "tokenry_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate that is served ends; NaN over plain HTTP.",
        )
        self.certificate_expiry.set(math.nan)
        self.loop_lag = self.gauge(
            "tokenry_event_loop_lag_seconds", "By how much the last timer of the event loop was late."
        )
        self._loop_delays = self.loop_histogram(
            "tokenry_event_loop_delay_seconds",
            "By how much the event loop's timer was late, 20 times a second.",
            labels=(),
            buckets=DELAY_BUCKETS,
        ).labels()
        held = self.counter(
            "tokenry_event_loop_held",
            "Times that the event loop stood still for half a second: held by what it ran, or the whole process.",
            labels=("by",),
        )
        self.held = {by: held.labels(by) for by in ("loop", "process")}
        late = self.counter(
            "tokenry_event_loop_late",
            "Times that the event loop's timer was 0.1 s late: by the loop itself, other threads here, or neither.",
            labels=("by",),
        )
        self.late = {by: late.labels(by) for by in ("loop", "threads", "elsewhere")}

    def beat(self, late: float) -> None:
        """Note that a timer of the event loop was *late* by so many seconds."""
        self.loop_lag.set(late)
        self._loop_delays.observe(late)

    def watch(self, *, clock: Clock, ready: Callable[[], bool], dropped_lines: Callable[[], int]) -> None:
        """Show *clock*, whether the service is *ready* and how many lines of its log were lost, as read by a scrape."""
        self.gauge("tokenry_event_loop_tasks", "Tasks of the event loop that have not ended.", function=_tasks)
        self.gauge(
            "tokenry_log_lines_dropped",
            "Log lines dropped since the start: nobody read our output, or it could not be written.",
            function=lambda: float(dropped_lines()),
        )
        self.gauge(
            "tokenry_clock_timestamp_seconds",
            "Unix time of this machine's clock when the metrics were read.",
            function=clock.now,
        )
        self.gauge(
            "tokenry_ready", "1 while the service says that it can do its job, else 0.", function=lambda: float(ready())
        )

    def counter(self, name: str, documentation: str, *, labels: Sequence[str] = ()) -> Counter:
        """Add a counter; `_total` is appended to its *name*."""
        return Counter(name, documentation, labels, registry=self.registry)

    def loop_counter(self, name: str, documentation: str, *, labels: Sequence[str]) -> LoopCounter:
        """Add a counter that only the event loop's thread counts with, for hot paths."""
        counter = LoopCounter(name, documentation, labels=labels)
        self.registry.register(counter)
        return counter

    def gauge(
        self,
        name: str,
        documentation: str,
        *,
        labels: Sequence[str] = (),
        function: Callable[[], float] | None = None,
    ) -> Gauge:
        """Add a gauge; with *function* it is asked whenever the metrics are read (NaN: not known)."""
        gauge = Gauge(name, documentation, labels, registry=self.registry)
        if function is not None:
            gauge.set_function(function)
        return gauge

    def histogram(
        self,
        name: str,
        documentation: str,
        *,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    ) -> Histogram:
        """Add a histogram."""
        return Histogram(name, documentation, labels, buckets=tuple(buckets), registry=self.registry)

    def loop_histogram(
        self, name: str, documentation: str, *, labels: Sequence[str] = (), buckets: Sequence[float]
    ) -> LoopHistogram:
        """Add a histogram that only the event loop's thread observes, for hot paths."""
        histogram = LoopHistogram(name, documentation, labels=labels, buckets=buckets)
        self.registry.register(histogram)
        return histogram

    def register(self, collector: Collector) -> None:
        """Add a collector, for families whose labels are known only when they are read."""
        self.registry.register(collector)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text form."""
        return generate_latest(self.registry)
