"""`tokenry canary`: mint, revoke, and time until token info refuses, end to end and all the time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer
from prometheus_client import start_http_server

from tokenry.errors import TokenryError
from tokenry.serving.metrics import Metrics
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, escape, fail, people
from tokenry_cli.platform import Platform
from tokenry_cli.token import ContextFile, Identity

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 31.0, 61.0, 120.0)
PROMISE_SECONDS: Final = 61.0  # the longest of the promises: by the signed list
LOOK_SECONDS: Final = 0.1
_OK: Final = 200
_REFUSED: Final = 401


class Outcome(StrEnum):
    """How one flight of the canary ended."""

    REFUSED = "refused"  # as it should be: the revoked token is refused
    STILL_ACCEPTED = "still_accepted"  # beyond every promise
    NOT_ACCEPTED = "not_accepted"  # the fresh token was refused before it was revoked
    FAILED = "failed"  # a service did not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """
    One flight.

    Attributes:
        outcome: How it ended.
        seconds: From the answer of the revocation service to the first refusal; None when there was none.
        detail: What went wrong, for the log.
    """

    outcome: Outcome
    seconds: float | None = None
    detail: str = ""


def fly(
    platform: Platform,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Flight:
    """Mint a token of the context's client, see it accepted, revoke it as a test, and wait until it is refused."""
    try:
        token = platform.token()["access_token"]
        if (status := _asked(platform, token)) != _OK:
            return Flight(outcome=Outcome.NOT_ACCEPTED, detail=f"token info answered {status} for a fresh token")
        platform.revoke({"type": "TOKEN", "data": {"token": token, "reason": "test"}})
        revoked_at = now()
        while (waited := now() - revoked_at) <= PROMISE_SECONDS:
            if _asked(platform, token) == _REFUSED:
                return Flight(outcome=Outcome.REFUSED, seconds=now() - revoked_at)
            sleep(LOOK_SECONDS)
    except TokenryError as error:
        return Flight(outcome=Outcome.FAILED, detail=str(error))
    return Flight(outcome=Outcome.STILL_ACCEPTED, detail=f"accepted {waited:.0f} s after it was revoked")


def canary(
    every: Annotated[float, typer.Option(min=1, help="Seconds between two flights.")] = 60.0,
    metrics_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port for /metrics; 0: none.")] = 9099,
    metrics_address: Annotated[str, typer.Option(help="Address to serve them on.")] = "127.0.0.1",
    flights: Annotated[int, typer.Option(min=0, help="End after so many; 0: never.")] = 0,
    identity: Identity = "admin",
    context: ContextFile = None,
) -> None:
    """
    Time the whole way of a revocation, again and again: from the store's word to the first refusal.

    The identity needs revocation.write. Each flight leaves one revoked token, marked as a test.
    """
    try:
        platform = Platform(load_context(os.environ, file=context, identity=identity))
    except TokenryError as error:
        fail(str(error), code=ExitCode.USAGE)
    if platform.context.tokeninfo is None:
        fail("no token info service: set TOKENRY_TOKENINFO_URL, or --context FILE", code=ExitCode.USAGE)
    measures = Measures(Metrics(service="canary"))
    if metrics_port:
        start_http_server(metrics_port, addr=metrics_address, registry=measures.registry)
        people.print(f"metrics on http://{metrics_address}:{metrics_port}/metrics")
    bad, number = 0, 0
    while not flights or number < flights:
        if number:
            time.sleep(every)
        number += 1
        flight = fly(platform)
        bad += flight.outcome is not Outcome.REFUSED
        measures.landed(flight)
        said = f"refused after {flight.seconds:.2f} s" if flight.seconds is not None else flight.detail
        people.print(escape(f"{flight.outcome}: {said}"))
    if bad:
        raise typer.Exit(ExitCode.WAITED_IN_VAIN)


class Measures:
    """What the canary counts."""

    def __init__(self, metrics: Metrics) -> None:
        """Add the metrics to those of the process."""
        self.registry = metrics.registry
        self._seconds = metrics.histogram(
            "tokenry_canary_revocation_seconds",
            "From the answer to a revocation until token info refused the token.",
            buckets=BUCKETS,
        )
        self._flights = metrics.counter("tokenry_canary_flights", "Flights by outcome.", labels=("outcome",))
        for outcome in Outcome:
            self._flights.labels(outcome.value)
        self._last = metrics.gauge(
            "tokenry_canary_last_success_timestamp_seconds", "Unix time of the last flight that ended as it should."
        )

    def landed(self, flight: Flight) -> None:
        """Count one flight."""
        self._flights.labels(flight.outcome.value).inc()
        if flight.seconds is not None:
            self._seconds.observe(flight.seconds)
            self._last.set_to_current_time()


def _asked(platform: Platform, token: str) -> int:
    url = f"{platform.context.tokeninfo}/oauth2/tokeninfo"
    return platform.get(url, headers={"Authorization": f"Bearer {token}"}).status
