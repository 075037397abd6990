"""The application: the parts joined, the routes, and what runs in the background."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from tokenry.errors import ConfigurationError
from tokenry.http.fetch import HttpFetcher
from tokenry.serving.application import create_base_app
from tokenry.serving.audit_sink import chain_name, write_to_log
from tokenry.serving.health import Health, degraded, failed, ok
from tokenry.serving.metrics import Metrics
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import MAX_LEEWAY, TrustedIssuer, ValidationPolicy
from tokenry_revocation.acceptance import Acceptance
from tokenry_revocation.approving import SecondPerson
from tokenry_revocation.audit import AuditLog
from tokenry_revocation.auditing import Anchor, Auditing
from tokenry_revocation.batches import Batches
from tokenry_revocation.client_login import ClientLogin
from tokenry_revocation.counting import Counting
from tokenry_revocation.feed import Feed
from tokenry_revocation.handlers import Revocations, Service
from tokenry_revocation.instances import VIEWS, Instances
from tokenry_revocation.metrics import ServiceMetrics
from tokenry_revocation.openapi import OPENAPI
from tokenry_revocation.opening import OpeningStore
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.publisher import Publisher
from tokenry_revocation.reading import Readers
from tokenry_revocation.refusals import KEPT_SECONDS, REFUSALS
from tokenry_revocation.requests import MAX_KEPT_SKEW
from tokenry_revocation.revoking import KEEP_SECONDS, Fingerprints
from tokenry_revocation.rules import NoRules, RuleBook
from tokenry_revocation.signed_list import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry.serving.audit_sink import AuditSink
    from tokenry.serving.health import Finding
    from tokenry.token_validator import Keys
    from tokenry_revocation.list_keys import ListKeys
    from tokenry_revocation.ports import RevocationStore
    from tokenry_revocation.publisher import Shelf
    from tokenry_revocation.rules import RuleObjects
    from tokenry_revocation.settings import Settings

PROBLEM_PREFIXES: Final = ("/revocations", "/notifications", "/validators", "/counters", "/jobs", "/audit")
WARN_AGE_SECONDS: Final = 15.0  # of the last complete read: thirty reads have failed
REFUSE_AGE_SECONDS: Final = 60.0
SHARE_SECONDS: Final = 10.0  # between two shares of this replica's view of the validators
VIEW_TTL_SECONDS: Final = 60  # a replica that has gone is forgotten; its validators poll another one

_LAST_HEAD_SECONDS: Final = 2.0  # that the store is given for it at the end
STREAM_BYTES: Final = 16  # of a publisher's run: 128 bits, so that no two runs have one name
MISSED_ISSUES: Final = 3

ANCHOR = web.AppKey("anchor", Anchor)
FEED = web.AppKey("feed", Feed)
PUBLISHER = web.AppKey("publisher", Publisher)
RULES = web.AppKey("rules", RuleBook)
SERVICE_PARTS = web.AppKey("service_parts", Service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """
    Where the signed list is put, and what it is signed with.

    Attributes:
        shelf: Where the object is.
        keys: The keys for lists.
    """

    shelf: Shelf
    keys: ListKeys


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    open_store: Callable[[], Awaitable[RevocationStore]],
    keys: Keys,
    other_keys: Keys | None = None,
    rules: RuleObjects | None = None,
    fetcher: Fetcher | None = None,
    token_endpoint: Callable[[], str | None] = lambda: None,
    audit: AuditSink = write_to_log,
    publishing: Publishing | None = None,
) -> web.Application:
    """
    Return the service.

    Args:
        settings: What it is told.
        clock: Where the time comes from.
        open_store: Opens the store.
        keys: The issuer's keys; started and stopped with the application.
        other_keys: The keys of further issuers whose tokens may be revoked; started and stopped likewise.
        rules: Where the rules are; None for none.
        fetcher: Asks the issuer about client credentials.
        token_endpoint: Returns the issuer's token endpoint as its metadata name it, once they were read.
        audit: Where audit lines go.
        publishing: Where the signed list is put; None when it is not published here.
    """
    health, metrics = Health(), Metrics(service="revocation")
    app = create_base_app(
        service="revocation",
        clock=clock,
        health=health,
        metrics=metrics,
        settings=settings,
        openapi=OPENAPI,
        problem_prefixes=PROBLEM_PREFIXES,
        quiet_routes=frozenset({"/revocations", "/revocations/changes", "/revocations/snapshot"}),
    )
    own = ServiceMetrics(metrics, clock=clock, store=urlsplit(settings.store_url).scheme)
    terms = settings.terms
    fingerprints = Fingerprints(settings.revocation_hashing_salt)
    store = OpeningStore(open_store, needed_retention_seconds=needed_retention(settings))
    feed = Feed(
        store=store,
        clock=clock,
        skew=terms.skew,
        max_token_lifetime=terms.max_token_lifetime,
        fingerprints=fingerprints,
        metrics=own,
        max_entries=settings.list_max_entries,
    )
    judge = TokenValidator.from_sources(_policy(settings), keys=keys, revocations=feed, clock=clock)
    instances = Instances(settings.instance or socket.gethostname())
    audit_log = AuditLog(audit, instance=chain_name(instances.replica), clock=clock)
    anchor = Anchor(audit=audit_log, store=store, clock=clock)
    acceptance = Acceptance(store=store, feed=feed, clock=clock, terms=terms, fingerprints=fingerprints, metrics=own)
    counting = Counting(store=store, judge=judge, clock=clock, terms=terms, fingerprints=fingerprints)
    service = Service(
        clock=clock,
        terms=terms,
        fingerprints=fingerprints,
        issuers=settings.issuers,
        claim_names=frozenset(settings.revocable_claims),
        keys=keys,
        judge=judge,
        login=ClientLogin(
            token_endpoint=lambda: token_endpoint() or f"{settings.issuer.rstrip('/')}/oauth2/token",
            fetcher=fetcher or HttpFetcher(allow_plain_http=bool(settings.plain_http_hosts)),
            judge=judge,
        ),
        rules=RuleBook(rules or NoRules(), clock=clock, metrics=own),
        store=store,
        acceptance=acceptance,
        feed=feed,
        second_person=SecondPerson(
            store=store,
            acceptance=acceptance,
            clock=clock,
            terms=terms,
            fingerprints=fingerprints,
            limit=settings.second_person_share,
            seconds=int(settings.second_person_wait),
        ),
        counting=counting,
        instances=instances,
        audit=audit_log,
        other_keys=other_keys,
        metrics=own,
    )
    app[FEED], app[RULES], app[SERVICE_PARTS] = feed, service.rules, service
    app[ANCHOR] = anchor
    publisher = None if publishing is None else _publisher(publishing, service, settings)
    if publisher is not None:
        app[PUBLISHER] = publisher
    _add_routes(app, service, settings, publisher, anchor)
    _add_checks(health, service, store)
    if publisher is not None:
        _add_publisher_check(health, publisher, settings)
    metrics.gauge(
        "tokenry_revocation_list_age_seconds",
        "Seconds since the moment up to which the published list is complete.",
        function=feed.age,
    )
    metrics.gauge(
        "tokenry_store_clock_offset_seconds",
        "By how much our clock is ahead of the store's; NaN where the store has none of its own.",
        function=lambda: _clock_offset(store),
    )
    health.on_drain(feed.drain)
    app.cleanup_ctx.append(_background(service, store, publisher, anchor))
    return app


def _clock_offset(store: OpeningStore) -> float:
    return math.nan if (offset := store.clock_offset) is None else offset


def needed_retention(settings: Settings) -> int:
    """
    Return for how many seconds the store's log has to keep a record: as long as a token, or a rule about tokens.

    A rule that blocks for a day ends later; the store keeps such a record apart, among those that last.
    """
    lifetime = settings.terms.max_token_lifetime
    return lifetime + KEEP_SECONDS + MAX_LEEWAY + math.ceil(1 + MAX_KEPT_SKEW * settings.clock_skew)


def _policy(settings: Settings) -> ValidationPolicy:
    trusted = TrustedIssuer(
        issuer=settings.issuer,
        max_token_lifetime=settings.terms.max_token_lifetime,
        accept_untyped=settings.accept_untyped_tokens,
    )
    return ValidationPolicy(issuers=(trusted,), audience=settings.issuer)


def _publisher(places: Publishing, service: Service, settings: Settings) -> Publisher:
    stream = Stream(
        issuer=settings.issuer,
        name=secrets.token_urlsafe(STREAM_BYTES),
        interval=settings.list_publish_interval,
    )
    return Publisher(
        feed=service.feed,
        shelf=places.shelf,
        keys=places.keys,
        stream=stream,
        max_token_lifetime=service.terms.max_token_lifetime,
        clock=service.clock,
        clock_is_off=lambda: service.clock_is_off,
        metrics=service.metrics,
    )


def _add_publisher_check(health: Health, publisher: Publisher, settings: Settings) -> None:
    def check() -> Finding:
        turn = "none yet" if publisher.last is None else publisher.last.value
        if publisher.age() > MISSED_ISSUES * settings.list_publish_interval:
            return degraded(f"no new issue for {publisher.age():.0f} s; last turn: {turn}")
        return ok(turn)

    health.add("signed_list", check)


def _add_routes(
    app: web.Application, service: Service, settings: Settings, publisher: Publisher | None, anchor: Anchor
) -> None:
    revocations = Revocations(service)
    batches = Batches(service, revocations)
    readers = Readers(
        service,
        read_scope=settings.list_read_scope,
        open_reports=settings.open_reports,
        max_held=settings.max_held_requests,
        publisher=publisher,
    )
    app.add_routes([
        web.post("/revocations", revocations.post),
        web.post("/revocations/batch", batches.post),
        web.get("/jobs/{id:[a-z2-7]{1,64}}", batches.job),
        web.post("/jobs/{id:[a-z2-7]{1,64}}/cancel", batches.cancel),
        web.get("/revocations", readers.plan_b),
        web.get("/revocations/changes", readers.changes),
        web.get("/revocations/snapshot", readers.snapshot),
        web.get("/revocations/signed", readers.signed),
        web.get("/revocations/{id:[a-z2-7]{1,64}}", revocations.get),
        web.post("/revocations/{id:[a-z2-7]{1,64}}/undo", revocations.undo),
        web.post("/revocations/{id:[a-z2-7]{1,64}}/approve", revocations.approve),
        web.post("/oauth2/revoke", revocations.revoke_own),
        web.post("/notifications/REFRESH_FROM", revocations.refresh_from),
        web.post("/counters", service.counting.push),
        web.get("/audit", Auditing(service, anchor).get),
        web.get("/validators", readers.validators),
        web.post("/validators/reports", readers.report),
    ])  # fmt: skip


def _add_checks(health: Health, service: Service, store: OpeningStore) -> None:
    feed, skew = service.feed, service.terms.skew

    def check_list() -> Finding:
        if feed.publication is None:
            return failed(store.fault or "the store was not read completely yet")
        age = feed.age() - skew
        if age >= REFUSE_AGE_SECONDS:
            return failed(f"{feed.fault or 'no read'}; the last complete read was {age:.0f} s ago")
        if feed.fault is not None or age >= WARN_AGE_SECONDS:
            return degraded(f"{feed.fault or 'no read'}; the last complete read was {age:.0f} s ago")
        return ok(f"{len(feed.publication)} records")

    def check_keys() -> Finding:
        keys = service.held_keys()
        return ok(f"{len(keys)} keys") if keys is not None else failed("no keys of the issuer yet")

    def check_clock() -> Finding:
        if service.clock_is_off:
            return failed("the clock is off: claims and GLOBAL are taken with an issued_before only")
        return ok()

    def check_rules() -> Finding:
        rejected = service.rules.rejected
        return degraded(f"refused: {', '.join(sorted(rejected))}") if rejected else ok()

    health.add("list", check_list)
    health.add("keys", check_keys)
    health.add("clock", check_clock)
    health.add("rules", check_rules)


def _background(
    service: Service, store: OpeningStore, publisher: Publisher | None, anchor: Anchor
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def running(_app: web.Application) -> AsyncIterator[None]:
        service.keys.start()
        if service.other_keys is not None:
            service.other_keys.start()
        loops: list[Coroutine[None, None, None]] = [store.open(), service.feed.run(), service.rules.run()]
        if publisher is not None:
            loops.append(publisher.run())
        tasks = [asyncio.create_task(each) for each in [*loops, _share(service, anchor)]]
        yield
        service.feed.drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable, ConfigurationError, TimeoutError):
            await asyncio.wait_for(anchor.keep(), _LAST_HEAD_SECONDS)
        await service.feed.close()
        await asyncio.to_thread(service.keys.stop)
        if service.other_keys is not None:
            await asyncio.to_thread(service.other_keys.stop)
        await store.close()

    return running


async def _share(service: Service, anchor: Anchor) -> None:
    """Share this replica's view of the validators, what they refused, and the head of its audit log, for ever."""
    resumed = False
    while True:
        await asyncio.sleep(SHARE_SECONDS)
        await share_view(service)
        with contextlib.suppress(StoreUnavailable, ConfigurationError):
            resumed = resumed or await resume_refusals(service)
            await share_refusals(service)
        with contextlib.suppress(StoreUnavailable, ConfigurationError):
            await anchor.keep()


async def resume_refusals(service: Service) -> bool:
    """
    Go on with the refusals that this replica has counted before its restart; return that it does.

    Raises:
        StoreUnavailable: They are not known: nothing must be written over them.
    """
    kept = (await service.store.recall_members(REFUSALS)).get(service.instances.replica)
    if kept is not None:
        service.instances.refusals.resume(kept)
    return True


async def share_refusals(service: Service) -> None:
    """
    Share what validators have told this replica of refusals.

    Raises:
        StoreUnavailable: It is not known to be shared; it will be the next time.
    """
    refusals = service.instances.refusals.to_bytes(now=service.clock.now())
    await service.store.remember_member(REFUSALS, service.instances.replica, refusals, ttl_seconds=KEPT_SECONDS)


async def share_view(service: Service) -> None:
    """Share this replica's view of the validators; when that fails, the view is older for a while."""
    view = service.instances.view(now=service.clock.now())
    with contextlib.suppress(StoreUnavailable, ConfigurationError):
        await service.store.remember_member(VIEWS, service.instances.replica, view, ttl_seconds=VIEW_TTL_SECONDS)
