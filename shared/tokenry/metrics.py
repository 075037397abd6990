"""
Metrics of the library in a service of yours, for Prometheus; needs `prometheus-client` (the extra `metrics`).

    from tokenry import metrics

    source = metrics.watch_source(ClientCredentials(scope=["orders.read"]), name="orders")
    validator = metrics.watch_validator(TokenValidator("https://issuer.example", audience="orders"))

Nobody is asked for the sake of a metric: what sources and validators know anyway is read when Prometheus asks. No label
holds anything that a caller chooses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tokenry.errors import InsufficientScope, InvalidToken, UnknownKey, ValidatorNotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from tokenry.claims import TokenInfo
    from tokenry.client.access_token import TokenSource
    from tokenry.introspector import Introspector
    from tokenry.oauth.confirmation import Shown
    from tokenry.token_validator import TokenValidator

SourceT = TypeVar("SourceT", bound="TokenSource")

REFRESHES: Final = "tokenry_client_token_refresh"
EXPIRY: Final = "tokenry_client_token_expiry_timestamp_seconds"


def watch_source(source: SourceT, *, name: str = "default", registry: CollectorRegistry = REGISTRY) -> SourceT:
    """
    Show *source* at `/metrics`, and return it.

    `tokenry_client_token_refresh_total{source,result}`: requests for tokens: `ok`, an RFC 6749 error code, or `failed`.
    `tokenry_client_token_expiry_timestamp_seconds{source}`: when the held token ends; NaN without one, +Inf if unknown.

    Args:
        source: A source of tokens; one that counts no refreshes shows none.
        name: What its series are called; another one for each source.
        registry: Where to.

    Raises:
        ValueError: Something of this name is shown there already.
    """
    _sources_of(registry).add(name, source)
    return source


def watch_validator(
    validator: TokenValidator | Introspector, *, registry: CollectorRegistry = REGISTRY
) -> CountingValidator:
    """
    Show *validator* at `/metrics`, and return one that counts; use that one in its place.

    `tokenry_validations_total{result}`: `ok`, `insufficient_scope`, `not_ready`, or the first step that failed.
    `tokenry_revocation_list_age_seconds`, `tokenry_revocation_list_entries`, `tokenry_jwks_age_seconds`,
    `tokenry_validator_ready`: what it judges by; NaN before the first. (Of a `TokenValidator`; an `Introspector` holds
    none of it.)

    Args:
        validator: A `TokenValidator` or an `Introspector`.
        registry: Where to; one validator each.

    Raises:
        ValueError: A validator is shown there already.
    """
    if hasattr(validator, "list_age"):
        registry.register(_Ages(validator))
    results = Counter(
        "tokenry_validations",
        "Validations by result: ok, insufficient_scope, not_ready, or the first step that failed.",
        ["result"],
        registry=registry,
    )
    return CountingValidator(validator, results)


class CountingValidator:
    """A validator that counts what another one says; everything else is that one's."""

    def __init__(self, validator: Any, results: Counter) -> None:  # noqa: ANN401 -- any judge
        """Count *results* of *validator*."""
        self._validator = validator
        self._results = results
        self._ok = results.labels("ok")
        if hasattr(validator, "validate_at_once"):
            self.validate_at_once = self._at_once

    def _at_once(self, token: str, confirmation: str | Shown | None = None) -> TokenInfo:
        """Do as the validator does, and count; what has to wait for a key is counted by `avalidate`."""
        try:
            info: TokenInfo = self._validator.validate_at_once(token, confirmation)
        except UnknownKey:
            raise
        except (InvalidToken, InsufficientScope, ValidatorNotReady) as error:
            self._results.labels(_result_of(error)).inc()
            raise
        self._ok.inc()
        return info

    def validate(self, token: str, **demands: Any) -> TokenInfo:  # noqa: ANN401 -- those of the validator
        """Do as the validator does, and count."""
        return self._counted(lambda: self._validator.validate(token, **demands))

    def validate_waiting(self, token: str, **demands: Any) -> TokenInfo:  # noqa: ANN401 -- likewise
        """Do as the validator does, and count."""
        return self._counted(lambda: self._validator.validate_waiting(token, **demands))

    async def avalidate(self, token: str, **demands: Any) -> TokenInfo:  # noqa: ANN401 -- likewise
        """Do as the validator does, and count."""
        try:
            info: TokenInfo = await self._validator.avalidate(token, **demands)
        except (InvalidToken, InsufficientScope, ValidatorNotReady) as error:
            self._results.labels(_result_of(error)).inc()
            raise
        self._ok.inc()
        return info

    def _counted(self, judge: Callable[[], TokenInfo]) -> TokenInfo:
        try:
            info = judge()
        except (InvalidToken, InsufficientScope, ValidatorNotReady) as error:
            self._results.labels(_result_of(error)).inc()
            raise
        self._ok.inc()
        return info

    def __enter__(self) -> Self:
        """Start the validator."""
        self._validator.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._validator.__exit__(None, None, None)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the validator has
        return getattr(self._validator, name)


def _result_of(error: InvalidToken | InsufficientScope | ValidatorNotReady) -> str:
    match error:
        case InvalidToken():
            return str(error.reason)
        case InsufficientScope():
            return "insufficient_scope"
        case ValidatorNotReady():
            return "not_ready"


class _Sources(Collector):
    """The sources of tokens that are shown in one registry."""

    def __init__(self) -> None:
        self._sources: dict[str, TokenSource] = {}

    def add(self, name: str, source: TokenSource) -> None:
        if self._sources.setdefault(name, source) is not source:
            raise ValueError(f"a source called {name!r} is shown already: give each its own name")

    def describe(self) -> list[Metric]:
        return []  # so that registering asks nobody anything

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        refreshes = CounterMetricFamily(REFRESHES, "Requests for tokens by result.", labels=["source", "result"])
        expiry = GaugeMetricFamily(EXPIRY, "Unix time at which the held token ends.", labels=["source"])
        for name, source in sorted(self._sources.items()):
            for result, count in sorted(dict(getattr(source, "refreshes", {})).items()):
                refreshes.add_metric([name, result], count)
            ends = getattr(source, "expires_at", None)
            expiry.add_metric([name], math.nan if ends is None else ends)
        yield refreshes
        yield expiry


class _Ages(Collector):
    """What a validator judges by."""

    def __init__(self, validator: Any) -> None:  # noqa: ANN401 -- a `TokenValidator`
        self._validator = validator

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        stats: dict[str, Any] = self._validator.stats()
        values = {
            "tokenry_revocation_list_age_seconds": ("Age of the revocation list in force.", stats["list_age"]),
            "tokenry_revocation_list_entries": ("Entries of the revocation list in force.", stats["list_entries"]),
            "tokenry_jwks_age_seconds": ("Age of the keys in force.", stats["keys_age"]),
            "tokenry_validator_ready": ("1 while tokens can be judged.", float(stats["ready"])),
        }
        for name, (documentation, value) in values.items():
            yield GaugeMetricFamily(name, documentation, value=math.nan if value is None else value)


_known: dict[int, tuple[CollectorRegistry, _Sources]] = {}


def _sources_of(registry: CollectorRegistry) -> _Sources:
    found = _known.get(id(registry))
    if found is None:
        found = _known[id(registry)] = (registry, _Sources())  # the registry is held, so that its id stays its own
        registry.register(found[1])
    return found[1]


__all__ = ["CountingValidator", "watch_source", "watch_validator"]
