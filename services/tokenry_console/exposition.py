"""
Reading metrics in Prometheus's text form: the few that the console draws, summed over what it does not show. Pure.

What was read is not trusted: label values become names of curves, at most so many of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from tokenry.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES: Final = 4 * 2**20  # a service with many routes has a tenth
MAX_SERIES: Final = 200  # of one place
MAX_LABEL: Final = 100  # characters of a label's value that are kept

# Sample -> the label that tells curves apart; the others are summed (or, for a gauge, there is one series anyway).
WANTED: Final[Mapping[str, str | None]] = {
    "tokenry_ready": None,
    "tokenry_clock_timestamp_seconds": None,
    "tokenry_event_loop_lag_seconds": None,
    "tokenry_unhandled_errors_total": None,
    "tokenry_http_connections_refused_total": None,
    "tokenry_tokens_issued_total": "grant_type",
    "tokenry_token_request_errors_total": "error",
    "tokenry_secret_checks_waiting": None,
    "tokenry_secret_checks_capacity": None,
    "tokenry_credentials_age_seconds": None,
    "tokenry_credentials_objects_refused": None,
    "tokenry_signing_key_faults": "fault",
    "tokenry_signing_key_expiry_timestamp_seconds": "kid",
    "tokenry_signing_keys_scheduled": None,
    "tokenry_signing_keys_published": None,
    "tokenry_signing_keys_active": None,
    "tokenry_signing_keys_retiring": None,
    "tokenry_signing_keys_retired": None,
    "tokenry_validations_total": "result",
    "tokenry_validation_duration_seconds_bucket": "le",
    "tokenry_jwks_last_success_timestamp_seconds": None,
    "tokenry_revocation_last_success_timestamp_seconds": None,
    "tokenry_revocation_list_age_seconds": None,
    "tokenry_revocation_list_entries": None,
    "tokenry_revocation_list_bytes": "form",
    "tokenry_revocation_rules": "type",
    "tokenry_revocations_created_total": "type",
    "tokenry_revocation_reads_failed_total": None,
    "tokenry_held_requests": None,
    "tokenry_store_clock_offset_seconds": None,
}
REQUESTS: Final = "http_server_request_duration_seconds_count"
SERVER_ERRORS: Final = "server errors"  # a sum of ours: requests answered 5xx
POLLS: Final = "polls"  # a sum of ours: requests for the list, by route
_POLL_ROUTES: Final = frozenset({"/revocations", "/revocations/changes", "/revocations/snapshot"})
_BUILD: Final = "tokenry_build_info"

Key = tuple[str, str]
"""A sample's name, and the value of the label that tells curves apart (or nothing)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    What one place said at one moment.

    Attributes:
        service: What it is, as it says itself; empty when it does not.
        version: Its version.
        values: Its samples.
    """

    service: str
    version: str
    values: Mapping[Key, float]


def read_exposition(body: bytes) -> Reading:
    """
    Return what *body* says.

    Raises:
        ProtocolError: It is not Prometheus's text form, or too large.
    """
    if len(body) > MAX_BYTES:
        raise ProtocolError(f"the metrics are larger than {MAX_BYTES} bytes")
    values: dict[Key, float] = {}
    build: Mapping[str, str] = {}
    try:
        text = "\n".join(_lines_wanted(body.decode("utf-8")))
        for family in text_string_to_metric_families(text + "\n"):
            for sample in family.samples:
                if sample.name == _BUILD:
                    build = sample.labels
                for key in _keys(sample.name, sample.labels):
                    if key in values:
                        values[key] += sample.value
                    elif len(values) < MAX_SERIES:
                        values[key] = sample.value
    except (ValueError, KeyError, IndexError, TypeError, UnicodeDecodeError):
        raise ProtocolError("it does not answer with metrics in Prometheus's text form") from None
    if not values:
        raise ProtocolError("it answers with no metrics of ours")
    return Reading(
        service=build.get("service", "")[:MAX_LABEL], version=build.get("version", "")[:MAX_LABEL], values=values
    )


def _lines_wanted(text: str) -> Iterator[str]:
    """Yield the lines that are looked at: reading all of them costs ten times as much."""
    for line in text.splitlines():
        name = line[: min((index for index in (line.find("{"), line.find(" ")) if index > 0), default=0)]
        if name in WANTED or name in {REQUESTS, _BUILD}:
            yield line


def _keys(name: str, labels: Mapping[str, str]) -> Iterator[Key]:
    if name == REQUESTS:
        if labels.get("http_response_status_code", "").startswith("5"):
            yield SERVER_ERRORS, ""
        if (route := labels.get("http_route", "")) in _POLL_ROUTES and labels.get("http_request_method") == "GET":
            yield POLLS, route
    elif name in WANTED:
        label = WANTED[name]
        yield name, "" if label is None else labels.get(label, "")[:MAX_LABEL]


def bucket_bound(text: str) -> float:
    """Return the upper bound that the label `le` writes; infinity for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.inf
