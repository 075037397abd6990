"""The application: the parts joined, the routes, and what runs in the background."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from tokenry.errors import TokenryError
from tokenry.serving.application import create_base_app, segment
from tokenry.serving.audit_sink import Chained, chain_name, write_to_log
from tokenry.serving.health import Health, degraded, failed, ok
from tokenry.serving.metrics import Metrics
from tokenry.serving.rate_limit import TokenBuckets
from tokenry_admin.audit import AuditLog
from tokenry_admin.documents import Documents
from tokenry_admin.handlers import KINDS, Clients, Service
from tokenry_admin.key_handlers import Keys
from tokenry_admin.metrics import AdminMetrics
from tokenry_admin.openapi import openapi_document
from tokenry_admin.raw_sync import RawSync
from tokenry_admin.rotating import Rotation, RotationMeasures
from tokenry_admin.secret_rotation import LEASE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry.serving.audit_sink import AuditSink
    from tokenry.serving.bearers import Judge
    from tokenry.serving.health import Finding
    from tokenry_admin.issuers import Settling
    from tokenry_admin.key_actions import KeyActions
    from tokenry_admin.ports import ApplicationFiles
    from tokenry_admin.settings import Settings
    from tokenry_registry.ports import WritableStore
    from tokenry_registry.signing_keys import KeyUse, StoredKey

PROBLEM_PREFIXES: Final = ("/clients", "/users", "/keys", "/raw-sync")
SWEEP_SECONDS: Final = 60.0
BURST: Final = 60.0  # requests that a caller may make at once: a page of a console asks for several
SWEEPER: Final = {"sub": "tokenry-admin"}  # who ends secrets whose time has come
ROTATOR: Final = {"sub": "tokenry-admin"}  # who rotates keys that are due

SERVICE_PARTS = web.AppKey("service_parts", Service)
_log = structlog.get_logger("tokenry_admin.app")


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    store: WritableStore,
    files: Sequence[ApplicationFiles],
    judge: Judge,
    settled: Settling,
    fetcher: Fetcher,
    keys: KeyActions | None = None,
    rotates_keys: bool = False,
    audit: AuditSink = write_to_log,
    judge_ready: Callable[[], bool] = lambda: True,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    background: bool = True,
) -> web.Application:
    """
    Return the service.

    Args:
        settings: What it is told.
        clock: Where the time comes from.
        store: The registry; closed with the application.
        files: Where applications' files are; closed with the application.
        judge: Judges callers' tokens.
        settled: Waits until the issuers have what was written.
        fetcher: Asks the revocation service.
        keys: Acts on signing keys; None: they are not administered here.
        rotates_keys: Whether they are rotated on their period, in the background.
        audit: Where audit lines go.
        judge_ready: Tells whether tokens can be judged now.
        sleep: Waits between two sweeps.
        background: Whether anything runs in the background.
    """
    health, metrics = Health(), Metrics(service="admin")
    replica = settings.instance or socket.gethostname()
    app = create_base_app(
        service="admin",
        clock=clock,
        health=health,
        metrics=metrics,
        settings=settings,
        openapi=openapi_document(raw_sync=settings.raw_sync),
        problem_prefixes=PROBLEM_PREFIXES,
    )
    service = Service(
        clock=clock,
        documents=Documents(
            store, environment=settings.environment, max_token_lifetime=int(settings.max_token_lifetime)
        ),
        judge=judge,
        limits=TokenBuckets(rate=settings.requests_per_minute / 60, burst=max(BURST, settings.requests_per_minute / 5)),
        audit=AuditLog(Chained(audit, instance=chain_name(replica), clock=clock)),
        metrics=AdminMetrics(metrics),
        files=files,
        settled=settled,
        fetcher=fetcher,
        revocation_url=settings.revocation_url,
        overlap=int(settings.rotation_overlap),
    )
    app[SERVICE_PARTS] = service
    _add_routes(app, service, raw_sync=settings.raw_sync)
    sweeper = Sweeper(service, sleep=sleep)
    rotation = None
    if keys is not None:
        handlers = Keys(service, keys)
        app.router.add_get("/keys", handlers.list)
        app.router.add_post("/keys/rotate", handlers.rotate)
        app.router.add_post("/keys/{kid}/retire", handlers.retire)
    if keys is not None and rotates_keys:
        rotation = _rotation(keys, audit=service.audit, metrics=metrics, health=health, clock=clock)
    health.add("tokens", lambda: ok() if judge_ready() else failed("tokens cannot be judged yet"))
    health.add("registry", sweeper.finding)
    loops = [sweeper.run, *([] if rotation is None else [rotation.run])] if background else []
    app.cleanup_ctx.append(_running(store, files, loops))
    return app


def _rotation(actions: KeyActions, *, audit: AuditLog, metrics: Metrics, health: Health, clock: Clock) -> Rotation:
    """Return what rotates keys; while it fails there is time, and readiness says so."""

    def finding() -> Finding:
        return ok() if rotation.trouble is None else degraded(rotation.trouble)

    def written(use: KeyUse, keys: Sequence[StoredKey]) -> None:
        audit.noted("keys rotated", actor=ROTATOR, kids=[key.kid for key in keys], use=str(use), reason="due")

    measures = RotationMeasures(metrics, last_success=lambda: rotation.last_success)
    rotation = Rotation(actions, clock=clock, observe=measures.looked, written=written)
    health.add("key_rotation", finding)
    return rotation


def _add_routes(app: web.Application, service: Service, *, raw_sync: bool) -> None:
    place = f"{segment('realm')}/{segment('name')}"
    for plural in KINDS:
        clients, one = Clients(service, plural), f"/{plural}/{place}"
        app.router.add_get(f"/{plural}", clients.page)
        app.router.add_get(one, clients.get)
        app.router.add_post(f"{one}/disable", clients.disable)
        app.router.add_post(f"{one}/enable", clients.enable)
        app.router.add_post(f"{one}/rotate-secret", clients.rotate_secret)
    if not raw_sync:
        return
    for plural, kind in KINDS.items():
        plan_b, one = RawSync(service, kind), f"/raw-sync/{plural}/{place}"
        app.router.add_put(one, plan_b.put)
        app.router.add_patch(one, plan_b.patch)
        app.router.add_delete(one, plan_b.delete)
    app.router.add_post(f"/raw-sync/users/{place}/password", plan_b.add_password)


class Sweeper:
    """Ends old secrets when their time has come, and knows whether the registry answers."""

    def __init__(self, service: Service, *, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Sweep in the service's own name."""
        self._service = service
        self._sleep = sleep
        self._fault: str | None = "the registry was not read yet"
        self._stuck = 0

    async def run(self) -> None:
        """Sweep for ever; a failure is reported, and tried again at the next turn."""
        while True:
            await self.sweep()
            await self._sleep(SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Sweep once."""
        service = self._service
        try:
            rotation = service.rotation(SWEEPER)
            await rotation.sweep()
            unfinished = await rotation.unfinished()
        except TokenryError as error:
            self._fault = str(error)
            service.metrics.swept("failed")
            _log.warning("rotations cannot be swept", error=str(error))
            return
        except Exception as error:  # noqa: BLE001
            # A driver's own exception must not end the loop, and its text may name more than we want to log.
            self._fault = type(error).__name__
            service.metrics.swept("failed")
            _log.exception("sweeping rotations broke", error=type(error).__name__)
            return
        now = service.clock.now()
        ages = [now - each.started_at for each in unfinished.values()]
        self._fault, self._stuck = None, sum(age > LEASE for age in ages)
        service.metrics.unfinished.set(len(ages))
        service.metrics.oldest_unfinished.set(max(ages, default=0))
        service.metrics.swept("done")

    def finding(self) -> Finding:
        """Tell whether the registry answers and nobody has to finish a rotation."""
        if self._fault is not None:
            return failed(self._fault)
        return degraded(f"{self._stuck} rotations were not finished: run them again") if self._stuck else ok()


def _running(
    store: WritableStore,
    files: Sequence[ApplicationFiles],
    loops: Sequence[Callable[[], Coroutine[None, None, None]]],
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(_app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(loop()) for loop in loops]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in files:
            await each.close()
        await store.close()

    return run
