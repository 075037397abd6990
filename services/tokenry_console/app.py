"""The application: everything that it needs is an argument, so that a test can hand it fakes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import structlog
from aiohttp import hdrs, web

from tokenry.errors import TokenryError
from tokenry.oauth.errors import OAuthError
from tokenry.serving.application import LEAVES_A_BODY, create_base_app, segment
from tokenry.serving.health import Finding, Health, degraded, ok
from tokenry.serving.keys import METRICS, REQUEST_ID
from tokenry.serving.metrics import Metrics
from tokenry.serving.problem import Problem
from tokenry_console.auditing import EXPORT_SECONDS, Auditing
from tokenry_console.backends import BackendError, Backends, SignedOut
from tokenry_console.changing import Changing
from tokenry_console.errands import Errands, TooBusy
from tokenry_console.history import History
from tokenry_console.login import Login
from tokenry_console.openapi import openapi_document
from tokenry_console.registry import PATIENCE_SECONDS, Registry
from tokenry_console.rendering import STATIC_CACHE, add_security_headers, page, static_files
from tokenry_console.scraping import Scraper
from tokenry_console.sessions import Forged, Sessions, TooManySessions
from tokenry_console.site import Parts, Site, see_other
from tokenry_console.visiting import LIVE, Door, NobodyThere, Refused
from tokenry_console.watching import Watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp.typedefs import Handler, Middleware

    from tokenry.clock import Clock
    from tokenry.serving.health import Check
    from tokenry.serving.outgoing import Outgoing
    from tokenry_console.ports import Randomness
    from tokenry_console.settings import Settings

SERVICE: Final = "console"
PARTS = web.AppKey("parts", Parts)
SCRAPER = web.AppKey("scraper", Scraper)
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})
ACTIONS: Final = "disable|enable|rotate-secret"
_log = structlog.get_logger("tokenry.console")


def create_app(
    settings: Settings,
    *,
    clock: Clock,
    calls: Outgoing,
    random: Randomness,
    patience: float = PATIENCE_SECONDS,
) -> web.Application:
    """
    Return the console.

    Args:
        settings: Its settings.
        clock: Where the time comes from.
        calls: Makes the calls to the services.
        random: Where ids come from that nobody may guess.
        patience: Seconds for which a page waits for a change that may take minutes.
    """
    health, metrics = Health(), Metrics(service=SERVICE)
    app = create_base_app(
        service=SERVICE,
        clock=clock,
        health=health,
        metrics=metrics,
        settings=settings,
        openapi=openapi_document(),
        quiet_routes=frozenset({"/static/{path}"}),
    )
    sessions = Sessions(
        random=random, idle=settings.session_idle, limit=settings.session_limit, max_sessions=settings.max_sessions
    )
    backends = Backends(
        calls=calls,
        deadline=settings.call_deadline,
        issuer=settings.issuer,
        tokeninfo=settings.tokeninfo_url,
        revocation=settings.revocation_url,
        admin=settings.admin_url,
    )
    history = History(settings.scraped, interval=settings.scrape_interval)
    door = Door(settings, clock=clock, sessions=sessions, backends=backends)
    errands = Errands()
    parts = Parts(
        settings=settings,
        clock=clock,
        random=random,
        door=door,
        backends=backends,
        history=history,
        errands=errands,
    )
    scraper = Scraper(history, calls=calls, clock=clock, interval=settings.scrape_interval)
    app[PARTS], app[SCRAPER] = parts, scraper
    app.middlewares.append(_answering(parts))
    app.on_response_prepare.append(add_security_headers)
    health.add("metrics", scraping_check(history))
    metrics.gauge("tokenry_console_sessions", "Sessions of people who are logged in.", function=lambda: len(sessions))
    metrics.gauge(
        "tokenry_console_places_unread",
        "Places whose metrics could not be read in the last round.",
        function=lambda: sum(1 for place in history.places.values() if place.fault is not None),
    )
    _add_routes(app, Site(parts), patience=patience)
    app.cleanup_ctx.append(_scraping(scraper, errands))
    return app


def _add_routes(app: web.Application, site: Site, *, patience: float) -> None:
    login, watching, changing = Login(site), Watching(site), Changing(site)
    registry, auditing = Registry(site, patience=patience), Auditing(site)
    client = f"/clients/{segment('realm')}/{segment('id')}"
    export = auditing.export
    export.__func__.__tokenry_deadline__ = EXPORT_SECONDS  # type: ignore[attr-defined]  # as `deadline` marks it
    app.router.add_routes(
        [
            web.get("/", watching.overview),
            web.get("/login", login.get),
            web.post("/login", login.post),
            web.post("/logout", login.logout),
            web.get("/revocations", changing.list),
            web.post("/revocations/preview", changing.preview),
            web.post("/revocations/confirm", changing.confirm),
            web.get("/revocations/{id}", changing.show),
            web.post("/revocations/{id}/undo", changing.undo),
            web.post("/revocations/{id}/approve", changing.approve),
            web.get("/propagation", watching.propagation),
            web.get("/validators", watching.validators),
            web.get("/keys", registry.keys),
            web.post("/keys/rotate", registry.rotate_keys),
            web.post("/keys/{kid}/retire", registry.retire_key),
            web.get("/clients", registry.clients),
            web.get(client, registry.client),
            web.post(f"{client}/{{action:{ACTIONS}}}", registry.change_client),
            web.get("/audit", auditing.get),
            web.post("/audit/verify", auditing.verify),
            web.get("/audit/export", export),
            web.get("/inspect", watching.inspect),
            web.post("/inspect", watching.ask_about_id),
            web.get("/static/{path:.+}", _static),
        ]
    )


async def _static(request: web.Request) -> web.Response:
    found = static_files().get(request.match_info["path"])
    if found is None:
        raise web.HTTPNotFound
    media_type, content = found
    return web.Response(
        body=content, content_type=media_type, charset="utf-8", headers={hdrs.CACHE_CONTROL: STATIC_CACHE}
    )


def _answering(parts: Parts) -> Middleware:
    """Return the middleware that makes pages of what handlers raise; one place answers."""
    door = parts.door

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in PROBES or request.path.startswith("/static/"):
            return await handler(request)
        try:
            return await handler(request)
        except SignedOut as error:
            door.logout(request)
            return _error(401, f"{error.part}: {error.cause}", error.advice)
        except NobodyThere:
            return _login_first(request)
        except TokenryError as error:
            return _refusal(error)
        except web.HTTPNotFound:
            return _error(404, "there is no such page", "The overview leads to all of them.")
        except web.HTTPMethodNotAllowed as error:
            response = _error(405, "this address takes no such request", "Go back and load the page again.")
            response.headers[hdrs.ALLOW] = ",".join(sorted(error.allowed_methods))
            return response
        except (web.HTTPException, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 -- people get a page, the log gets the fault
            return _fault(request, error)

    return answer


def _refusal(error: TokenryError) -> web.Response:
    """Return the page for a refusal; what is of no family that is known here is raised again."""
    match error:
        case Refused():
            return _error(403, error.cause, error.advice)
        case Forged():
            _log.warning("form refused", reason=str(error))
            advice = "Go back, load the page again, and send the form from there. Nothing was done."
            return _error(403, str(error), advice)
        case TooManySessions():
            return _error(503, "too many people are logged in", "Try again later.")
        case TooBusy():
            return _error(503, str(error), "Try again in a minute. Nothing was done.")
        case BackendError():
            return _error(error.page_status, f"{error.part}: {error.cause}", error.advice)
        case Problem():
            response = _error(error.status, error.detail, "Go back, and correct what was sent. Nothing was done.")
            if error.status in LEAVES_A_BODY:
                response.force_close()
            return response
        case OAuthError():
            return _error(error.status, error.description, "Go back, and correct what was sent. Nothing was done.")
        case _:
            raise error


def _fault(request: web.Request, error: Exception) -> web.Response:
    request.app[METRICS].unhandled.inc()
    _log.error("unhandled error", exc_info=error)
    advice = f"It is a fault of the console. Its log has more under {request[REQUEST_ID]}."
    return _error(500, "this page could not be made", advice)


def _login_first(request: web.Request) -> web.Response:
    if LIVE in request.headers:
        return web.Response(status=401, text="log in again")
    return see_other("/login" if request.path == "/" or request.method != "GET" else f"/login?next={_next(request)}")


def _next(request: web.Request) -> str:

    return quote(request.path_qs, safe="")


def _error(status: int, cause: str, advice: str) -> web.Response:
    return page("error.html", {"status": status, "cause": cause, "advice": advice, "live": 0}, status=status)


def scraping_check(history: History) -> Check:
    """Return the check that metrics can be read; without them the pages are there, and their plots are not."""

    def check() -> Finding:
        unread = [place.url for place in history.places.values() if place.fault is not None]
        detail = f"{len(history.places) - len(unread)} of {len(history.places)} places read"
        return degraded(detail) if unread else ok(detail)

    return check


def _scraping(scraper: Scraper, errands: Errands) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(scraper.run())
        yield
        await errands.end()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return context
