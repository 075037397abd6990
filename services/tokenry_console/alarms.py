"""What is wrong now, the worst first, each with what to do next. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry_console.exposition import SERVER_ERRORS
from tokenry_console.wording import ago, duration, quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tokenry_console.backends import BackendError
    from tokenry_console.history import History, Place
    from tokenry_console.views import Fleet

BAD: Final = "bad"
WARN: Final = "warn"
LIST_AGE: Final = 60.0
SKEW: Final = 5.0  # seconds: the platform's bound between two clocks
CREDENTIALS_AGE: Final = 300.0
LAG: Final = 0.5
KEYS_AGE: Final = 300.0
MAX_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """
    One thing that is wrong.

    Attributes:
        level: bad or warn.
        what: What is wrong.
        advice: What to do next.
        page: The page of the console that shows more; empty for none.
        runbook: The page of the documentation about it; empty for none.
    """

    level: str
    what: str
    advice: str
    page: str = ""
    runbook: str = ""


def alarms(history: History, *, fleet: Fleet | None, faults: Iterable[BackendError], now: float) -> list[Alarm]:
    """
    Return what is wrong at *now* (Unix seconds), the worst first.

    Args:
        history: What was scraped.
        fleet: The validators; None when they are not known.
        faults: What services did not answer.
        now: Unix seconds.
    """
    found = [*_of_backends(faults)]
    for place in history.places.values():
        found += _of_place(place, now)
    if fleet is not None:
        found += _of_fleet(fleet)
    errors = history.growth(SERVER_ERRORS, seconds=300)
    if errors is not None and sum(errors.values()) > 0:
        what = f"{quantity(sum(errors.values()))} requests were answered with a fault of ours in the last five minutes"
        found.append(
            Alarm(level=BAD, what=what, advice="Look at the services' logs for level error.", runbook="UnhandledErrors")
        )
    return sorted(found, key=lambda alarm: alarm.level != BAD)


def _of_backends(faults: Iterable[BackendError]) -> Iterator[Alarm]:
    seen = set()
    for fault in faults:
        if (fault.part, fault.cause) not in seen:
            seen.add((fault.part, fault.cause))
            yield Alarm(level=BAD, what=f"{fault.part}: {fault.cause}", advice=fault.advice)


def _of_place(place: Place, now: float) -> Iterator[Alarm]:
    name = f"{place.service or 'a service'} at {place.url.removesuffix('/metrics')}"
    if place.fault is not None:
        last = "" if place.read_at is None else f", last read {ago(now - place.read_at)}"
        advice = "See whether it runs. Nothing below is of this moment for it."
        yield Alarm(
            level=BAD, what=f"{name}: metrics cannot be read: {place.fault}{last}", advice=advice, runbook="ServiceDown"
        )
        return
    if place.value("tokenry_ready") == 0:
        advice = "Its /readyz?verbose says what it lacks."
        yield Alarm(level=BAD, what=f"{name} is not ready", advice=advice, runbook="ServiceNotReady")
    age = place.value("tokenry_revocation_list_age_seconds")
    if age is not None and age > LIST_AGE:
        what = f"{name} has a revocation list that is {duration(age)} old"
        advice = "Is the revocation service up, and its store? What was revoked since is still accepted there."
        yield Alarm(level=BAD, what=what, advice=advice, page="/validators", runbook="RevocationListStale")
    if place.skew is not None and abs(place.skew) > SKEW:
        what = f"the clock of {name} is {duration(abs(place.skew))} {'ahead of' if place.skew > 0 else 'behind'} ours"
        yield Alarm(level=BAD, what=what, advice="Look at the time service of both machines.", runbook="ClockSkew")
    for fault, value in place.labelled("tokenry_signing_key_faults").items():
        if value > 0:
            what = f"signing keys: {fault.replace('_', ' ')}"
            yield Alarm(
                level=BAD, what=what, advice="Look at the page Keys.", page="/keys", runbook="SigningKeyScheduleFaulty"
            )
    yield from _of_load(place, name, now)


def _of_load(place: Place, name: str, now: float) -> Iterator[Alarm]:
    waiting, room = place.value("tokenry_secret_checks_waiting"), place.value("tokenry_secret_checks_capacity")
    if waiting is not None and room and waiting >= 0.8 * room:
        what = f"{name}: {waiting:.0f} of {room:.0f} places for checking secrets are taken"
        advice = "Somebody guesses, or a client asks for a token with every request."
        yield Alarm(level=WARN, what=what, advice=advice, runbook="SecretCheckSaturated")
    old = place.value("tokenry_credentials_age_seconds")
    if old is not None and old > CREDENTIALS_AGE:
        what = f"{name} has last confirmed its credentials {duration(old)} ago"
        advice = "Is the bucket reachable? Clients that were disabled since still get tokens."
        yield Alarm(level=WARN, what=what, advice=advice, runbook="CredentialsStale")
    refused = place.value("tokenry_credentials_objects_refused")
    if refused:
        what = f"{name}: {refused:.0f} stored objects are refused in their current version"
        yield Alarm(level=WARN, what=what, advice="Its log names them and says why.", runbook="CredentialsRefused")
    lag = place.value("tokenry_event_loop_lag_seconds")
    if lag is not None and lag > LAG:
        advice = "It has more to do than it can: add a replica."
        yield Alarm(level=WARN, what=f"{name} is late by {duration(lag)}", advice=advice, runbook="EventLoopBlocked")
    read_at = place.value("tokenry_jwks_last_success_timestamp_seconds")
    if read_at is not None and now - read_at > KEYS_AGE:
        what = f"{name} has last read the keys {duration(now - read_at)} ago"
        yield Alarm(level=WARN, what=what, advice="Is the issuer up?", page="/keys", runbook="JwksStale")


def _of_fleet(fleet: Fleet) -> Iterator[Alarm]:
    stale = [each for each in fleet.validators if each.is_stale and not each.is_silent]
    silent = [each for each in fleet.validators if each.is_silent]
    if not fleet.validators:
        what = "no validator was heard of: nobody can say who enforces revocations"
        advice = "Do services have the revocation service's address? Those with Plan B's library are not named."
        yield Alarm(level=WARN, what=what, advice=advice, page="/validators")
    if stale:
        what = f"{_counted(stale)} more than {duration(LIST_AGE)} behind: {_named(each.name for each in stale)}"
        advice = "What was revoked since is still accepted there."
        yield Alarm(level=BAD, what=what, advice=advice, page="/validators", runbook="RevocationListStale")
    if silent:
        what = f"{_counted(silent)} not heard of for a minute: {_named(each.name for each in silent)}"
        advice = "Scaled down, restarted under another name, or cut off."
        yield Alarm(level=WARN, what=what, advice=advice, page="/validators")


def _counted(validators: Sequence[object]) -> str:
    return "1 validator is" if len(validators) == 1 else f"{len(validators)} validators are"


def _named(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - MAX_NAMED
    return ", ".join(known[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
