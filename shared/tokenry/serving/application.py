"""
The application that every service starts from.

    app = create_base_app(service="issuer", clock=clock, health=health, metrics=metrics, settings=settings,
                          openapi=OPENAPI)
    app.router.add_post("/oauth2/token", handler)
    ...
    run(lambda: create_app(settings), settings, service="issuer")              # see tokenry.serving.server

What a handler can count on:

* It raises, and one place answers: `OAuthError` and `Problem` as they say; `InvalidToken` 401,
  `InsufficientScope` 403 and `ValidatorNotReady` 503 in the words of RFC 6750; a `web.HTTPException` keeps
  its status and headers and gets our body; anything else becomes `server_error` with the request id and
  without its text. Below the *problem_prefixes* the body is a problem document (RFC 9457), elsewhere OAuth's
  error object.
* `request[REQUEST_ID]`, `request[CLIENT_ADDRESS]`, `app[CLOCK]`, `app[HEALTH]`, `app[METRICS]`,
  `app[SETTINGS]` (all in `tokenry.serving.keys`).
* Bodies are read by `read_body` alone (size, deadline, no content coding); never by `request.post()`, which
  answers 500 to an odd charset and hands out uploaded files where text was expected.
* `authorization_values(request)` gives *all* Authorization fields; `request.headers[...]` hides the second.
* An answer carries `Cache-Control: no-store`, unless the handler set its own, and `X-Request-Id`.
* After `settings.request_deadline` a request is answered 503; `@deadline(seconds)` on a handler changes that,
  `@deadline(None)` lifts it for one that waits or streams on purpose.

There are `/healthz`, `/readyz` (`?verbose`), `/openapi.json`, and `/metrics` unless it has a port of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from contextlib import nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from aiohttp import HttpVersion10, hdrs, web
from multidict import istr

from tokenry.errors import InsufficientScope, InvalidToken, ValidatorNotReady
from tokenry.jose.encoding import dump_json
from tokenry.oauth.errors import OAuthError, bearer_challenge, server_error, temporarily_unavailable
from tokenry.serving.access_log import dropped_lines, record_request
from tokenry.serving.addresses import FORWARDED_FOR, client_address
from tokenry.serving.keys import (
    CLIENT_ADDRESS,
    CLOCK,
    HEALTH,
    METRICS,
    REQUEST_ID,
    SERVICE,
    SETTINGS,
    current_request_id,
)
from tokenry.serving.metrics import CONTENT_TYPE, KNOWN_METHODS, OTHER_METHOD, UNMATCHED_ROUTE
from tokenry.serving.problem import PROBLEM_JSON, Problem
from tokenry.serving.pulse import Pulse, Watchdog
from tokenry.serving.tracing import TRACES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aiohttp.typedefs import Handler

    from tokenry.clock import Clock
    from tokenry.serving.health import Health
    from tokenry.serving.metrics import LoopSeries, Metrics
    from tokenry.serving.settings import ServiceSettings

__all__ = [
    "LEAVES_A_BODY",
    "MAX_BODY_BYTES",
    "authorization_values",
    "create_base_app",
    "deadline",
    "read_body",
    "refusal_of",
    "request_id_of",
    "request_ids",
]

MAX_BODY_BYTES = 65_536  # a form with a token of 8 KiB, fully percent-encoded, takes less than half
OPERATIONS_ROUTES = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/health"})

_REQUEST_ID_FIELD = istr("X-Request-Id")  # lowered once
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = structlog.get_logger("tokenry.serving.access")
_H = TypeVar("_H", bound="Callable[..., Awaitable[web.StreamResponse]]")


def create_base_app(
    *,
    service: str,
    clock: Clock,
    health: Health,
    metrics: Metrics,
    settings: ServiceSettings,
    openapi: Mapping[str, Any],
    problem_prefixes: tuple[str, ...] = (),
    quiet_routes: frozenset[str] = frozenset(),
    max_body_bytes: int = MAX_BODY_BYTES,
    new_request_id: Callable[[], str] | None = None,
) -> web.Application:
    """
    Return an application with everything that all services share, to which a service adds its routes.

    Args:
        service: Name of the service in logs and metrics.
        clock: Where the time comes from.
        health: The service's checks, answered at `/readyz`.
        metrics: The application's metrics.
        settings: The service's settings.
        openapi: Its OpenAPI document, served at `/openapi.json`.
        problem_prefixes: Paths below which errors are problem documents.
        quiet_routes: Route templates whose successes are logged at debug only (the hot path).
        max_body_bytes: The most that aiohttp itself reads of a body; `read_body` has a limit of its own.
        new_request_id: Where the ids of requests come from that bring none.
    """
    front = _Front(
        clock=clock,
        metrics=metrics,
        settings=settings,
        problem_prefixes=problem_prefixes,
        quiet_routes=quiet_routes | OPERATIONS_ROUTES,
        new_request_id=new_request_id or request_ids(),
    )

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await front.handle(request, handler)

    app = web.Application(middlewares=[around], client_max_size=max_body_bytes)
    app[SERVICE], app[CLOCK], app[HEALTH] = service, clock, health
    app[METRICS], app[SETTINGS] = metrics, settings
    metrics.watch(clock=clock, ready=lambda: health.report().ready, dropped_lines=dropped_lines)
    app.on_response_prepare.append(_finish_headers)
    pulse = Pulse(metrics)
    health.add("event_loop", pulse.finding)
    app.cleanup_ctx.append(_watching(pulse))
    add_operations_routes(app, with_metrics=settings.metrics_listen_address is None)
    document = dump_json(dict(openapi))

    async def get_openapi(_request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    app.router.add_get("/openapi.json", get_openapi)
    return app


def add_operations_routes(app: web.Application, *, with_metrics: bool) -> None:
    """Add `/healthz`, `/readyz` and, *with_metrics*, `/metrics`."""
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    if with_metrics:
        app.router.add_get("/metrics", _metrics)


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    report = request.app[HEALTH].report()
    status = HTTPStatus.OK if report.ready else HTTPStatus.SERVICE_UNAVAILABLE
    if "verbose" in request.query:
        return web.Response(body=dump_json(report.body()), status=status, content_type="application/json")
    return web.Response(text="ready\n" if report.ready else "not ready\n", status=status)


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[METRICS].render(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})


# --- reading a request ------------------------------------------------------------------------------------


async def read_body(request: web.Request, *, limit: int = MAX_BODY_BYTES, deadline: float | None = None) -> bytes:
    """
    Return the body of *request* as it was sent.

    Args:
        request: The request.
        limit: The most bytes to take.
        deadline: Seconds within which the whole body must have come; None for what the settings say.

    Raises:
        Problem: 413 above *limit*, 408 after *deadline*, 415 for a content coding; the connection is closed.
    """
    coding = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, [])).strip().lower()
    if coding not in {"", "identity"}:
        raise Problem(415, "send the body without Content-Encoding")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if deadline is None:
        deadline = request.app[SETTINGS].body_deadline
    body = bytearray()
    # A body that is there already is not waited for: no timer is needed.
    waited = None if request.content.is_eof() else deadline
    try:
        async with asyncio.timeout(waited) if waited is not None else _NO_TIMER:
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {deadline:g} seconds") from None
    except web.PayloadAccessError:
        raise Problem(400, "the body can be read once only") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body is malformed") from None
    return bytes(body)


_NO_TIMER = nullcontext()


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes")


def authorization_values(request: web.BaseRequest) -> list[str]:
    """Return every Authorization field of *request*: two of them are the caller's fault, not a choice."""
    return request.headers.getall(hdrs.AUTHORIZATION, [])


def segment(name: str) -> str:
    """Return the part of a route that takes one segment of a path as *name*, braces included, unlike `{name}`."""
    return f"{{{name}:[^/]+}}"


def deadline(seconds: float | None) -> Callable[[_H], _H]:
    """Give a handler *seconds* in place of the setting's; None: it may wait as long as it wants."""

    def mark(handler: _H) -> _H:
        handler.__tokenry_deadline__ = seconds  # type: ignore[attr-defined]  # a mark of ours
        return handler

    return mark


# --- refusing ---------------------------------------------------------------------------------------------


def refusal_of(error: Exception) -> OAuthError | Problem | None:
    """Return the answer that *error* stands for; None for one that is a fault of ours."""
    if isinstance(error, OAuthError | Problem):
        return error
    if isinstance(error, InvalidToken):
        challenge = bearer_challenge(error="invalid_token", description="Access Token not valid")
        return OAuthError(
            "invalid_token", "Access Token not valid", status=401, headers=[("WWW-Authenticate", challenge)]
        )
    if isinstance(error, InsufficientScope):
        challenge = bearer_challenge(error="insufficient_scope", scope=error.missing)
        return OAuthError(
            "insufficient_scope",
            f"the access token lacks the scope {' '.join(error.missing)}",
            status=403,
            headers=[("WWW-Authenticate", challenge)],
        )
    if isinstance(error, ValidatorNotReady):
        return temporarily_unavailable("tokens cannot be judged now", retry_after=error.retry_after)
    if isinstance(error, web.HTTPException):
        return _of_http_exception(error)
    return None


def _of_http_exception(error: web.HTTPException) -> Problem:
    kept = [
        (name, value) for name, value in error.headers.items() if name not in {hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH}
    ]
    detail = {
        HTTPStatus.NOT_FOUND: "there is nothing here",
        HTTPStatus.METHOD_NOT_ALLOWED: "this method is not allowed here",
    }.get(HTTPStatus(error.status), HTTPStatus(error.status).phrase)
    return Problem(error.status, detail, headers=kept)


def _oauth_form(refusal: OAuthError | Problem, request_id: str) -> dict[str, Any]:
    if isinstance(refusal, OAuthError):
        return dict(refusal.body())
    if refusal.status in {429, 503}:
        code = "temporarily_unavailable"
    elif refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return dict(server_error(request_id).body())
    else:
        code = "invalid_request"
    return dict(OAuthError(code, refusal.detail).body())


def _problem_form(refusal: OAuthError | Problem) -> dict[str, Any]:
    if isinstance(refusal, Problem):
        return refusal.body()
    return Problem(refusal.status, refusal.description, members={"error": refusal.code}).body()


LEAVES_A_BODY = frozenset({
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
})  # fmt: skip
"""Refusals of a body that is not read to its end: what is left of it is of no interest, and the connection closes."""


def render_refusal(refusal: OAuthError | Problem, *, as_problem: bool, request_id: str = "") -> web.Response:
    """Return *refusal* as an answer, in the form of RFC 9457 or of RFC 6749 section 5.2."""
    body = _problem_form(refusal) if as_problem else _oauth_form(refusal, request_id)
    response = web.Response(
        status=refusal.status,
        body=dump_json(body),
        content_type=PROBLEM_JSON if as_problem else "application/json",
    )
    for name, value in refusal.headers:
        response.headers.add(name, value)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.setdefault(hdrs.PRAGMA, "no-cache")
    if refusal.status in LEAVES_A_BODY:
        response.force_close()
    return response


# --- around every request ---------------------------------------------------------------------------------


class _Front:
    """What surrounds every request: one middleware, because each costs every request a call and a frame."""

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        settings: ServiceSettings,
        problem_prefixes: tuple[str, ...],
        quiet_routes: frozenset[str],
        new_request_id: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._deadline = settings.request_deadline
        self._proxies = settings.trusted_proxies
        self._verbose = settings.log_level == "debug"
        self._problem_prefixes = problem_prefixes
        self._quiet_routes = quiet_routes
        self._new_request_id = new_request_id
        self._timers: dict[tuple[str, str, int], LoopSeries] = {}

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = self._clock.monotonic()
        request_id = request[REQUEST_ID] = request_id_of(request.headers, self._new_request_id)
        reset = current_request_id.set(request_id)
        request[CLIENT_ADDRESS] = self._caller(request)
        self._metrics.in_flight += 1
        traces = request.app.get(TRACES)
        try:
            if traces is None:
                return await self._observed(request, handler, began)
            with traces.request(request.headers, method=_method(request), request_id=request_id) as span:
                response = await self._observed(request, handler, began)
                span.answered(method=_method(request), route=_route(request), status=response.status)
                return response
        finally:
            self._metrics.in_flight -= 1
            current_request_id.reset(reset)

    async def _observed(self, request: web.Request, handler: Handler, began: float) -> web.StreamResponse:
        response = await self._answer(request, handler)
        seconds = self._clock.monotonic() - began
        self._observe(request, response.status, seconds)
        self._log_access(request, response.status, seconds)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        limit = getattr(request.match_info.handler, "__tokenry_deadline__", self._deadline)
        try:
            if request.version < HttpVersion10:
                raise Problem(400, "speak HTTP/1.1")  # noqa: TRY301 -- one place answers
            async with asyncio.timeout(limit) as timer:
                return await handler(request)
        except TimeoutError as error:
            if not timer.expired():
                return self._fault(request, error)
            _log.warning("request deadline passed", route=_route(request), seconds=limit)
            return self._refuse(request, temporarily_unavailable("this takes too long now", retry_after=2))
        except Exception as error:
            if isinstance(error, web.HTTPException) and error.status < HTTPStatus.BAD_REQUEST:
                raise  # a redirect or the like, meant as it is
            return self._refused(request, error)

    def _refused(self, request: web.Request, error: Exception) -> web.Response:
        """
        Answer *error*.

        Elsewhere than where it was caught: a refusal that is the error itself would, in a local there, hold its own
        frames, and with them what was sent, until the garbage collector comes.
        """
        refusal = refusal_of(error)
        return self._fault(request, error) if refusal is None else self._refuse(request, refusal)

    def _fault(self, request: web.Request, error: Exception) -> web.Response:
        self._metrics.unhandled.inc()
        _log.error("unhandled error", route=_route(request), exc_info=error)
        return self._refuse(request, server_error(request[REQUEST_ID]))

    def _refuse(self, request: web.Request, refusal: OAuthError | Problem) -> web.Response:
        as_problem = request.path.startswith(self._problem_prefixes)
        return render_refusal(refusal, as_problem=as_problem, request_id=request[REQUEST_ID])

    def _caller(self, request: web.Request) -> str:
        forwarded = request.headers.getall(FORWARDED_FOR, []) if self._proxies else ()
        return client_address(request.remote, forwarded_for=forwarded, trusted_proxies=self._proxies)

    def _observe(self, request: web.Request, status: int, seconds: float) -> None:
        key = (_method(request), _route(request), status)
        timer = self._timers.get(key)
        if timer is None:
            timer = self._timers[key] = self._metrics.requests.labels(key[0], key[1], str(status))
        timer.observe(seconds)

    def _log_access(self, request: web.Request, status: int, seconds: float) -> None:
        route = _route(request)
        if status < HTTPStatus.BAD_REQUEST and route in self._quiet_routes and not self._verbose:
            return
        record_request(
            method=_method(request),
            route=route,
            status=status,
            seconds=seconds,
            client_address=request[CLIENT_ADDRESS],
        )


def _method(request: web.Request) -> str:
    return request.method if request.method in KNOWN_METHODS else OTHER_METHOD


def request_ids() -> Callable[[], str]:
    """Return what makes ids of requests: unlike those of any other process, and otherwise only counted."""
    prefix, number = secrets.token_hex(6), itertools.count()
    return lambda: f"{prefix}{next(number):08x}"


def request_id_of(headers: Mapping[str, str], new_request_id: Callable[[], str]) -> str:
    """Return the id that *headers* bring along, if it is a sane one, or else a new one."""
    given = headers.get(_REQUEST_ID_FIELD)
    if given is not None and _SANE_REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return UNMATCHED_ROUTE if resource is None else resource.canonical


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    headers = response.headers
    headers.popall(hdrs.SERVER, None)
    headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    request_id = request.get(REQUEST_ID)
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    if request.app[HEALTH].draining:
        # The caller's next request goes to another instance, not into a connection that is being closed.
        response.force_close()
        headers[hdrs.CONNECTION] = "close"


def _watching(pulse: Pulse) -> Callable[[web.Application], AsyncIterator[None]]:
    async def watch(_app: web.Application) -> AsyncIterator[None]:
        watchdog = Watchdog(pulse)
        watchdog.start()
        yield
        await watchdog.stop()

    return watch
