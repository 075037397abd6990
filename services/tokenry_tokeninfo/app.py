"""The application: everything that it needs is an argument, so that a test can hand it fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.serving.application import create_base_app
from tokenry.serving.health import Finding, Health, degraded, failed, ok
from tokenry.serving.metrics import Metrics
from tokenry.serving.quick import QUICK
from tokenry.serving.rate_limit import TokenBuckets
from tokenry.serving.turns import Turns
from tokenry_tokeninfo.callers import ClientExchange
from tokenry_tokeninfo.handlers import Handlers, add_list_stamp
from tokenry_tokeninfo.measures import Measures
from tokenry_tokeninfo.openapi import document
from tokenry_tokeninfo.quick import Quick
from tokenry_tokeninfo.settings import read_audiences
from tokenry_tokeninfo.signed_answers import AnswerSigner, read_answer_keys
from tokenry_tokeninfo.stamps import Stamps
from tokenry_tokeninfo.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from tokenry.clock import Clock
    from tokenry.jose.jwks import KeySet
    from tokenry.revocation.extension import ListExtension
    from tokenry.revocation.lists import RevocationList
    from tokenry.serving.health import Check
    from tokenry.serving.outgoing import Outgoing
    from tokenry.validation.snapshots import SnapshotSource
    from tokenry_tokeninfo.ports import Validation
    from tokenry_tokeninfo.settings import Settings

SERVICE = "tokeninfo"
KEYS_WARN_AGE_SECONDS = 3600.0  # an issuer that cannot be reached for an hour concerns somebody
HOT_ROUTES = frozenset({"/oauth2/tokeninfo", "/oauth2/introspect", "/auth", "/auth/{rest}"})


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    validation: Validation,
    keys: SnapshotSource[KeySet],
    revocations: SnapshotSource[RevocationList],
    calls: Outgoing,
    extension: Callable[[], ListExtension | None] = lambda: None,
) -> web.Application:
    """
    Return the token info service.

    Args:
        settings: Its settings.
        clock: Where the time comes from.
        validation: Judges tokens.
        keys: The keys that they are verified with.
        revocations: The list that they are judged by.
        calls: Makes the calls to the issuer and the upstream.
        extension: Returns the signed word by which older lists are judged by now, if there is one.
    """
    health, metrics = Health(), Metrics(service=SERVICE)
    app = create_base_app(
        service=SERVICE,
        clock=clock,
        health=health,
        metrics=metrics,
        settings=settings,
        openapi=document(),
        quiet_routes=HOT_ROUTES,
    )
    health.add("keys", keys_check(keys, clock))
    health.add("revocations", revocations_check(revocations, clock, settings, extension))
    measures = Measures(metrics, clock=clock, keys=keys, revocations=revocations)
    stamps, turns = Stamps(clock, revocations), Turns()
    handlers = Handlers(
        issuer=settings.issuer_identifier,
        clock=clock,
        validation=validation,
        keys=keys,
        stamps=stamps,
        measures=measures,
        turns=turns,
        exchange=ClientExchange(
            token_url=settings.token_endpoint,
            calls=calls,
            validation=validation,
            clock=clock,
            realm=settings.introspection_realm,
        ),
        introspection_limit=TokenBuckets(rate=settings.introspection_rate, burst=settings.introspection_burst),
        introspection_audiences=read_audiences(settings.introspection_audiences),
        upstream=_upstream(settings, calls=calls, clock=clock),
        introspection_scopes={
            name: tuple(seen) for name, seen in read_audiences(settings.introspection_scopes).items()
        },
        signer=_signer(settings),
    )
    if settings.log_level != "debug":  # which logs every request, by itself
        app[QUICK] = Quick(
            clock=clock,
            validation=validation,
            stamps=stamps,
            metrics=metrics,
            measures=measures,
            health=health,
            turns=turns,
            trusted_proxies=settings.trusted_proxies,
            knows_opaque=settings.upstream_url is not None,
        )
    _add_routes(app, handlers)
    app.on_response_prepare.append(add_list_stamp)
    return app


def _add_routes(app: web.Application, handlers: Handlers) -> None:
    router = app.router
    router.add_get("/oauth2/tokeninfo", handlers.token_info, allow_head=False)
    router.add_post("/oauth2/tokeninfo", handlers.token_info)
    router.add_post("/oauth2/introspect", handlers.introspect)
    router.add_get("/oauth2/introspect/keys", handlers.introspection_keys)
    router.add_get("/oauth2/connect/keys", handlers.jwks)
    router.add_route("*", "/auth", handlers.auth_by_query)
    router.add_route("*", "/auth/{rest:.*}", handlers.auth_by_header)
    router.add_get("/health", handlers.health)


def _signer(settings: Settings) -> AnswerSigner | None:
    keys, envelope_key = settings.introspection_keys, settings.introspection_envelope_key
    if keys is None or envelope_key is None:
        return None
    return AnswerSigner(read_answer_keys(keys, envelope_key=envelope_key), issuer=settings.issuer_identifier)


def _upstream(settings: Settings, *, calls: Outgoing, clock: Clock) -> Upstream | None:
    if settings.upstream_url is None:
        return None
    return Upstream(
        url=settings.upstream_url,
        calls=calls,
        clock=clock,
        timeout_seconds=settings.upstream_timeout,
        cache_size=settings.upstream_cache_size,
        cache_seconds=settings.upstream_cache_ttl,
        concurrency=settings.upstream_concurrency,
    )


def keys_check(keys: SnapshotSource[KeySet], clock: Clock) -> Check:
    """Return the check that there are keys to verify with."""

    def check() -> Finding:
        held = keys.snapshot()
        if held is None:
            return failed("no keys are held")
        age = held.age(now=clock.now(), monotonic=clock.monotonic())
        detail = f"{len(held.value)} keys, {age:.0f} s old"
        return degraded(detail) if age > KEYS_WARN_AGE_SECONDS else ok(detail)

    return check


def revocations_check(
    revocations: SnapshotSource[RevocationList],
    clock: Clock,
    settings: Settings,
    extension: Callable[[], ListExtension | None] = lambda: None,
) -> Check:
    """Return the check that there is a list that is fresh enough to judge by."""

    def check() -> Finding:
        held = revocations.snapshot()
        if held is None:
            return failed("no revocation list is held")
        age = held.age(now=clock.now(), monotonic=clock.monotonic())
        detail = f"{len(held.value)} entries, {age:.0f} s old"
        if age > settings.list_refuse_age:
            extended = extension()
            return failed(detail) if extended is None else degraded(f"{detail}, extended until {extended.until}")
        return degraded(detail) if age > settings.list_warn_age else ok(detail)

    return check
