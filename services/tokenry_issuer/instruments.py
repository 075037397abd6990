"""What the issuer measures. Labels are our own enumerations, never a name that somebody chose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tokenry_issuer.live_tokens import LiveTokens
from tokenry_registry.key_schedule import KeyState
from tokenry_registry.realms import GRANT_TYPES, ClaimsProfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from tokenry.serving.metrics import Metrics
    from tokenry_issuer.credentials import Credentials
    from tokenry_issuer.keyring import Keyring
    from tokenry_issuer.passwords import SecretChecks
    from tokenry_issuer.revocations import Revocations
    from tokenry_issuer.shared_replay import ReplayResult
    from tokenry_issuer.snapshot import SnapshotResult
    from tokenry_registry.realms import Refusal

CHECK_BUCKETS = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.4,
    0.8,
    1.6,
    3.2,
)  # a slow hash takes some 100 ms


class Instruments:
    """
    The issuer's own metrics.

    Attributes:
        metrics: The registry that they are in.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Declare them in the registry of *metrics*."""
        self.metrics = metrics
        issued = metrics.counter("tokenry_tokens_issued", "Access tokens issued.", labels=("grant_type", "profile"))
        # Bound once: this is the hot path.
        self.live = LiveTokens()
        self._issued = {
            (grant_type, profile): issued.labels(grant_type, str(profile))
            for grant_type in sorted(GRANT_TYPES)
            for profile in ClaimsProfile
        }
        self._errors = metrics.counter("tokenry_token_request_errors", "Token requests refused.", labels=("error",))
        self._check_duration = metrics.histogram(
            "tokenry_secret_check_duration_seconds",
            "Time to check a secret against slow hashes, queue included.",
            labels=("kind",),
            buckets=CHECK_BUCKETS,
        )
        self._rejected = metrics.counter(
            "tokenry_credentials_rejected", "Versions of stored objects refused.", labels=("cause",)
        )
        self._refreshes = metrics.counter(
            "tokenry_credentials_refreshes", "Refreshes from the store.", labels=("what", "result")
        )
        self._snapshots = metrics.counter(
            "tokenry_credentials_snapshots",
            "What became of the sealed files that a start without the store uses.",
            labels=("what", "result"),
        )
        self._replays = metrics.counter(
            "tokenry_assertions_shared",
            "Assertions that the store of used ones was asked about.",
            labels=("result",),
        )
        self._withheld = metrics.counter(
            "tokenry_tokens_withheld", "Tokens not issued because a revocation in force would hit them."
        )
        self._endpoint_audience = metrics.counter(
            "tokenry_assertions_for_the_token_endpoint",
            "Client assertions accepted with the token endpoint as their audience.",
        )
        self._published_checks = metrics.counter(
            "tokenry_published_key_checks",
            "Looks at the own JWK Set through its public URL: ok, missing (a key of ours), unreachable, unreadable.",
            labels=("result",),
        )
        self._list_events = metrics.counter(
            "tokenry_revocation_list_events",
            "What happened to the reader of revocations.",
            labels=("kind", "reason"),
        )

    def issued(self, grant_type: str, profile: ClaimsProfile) -> None:
        """Count a token."""
        self._issued[grant_type, profile].inc()

    def refused(self, error: str) -> None:
        """Count a refused request by its OAuth *error* code."""
        self._errors.labels(error).inc()

    def withheld(self) -> None:
        """Count a token that would have been born revoked."""
        self._withheld.inc()

    def endpoint_audience(self) -> None:
        """Count an assertion of a client that is configured to name the token endpoint as its audience."""
        self._endpoint_audience.inc()

    def secret_checked(self, kind: str, seconds: float) -> None:
        """Observe one slow check."""
        self._check_duration.labels(kind).observe(seconds)

    def object_rejected(self, cause: Refusal) -> None:
        """Count a refused version of an object."""
        self._rejected.labels(str(cause)).inc()

    def refreshed(self, what: str, result: str) -> None:
        """Count a refresh."""
        self._refreshes.labels(what, result).inc()

    def published_check(self, result: str) -> None:
        """Count a look at the own JWK Set from outside."""
        self._published_checks.labels(result).inc()

    def replay(self, result: ReplayResult) -> None:
        """Count what the store of used assertions said."""
        self._replays.labels(str(result)).inc()

    def snapshot(self, what: str, result: SnapshotResult) -> None:
        """Count what became of a snapshot."""
        self._snapshots.labels(what, str(result)).inc()

    def list_event(self, kind: str, reason: str) -> None:
        """Count an event of the revocations' reader."""
        self._list_events.labels(kind, reason).inc()

    def watch(
        self,
        *,
        credentials: Credentials,
        keyring: Keyring,
        checks: SecretChecks,
        revocations: Revocations,
        lifetime: int,
    ) -> None:
        """Show what is in force, read when the metrics are."""
        gauge = self.metrics.gauge
        self.metrics.register(KeyExpiries(keyring, lifetime=lifetime))
        if revocations.configured:
            gauge(
                "tokenry_revocation_list_age_seconds",
                "Age of the revocation list that decides what is not issued; NaN before the first.",
                function=lambda: math.nan if (age := revocations.age()) is None else age,
            )
            gauge(
                "tokenry_issuer_clock_ahead_seconds",
                "By how much our clock is ahead of the revocation service's, at least; NaN before the first list.",
                function=lambda: math.nan if (ahead := revocations.clock_ahead()) is None else ahead,
            )
        gauge(
            "tokenry_credentials_age_seconds",
            "Seconds since all credentials were last confirmed; NaN before the first time.",
            function=lambda: math.nan if credentials.age is None else credentials.age,
        )
        gauge(
            "tokenry_credentials_from_snapshot",
            "1 while credentials or keys in force come from a snapshot that the store has not confirmed, else 0.",
            function=lambda: float(credentials.from_snapshot or keyring.from_snapshot),
        )
        gauge(
            "tokenry_credentials_objects_refused",
            "Stored objects whose current version is not in force.",
            function=lambda: credentials.refused,
        )
        gauge(
            "tokenry_secret_checks_waiting",
            "Slow checks of secrets running or waiting.",
            function=lambda: checks.waiting,
        )
        gauge(
            "tokenry_secret_checks_capacity",
            "Slow checks of secrets that may run or wait at most; more are refused.",
            function=lambda: checks.capacity,
        )
        for state in KeyState:
            gauge(
                f"tokenry_signing_keys_{state}",
                f"Signing keys that are {state}.",
                function=lambda state=state: sum(  # type: ignore[misc]  # the default binds the loop's value
                    each is state for each, _ in keyring.states(lifetime=lifetime).values()
                ),
            )
        gauge(
            "tokenry_signing_keys_missing",
            "Signing keys that are missing in the JWK Set as the world sees it, and therefore do not sign.",
            function=lambda: len(keyring.absent),
        )
        gauge(
            "tokenry_signing_keys_in_trouble",
            "Signing keys with which the key management service did not sign the last time.",
            function=lambda: len(keyring.remote.troubles),
        )
        gauge(
            "tokenry_signing_key_faults",
            "What is wrong with the schedule of the signing keys.",
            function=lambda: len(keyring.faults(lifetime=lifetime)),
        )


class KeyExpiries(Collector):
    """When each signing key leaves the JWK Set. A kid is a thumbprint of ours, and there are a handful of keys."""

    def __init__(self, keyring: Keyring, *, lifetime: int) -> None:
        """Read from *keyring*; *lifetime* is that of the longest token, in seconds."""
        self._keyring = keyring
        self._lifetime = lifetime

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = GaugeMetricFamily(
            "tokenry_signing_key_expiry_timestamp_seconds",
            "Unix time at which a signing key that is not revoked leaves the JWK Set.",
            labels=["kid"],
        )
        for kid, (_, times) in sorted(self._keyring.states(lifetime=self._lifetime).items()):
            family.add_metric([kid], times.retire_at)
        yield family
