"""What administration measures; labels are enumerations of ours only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenry.serving.metrics import Metrics


class AdminMetrics:
    """What this service counts."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare the metrics."""
        self._writes = metrics.counter(
            "tokenry_registry_writes", "Changes to the registry that were asked for.", labels=("action", "result")
        )
        self.unfinished = metrics.gauge(
            "tokenry_secret_rotations_unfinished",
            "Rotations of secrets that were begun and have not delivered, or not ended the old secrets, yet.",
        )
        self.oldest_unfinished = metrics.gauge(
            "tokenry_secret_rotation_oldest_seconds", "Seconds since the oldest of them was begun; 0: there is none."
        )
        self._sweeps = metrics.counter(
            "tokenry_secret_rotation_sweeps", "Looks for rotations whose old secrets have ended.", labels=("result",)
        )

    def wrote(self, action: str, result: str) -> None:
        """Count a change: *result* is `done`, or the status of the refusal."""
        self._writes.labels(action, result).inc()

    def swept(self, result: str) -> None:
        """Count a look: `done` or `failed`."""
        self._sweeps.labels(result).inc()
