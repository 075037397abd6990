"""What this service counts. Labels are bound beforehand: the hot path only adds."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from tokenry.errors import InsufficientScope, InvalidToken, Reason, ValidatorNotReady
from tokenry.sources.events import PROPAGATION_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from tokenry.clock import Clock
    from tokenry.jose.jwks import KeySet
    from tokenry.revocation.lists import RevocationList
    from tokenry.serving.metrics import Metrics
    from tokenry.sources.events import SourceCounters, SourceEvent
    from tokenry.validation.snapshots import SnapshotSource

# A remembered signature takes a few microseconds, a verification some 100, waiting for a key up to 1 s.
VALIDATION_BUCKETS = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 0.1, 1.0)


class Result(StrEnum):
    """The results of a validation that are no `Reason`."""

    OK = "ok"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    NOT_READY = "not_ready"


class Measures:
    """The counters of token info, introspection and `/auth`."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        clock: Clock,
        keys: SnapshotSource[KeySet],
        revocations: SnapshotSource[RevocationList],
    ) -> None:
        """Add them to *metrics*."""
        validations = metrics.loop_counter(
            "tokenry_validations",
            "Validations by result: ok, insufficient_scope, not_ready, or the first step that failed.",
            labels=("result",),
        )
        self._validations = {str(name): validations.labels(name).inc for name in (*Result, *Reason)}
        self._good = self._validations[Result.OK]
        self._duration = metrics.loop_histogram(
            "tokenry_validation_duration_seconds", "Time of one validation.", buckets=VALIDATION_BUCKETS
        ).labels()
        self.policy_faults = metrics.counter(
            "tokenry_auth_policy_faults",
            "Requests to /auth whose policy was missing or not understood: a gateway is configured wrongly.",
        )
        introspections = metrics.counter("tokenry_introspections", "Introspections by result.", labels=("result",))
        self.introspections = {name: introspections.labels(name) for name in ("active", "inactive", "throttled")}
        upstream = metrics.counter(
            "tokenry_upstream_tokeninfo", "Opaque tokens asked about upstream, by result.", labels=("result",)
        )
        self.upstream = {name: upstream.labels(name) for name in ("hit", "miss", "invalid", "timeout", "failed")}
        _add_gauges(metrics, clock=clock, keys=keys, revocations=revocations)

    def validated(self, seconds: float, error: Exception | None = None) -> None:
        """Count a validation that took *seconds* and ended with *error*, if any."""
        self._duration.observe(seconds)
        if error is None:
            self._good()
        else:
            self._validations[_result(error)]()


def _result(error: Exception) -> str:
    if isinstance(error, InvalidToken):
        return error.reason
    if isinstance(error, InsufficientScope):
        return Result.INSUFFICIENT_SCOPE
    if isinstance(error, ValidatorNotReady):
        return Result.NOT_READY
    raise TypeError(f"{type(error).__name__} is no result of a validation")


def _add_gauges(
    metrics: Metrics,
    *,
    clock: Clock,
    keys: SnapshotSource[KeySet],
    revocations: SnapshotSource[RevocationList],
) -> None:
    def list_age() -> float:
        held = revocations.snapshot()
        return math.nan if held is None else held.age(now=clock.now(), monotonic=clock.monotonic())

    def list_entries() -> float:
        held = revocations.snapshot()
        return math.nan if held is None else len(held.value)

    def list_success() -> float:
        held = revocations.snapshot()
        return math.nan if held is None else held.as_of

    def list_epoch() -> float:
        held = revocations.snapshot()
        return math.nan if held is None else held.value.epoch

    def keys_success() -> float:
        held = keys.snapshot()
        return math.nan if held is None else held.as_of

    def keys_held() -> float:
        held = keys.snapshot()
        return 0 if held is None else len(held.value)

    for name, documentation, function in (
        (
            "tokenry_revocation_list_age_seconds",
            "Age of the revocation list in force; NaN before the first.",
            list_age,
        ),
        ("tokenry_revocation_list_entries", "Entries of the revocation list in force.", list_entries),
        ("tokenry_revocation_list_epoch", "Epoch of the revocation list in force.", list_epoch),
        (
            "tokenry_revocation_last_success_timestamp_seconds",
            "Unix time up to which the revocation list in force is complete.",
            list_success,
        ),
        ("tokenry_jwks_last_success_timestamp_seconds", "Unix time of the keys in force.", keys_success),
        ("tokenry_jwks_keys", "Keys held for verifying.", keys_held),
    ):
        metrics.gauge(name, documentation, function=function)


class SourceCollector(Collector):
    """The counters of the background sources, read when the metrics are."""

    def __init__(self, sources: Mapping[str, Callable[[], SourceCounters]]) -> None:
        """Read *sources*: the counters by the name that their metrics begin with."""
        self._sources = dict(sources)

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        for name, counters in self._sources.items():
            now = counters()
            polls = CounterMetricFamily(
                f"{name}_poll",
                "Finished reads by result: an HTTP status, or why there was no answer.",
                labels=["result"],
            )
            for result, count in sorted(dict(now.polls).items()):
                polls.add_metric([result], count)
            rejected = CounterMetricFamily(f"{name}_rejected", "Answers that were refused.", labels=["reason"])
            for reason, count in sorted(dict(now.rejected).items()):
                rejected.add_metric([reason], count)
            yield polls
            yield rejected


class Propagation:
    """
    How long revocations take from their creation, by the revocation service's clock, to their enforcement here.

    Only news counts that arrives while this process runs and that says when it was made: the first list tells
    nothing of how long its entries took, and earlier revocation services do not say.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Add the histogram to *metrics*."""
        self._seconds = metrics.histogram(
            "tokenry_revocation_propagation_seconds",
            "Time from the creation of a revocation, by the service's clock, to its first enforcement here.",
            buckets=PROPAGATION_BUCKETS,
        )
        self._ahead = metrics.counter(
            "tokenry_revocation_propagation_ahead",
            "Revocations made later than they were enforced: the service's clock is ahead of ours. They count as 0 s.",
        )

    def heard(self, event: SourceEvent) -> None:
        """Take note of *event* of the list's source; called in the source's thread."""
        for seconds in event.propagation:
            if seconds < 0:
                self._ahead.inc()
            self._seconds.observe(max(0.0, seconds))
