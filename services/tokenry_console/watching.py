"""The pages that only show: Overview, Propagation, Validators, Inspect."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.wire import BINARY_TYPE, parse_binary_list
from tokenry_console import metric_plots
from tokenry_console.alarms import BAD, Alarm, alarms
from tokenry_console.asking import part, real_faults
from tokenry_console.backends import MAX_LIST_BYTES, BackendError
from tokenry_console.exposition import SERVER_ERRORS
from tokenry_console.pictures import reach_strip, strip
from tokenry_console.plots import Plot
from tokenry_console.propagation import curve, percentile, until_now
from tokenry_console.views import NOT_KNOWN, STALE_SECONDS, moment
from tokenry_console.wording import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from tokenry.secret import Secret
    from tokenry_console.asking import Part, Questions
    from tokenry_console.history import History
    from tokenry_console.propagation import Curve, Reach
    from tokenry_console.site import Site
    from tokenry_console.views import Fleet, Revocation

LIVE_SECONDS: Final = 5
WATCH_SECONDS: Final = 2
RECENT_SECONDS: Final = 3600.0  # in which a revocation counts as an open incident
MAX_OPEN: Final = 5
SHORT_SECONDS: Final = 300.0
MAX_JTI: Final = 255
KEYS_LIMIT: Final = 120.0


class Watching:
    """Shows."""

    def __init__(self, site: Site) -> None:
        """Answer for *site*."""
        self._site = site

    # --- Overview --------------------------------------------------------------------------------------------

    async def overview(self, request: web.Request) -> web.Response:
        """Show the golden signals, what is wrong, and which incidents are open."""
        visit, ask = await self._site.enter(request)
        fleet, (known, parts), keys = await asyncio.gather(part(ask.fleet()), ask.revocations(), part(ask.keys()))
        incidents = await self._incidents(ask, known)
        history = self._site.parts.history
        return self._site.show(
            request,
            visit,
            "overview.html",
            live=LIVE_SECONDS,
            plots=[
                metric_plots.issuing(history),
                metric_plots.validating(history),
                metric_plots.denied(history),
                metric_plots.latency(history),
            ],
            alarms=self._alarms([fleet, *parts, keys], fleet, incidents),
            fleet=fleet,
            incidents=incidents,
            signals=signals(history),
            next_key=None if keys.value is None else _next_key(keys.value[1], self._site.now),
            keys=keys,
        )

    def _alarms(
        self, parts: Sequence[Part[Any]], fleet: Part[Fleet], incidents: Sequence[tuple[Revocation, Part[list[Reach]]]]
    ) -> list[Alarm]:
        found = alarms(self._site.parts.history, fleet=fleet.value, faults=real_faults(parts), now=self._site.now)
        target = self._site.parts.settings.propagation_target
        for one, reached in incidents:
            missing = [each for each in reached.value or () if each.state == "waiting"]
            late = one.at is not None and self._site.now - one.at > target
            if missing and late:
                what = f"{one.ticket or one.id} is not enforced by {len(missing)} validators after {duration(target)}"
                advice = "The page names them and says why."
                page = f"/propagation?id={one.id}"
                found.insert(0, Alarm(level=BAD, what=what, advice=advice, page=page, runbook="PropagationSlow"))
        return found

    async def _incidents(
        self, ask: Questions, known: Sequence[Revocation]
    ) -> list[tuple[Revocation, Part[list[Reach]]]]:
        """Return the latest revocations of the last hour with everything about them."""
        recent = [each for each in known if each.at is not None and self._site.now - each.at < RECENT_SECONDS]
        recent = [each for each in recent if each.state in {"in force", "waiting", NOT_KNOWN}][:MAX_OPEN]
        detailed = await ask.with_details(recent, count=MAX_OPEN)
        detailed = [each for each in detailed if each.state in {"in force", "waiting", NOT_KNOWN}]
        reached = await asyncio.gather(*(part(ask.reached(each)) for each in detailed))
        return list(zip(detailed, reached, strict=True))

    # --- Propagation -----------------------------------------------------------------------------------------

    async def propagation(self, request: web.Request) -> web.Response:
        """Show how one revocation spread."""
        visit, ask = await self._site.enter(request)
        known, parts = await ask.revocations()
        wanted = request.query.get("id") or next((each.id for each in known if each.state != "waiting"), None)
        history = self._site.parts.history
        plots = [metric_plots.list_size(history), metric_plots.polling(history)]
        context: dict[str, Any] = {
            "known": known[:30],
            "faults": real_faults(parts),
            "wanted": wanted,
            "target": self._site.parts.settings.propagation_target,
        }
        if wanted is None:
            return self._site.show(
                request, visit, "propagation.html", live=LIVE_SECONDS, plots=plots, one=None, **context
            )
        held = next((each for each in known if each.id == wanted), None)
        one = await part(self._one(ask, wanted, held))
        reached = await part(ask.reached(one.value)) if one.value is not None else None
        found: Sequence[Reach] = () if reached is None or reached.value is None else reached.value
        current = curve(wanted, found)
        earlier = await ask.earlier(known, but=wanted)
        elapsed = None if one.value is None or one.value.at is None else max(0.0, self._site.now - one.value.at)
        plots = [*self._curves(current, earlier, found, elapsed=elapsed), *plots]
        return self._site.show(
            request,
            visit,
            "propagation.html",
            live=LIVE_SECONDS if current.is_complete else WATCH_SECONDS,
            plots=plots,
            one=one,
            reached=reached,
            curve=current,
            percentiles=[(percent, percentile(found, percent)) for percent in (50, 90, 99)],
            slowest=found[:5],
            slowest_seconds=max((each.seconds for each in found if each.seconds is not None), default=None),
            **context,
        )

    @staticmethod
    async def _one(ask: Questions, name: str, held: Revocation | None) -> Revocation:
        """Return everything about one revocation, with the exact moment where the list has it."""
        one = await ask.revocation(name)
        return one if held is None or held.at is None else replace(one, at=held.at)

    def _curves(
        self, current: Curve, earlier: Sequence[Curve], found: Sequence[Reach], *, elapsed: float | None
    ) -> list[Plot]:
        settings = self._site.parts.settings
        rows: list[list[float | str | None]] = []
        for index, each in enumerate((current, *earlier)):
            name = "this one" if index == 0 else each.id
            steps = until_now(current, elapsed, target=settings.propagation_target) if index == 0 else each.steps
            rows += [[name, round(seconds, 3), round(100 * part, 2)] for seconds, part in steps]
        target = settings.propagation_target
        marks = dict.fromkeys(((30.0, "30 s"), (target, f"target {target:g} s")))
        return [
            Plot(
                id="curve",
                title="Validators that enforce it, against seconds since the revocation",
                kind="curves",
                columns=["revocation", "seconds", "share in %"],
                rows=rows if current.count else [],
                unit="%",
                time=False,
                marks=list(marks),
                promql="histogram_quantile(0.99, "
                "sum by (le) (rate(tokenry_revocation_propagation_seconds_bucket[1h])))",
                note="In grey the last revocations, of the validators that reported them. The query shows what "
                "token info measures for itself.",
                empty="No validator was heard of, so nobody can say who enforces it.",
            ),
            Plot(
                id="reach",
                title="Seconds until each validator enforced it",
                columns=["validator", "seconds", "state", "why"],
                rows=[[each.name, each.seconds, each.state, each.why] for each in found],
                picture=reach_strip(found, target=settings.propagation_target) if found else None,
                time=False,
                empty="No validator was heard of.",
            ),
        ]

    # --- Validators ------------------------------------------------------------------------------------------

    async def validators(self, request: web.Request) -> web.Response:
        """Show which validators there are and how fresh they are."""
        visit, ask = await self._site.enter(request)
        fleet = await part(ask.fleet())
        places = self._site.parts.history.places.values()
        now = self._site.now
        ages = [
            (place.url.removesuffix("/metrics"), now - read_at, place.version or "?")
            for place in places
            if (read_at := place.value("tokenry_jwks_last_success_timestamp_seconds")) is not None
        ]
        shown = () if fleet.value is None else fleet.value.validators
        return self._site.show(
            request,
            visit,
            "validators.html",
            live=LIVE_SECONDS,
            plots=[
                Plot(
                    id="freshness",
                    title="Age of the revocation list, by validator",
                    columns=["validator", "seconds behind", "version", "state"],
                    rows=[[each.name, each.lag, each.version, each.state] for each in shown],
                    picture=strip([(each.name, each.lag, each.version) for each in shown], limit=STALE_SECONDS)
                    if shown
                    else None,
                    time=False,
                    promql="time() - tokenry_revocation_last_success_timestamp_seconds",
                    note="A bar each, the oldest on the right; the colour is the version. Beyond the line a validator "
                    "misses what was revoked in the last minute.",
                    empty="No validator was heard of.",
                ),
                Plot(
                    id="keys-age",
                    title="Age of the keys, by instance whose metrics are read here",
                    columns=["instance", "seconds", "version"],
                    rows=[list(row) for row in ages],
                    picture=strip(ages, limit=KEYS_LIMIT) if ages else None,
                    time=False,
                    promql="time() - tokenry_jwks_last_success_timestamp_seconds",
                    empty="No instance whose metrics are read here tells when it read the keys.",
                ),
            ],
            fleet=fleet,
            places=list(places),
        )

    # --- Inspect ---------------------------------------------------------------------------------------------

    async def inspect(self, request: web.Request) -> web.Response:
        """Show the page that decodes a token in the browser; a token is never sent here."""
        visit, _ = await self._site.enter(request)
        return self._site.show(request, visit, "inspect.html", jti="", asked=None)

    async def ask_about_id(self, request: web.Request) -> web.Response:
        """Say whether the id of a token is revoked. It comes in a body, so that no history or log has it."""
        visit, _ = await self._site.enter(request)
        form = await self._site.parts.door.read_form(request, visit.session)
        jti = (form.one("jti") or "").strip()
        asked = await part(self._is_revoked(visit.bearer, jti))
        # What is no id may be a token that was put into the wrong field: it is not shown again.
        return self._site.show(request, visit, "inspect.html", jti="" if asked.value is None else jti, asked=asked)

    async def _is_revoked(self, bearer: Secret, jti: str) -> bool:
        if not 0 < len(jti.encode("utf-8", "surrogatepass")) <= MAX_JTI or jti.count(".") > 1:
            raise BackendError(
                "the console", "this is no id of a token", "Paste the value of its claim jti.", status=400
            )
        revocation = self._site.parts.backends.revocation
        body = await revocation.fetch(
            "/revocations/snapshot", bearer=bearer, accept=BINARY_TYPE, max_bytes=MAX_LIST_BYTES
        )
        now, issuer = self._site.now, self._site.parts.settings.issuer

        def look() -> bool:
            held = parse_binary_list(body).onto(None, now=now)
            # A token of this id, issued later than every rule: what hits it hits the id.
            token = JudgedToken(iss=issuer, jti=jti, kid="", iat=2**40, claims={}, signing_input="")
            return held.hits(token, now=now) is not None

        try:
            return await asyncio.to_thread(look)
        except ProtocolError:
            raise BackendError(revocation.part, "its list is not understood", "Compare the versions.") from None


def signals(history: History) -> dict[str, float | None]:
    """Return the golden signals of the last five minutes: traffic, errors, latency, saturation."""

    def rate(name: str) -> float | None:
        return history.per_second(name, seconds=SHORT_SECONDS)

    issued, refused = rate("tokenry_tokens_issued_total"), rate("tokenry_token_request_errors_total")
    outcomes = history.growth("tokenry_validations_total", seconds=SHORT_SECONDS)
    faults = history.growth(SERVER_ERRORS, seconds=SHORT_SECONDS)
    total = None if issued is None else issued + (refused or 0.0)
    places = list(history.places.values())

    def largest(name: str) -> float | None:
        return max((value for place in places if (value := place.value(name)) is not None), default=None)

    def level(name: str) -> float | None:
        return max((value for place in places for value in place.labelled(name).values()), default=None)

    return {
        "issued": issued,
        "issued_ok": issued / total if issued is not None and total else None,
        "validated": None
        if outcomes is None
        else sum(outcomes.values()) / max(1.0, history.span(seconds=SHORT_SECONDS)),
        "validated_p99": history.quantile("tokenry_validation_duration_seconds_bucket", 0.99, seconds=SHORT_SECONDS),
        "denied": None if outcomes is None else outcomes.get("revoked", 0.0),
        "server_errors": None if faults is None else sum(faults.values()),
        "list_entries": largest("tokenry_revocation_list_entries"),
        "list_bytes": level("tokenry_revocation_list_bytes"),
        "secret_checks": largest("tokenry_secret_checks_waiting"),
        "secret_room": largest("tokenry_secret_checks_capacity"),
        "lag": largest("tokenry_event_loop_lag_seconds"),
        "ready": float(sum(1 for place in places if place.value("tokenry_ready") == 1)),
        "places": float(len(places)),
        "span": history.span(seconds=SHORT_SECONDS),
    }


def _next_key(said: dict[str, Any], now: float) -> float | None:
    """Return in how many seconds the next key begins to sign."""
    at = moment(said, "next_rotation_at")
    return None if at is None else at - now
