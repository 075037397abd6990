"""The service's own metrics; labels are enumerations of ours only."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tokenry_revocation.records import RecordType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenry.clock import Clock
    from tokenry.serving.metrics import Metrics
    from tokenry_revocation.publication import Publication

# A write at quorum within a datacentre takes a few milliseconds; beyond five seconds it has failed.
_STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class ServiceMetrics:
    """What this service counts."""

    def __init__(self, metrics: Metrics, *, clock: Clock, store: str) -> None:
        """
        Declare the metrics.

        Args:
            metrics: The application's registry.
            clock: Measures operations of the store.
            store: Kind of the store, a label.
        """
        self._clock = clock
        self._store_name = store
        self._created = metrics.counter(
            "tokenry_revocations_created", "Revocations that were accepted and stored.", labels=("type",)
        )
        self._refused = metrics.counter(
            "tokenry_revocation_requests_refused", "Requests to revoke that were refused.", labels=("status",)
        )
        self._rules = metrics.gauge("tokenry_revocation_rules", "Records in force.", labels=("type",))
        self._operations = metrics.histogram(
            "tokenry_store_operation_duration_seconds",
            "Time that an operation of the store took.",
            labels=("store", "operation"),
            buckets=_STORE_BUCKETS,
        )
        self._read_records = metrics.counter("tokenry_store_records_read", "Records that reads of the store brought.")
        self._failed_reads = metrics.counter(
            "tokenry_revocation_reads_failed",
            "Reads of the store that were not complete: the list grows old.",
        )
        self.held = metrics.gauge("tokenry_held_requests", "Requests for changes that wait for news now.")
        self.not_held = metrics.counter(
            "tokenry_requests_not_held", "Requests for changes answered at once because too many were held."
        )
        self.list_bytes = metrics.gauge(
            "tokenry_revocation_list_bytes", "Size of the snapshot as last rendered.", labels=("form",)
        )
        self.rules_rejected = metrics.counter(
            "tokenry_authorization_rules_rejected",
            "Rule objects that could not be read and are not in force.",
        )

        self._list_turns = metrics.counter(
            "tokenry_signed_list_turns",
            "Turns of the publisher of the signed list by how they ended: published, standing_by, or why not.",
            labels=("result",),
        )

    def list_published(self, result: str) -> None:
        """Count one turn of the publisher."""
        self._list_turns.labels(result).inc()

    def created(self, kind: RecordType, *, lines: int = 1) -> None:
        """Count one accepted record, or as many as a batch has *lines*."""
        self._created.labels(kind.value).inc(lines)

    def refused(self, status: int) -> None:
        """Count one refused request."""
        self._refused.labels(str(status)).inc()

    def rules(self, publication: Publication) -> None:
        """Show how many records of each type are in force."""
        for kind in RecordType:
            self._rules.labels(kind.value).set(publication.counts[kind])

    def read(self, records: int) -> None:
        """Count what a read brought."""
        self._read_records.inc(records)

    def read_failed(self) -> None:
        """Count a read that was not complete."""
        self._failed_reads.inc()

    @contextmanager
    def store(self, operation: str) -> Iterator[None]:
        """Measure one *operation* of the store, also one that fails."""
        began = self._clock.monotonic()
        try:
            yield
        finally:
            seconds = self._clock.monotonic() - began
            self._operations.labels(self._store_name, operation).observe(seconds)
