"""The same small application in every framework, and one way to call it: headers in, status, headers and body out."""

import asyncio
import io
import json
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenry.protect import Judge, RouteAccess

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a framework answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def challenge(self) -> str | None:
        """The challenge, if there is one."""
        return self.headers.get("www-authenticate")

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """An application that can be called."""

    call: Callable[..., Answer]  # method, path, fields, and the PEM that the server tells, where it can
    routes: Callable[[], list[RouteAccess]]


async def call_asgi(
    app: Any, method: str, path: str, fields: Fields, certificate: str | None = None, *, kind: str = "http"
) -> list[dict[str, Any]]:
    """Return the messages that an ASGI application sends; *certificate* as the TLS extension tells it."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), *((name.lower().encode(), value.encode()) for name, value in fields)],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "extensions": {
            "websocket.http.response": {},
            **({} if certificate is None else {"tls": {"client_cert_chain": [certificate]}}),
        },
        "subprotocols": [],
    }
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]
    if kind == "websocket":
        incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> dict[str, Any]:
        if not incoming:
            await asyncio.sleep(3600)
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    return sent


def _answer_of(messages: Iterable[dict[str, Any]]) -> Answer:
    start = next(message for message in messages if message["type"].endswith("http.response.start"))
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    body = b"".join(message.get("body", b"") for message in messages if message["type"].endswith("http.response.body"))
    return Answer(start["status"], headers, body)


def asgi_caller(app: Any) -> Callable[..., Answer]:
    """Return how an ASGI application is called."""
    return lambda *call: _answer_of(asyncio.run(call_asgi(app, *call)))


def wsgi_caller(app: Any) -> Callable[..., Answer]:
    """Return how a WSGI application is called."""

    def call(method: str, path: str, fields: Fields, certificate: str | None = None) -> Answer:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "test",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "REMOTE_ADDR": "127.0.0.1",
        }
        if certificate is not None:
            environ["SSL_CLIENT_CERT"] = certificate
        for name, value in fields:  # as servers do it
            key = f"HTTP_{name.upper().replace('-', '_')}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        started: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            started[:] = [int(status[:3]), {name.lower(): value for name, value in headers}]
            return lambda _: None

        parts = app(environ, start_response)
        body = b"".join(parts)
        getattr(parts, "close", lambda: None)()
        return Answer(started[0], started[1], body)

    return call


# --- the application: /orders, /both, /either, /plain, /healthz ---


def aiohttp_app(validator: Judge, **naming: Any) -> Running:
    """In aiohttp."""
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    from tokenry.aiohttp import TOKEN, auth_middleware, public, require, routes

    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"caller": request[TOKEN].sub})

    async def open_handler(_request: web.Request) -> web.Response:
        return web.json_response({"caller": None})

    def make() -> web.Application:
        app = web.Application(middlewares=[auth_middleware(validator, **naming)])
        app.router.add_get("/orders", require("orders.read")(handle))
        app.router.add_get("/both", require("a", "b")(handle))
        app.router.add_get("/either", require.any_of("a", "b")(handle))
        app.router.add_get("/plain", handle)
        app.router.add_get("/healthz", public(open_handler))
        return app

    async def acall(method: str, path: str, fields: Fields) -> Answer:
        async with TestClient(TestServer(make())) as client, client.request(method, path, headers=fields) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, await response.read())

    return Running(lambda *call: asyncio.run(acall(*call)), lambda: routes(make()))


def asgi_app(validator: Judge, **naming: Any) -> Running:
    """In plain ASGI."""
    from tokenry.asgi import AuthMiddleware, current_token, require

    def answering(status: int = 200) -> Any:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            token = current_token()
            body = json.dumps({"caller": token.sub if token else None}).encode()
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})

        return app

    paths = {
        "/orders": require("orders.read")(answering()),
        "/both": require("a", "b")(answering()),
        "/either": require.any_of("a", "b")(answering()),
        "/plain": answering(),
        "/healthz": answering(),
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await paths.get(scope["path"], answering(404))(scope, receive, send)

    return Running(asgi_caller(AuthMiddleware(app, validator, public=["/healthz"], **naming)), list)


def starlette_app(validator: Judge, **naming: Any) -> Running:
    """In Starlette."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from tokenry.starlette import AuthMiddleware, public, require, routes, token_of

    async def handle(request: Request) -> JSONResponse:
        return JSONResponse({"caller": token_of(request).sub})

    def sync_handle(request: Request) -> JSONResponse:
        return JSONResponse({"caller": token_of(request).sub})

    async def open_handler(_request: Request) -> JSONResponse:
        return JSONResponse({"caller": None})

    app = Starlette(
        routes=[
            Route("/orders", require("orders.read")(handle)),
            Route("/both", require("a", "b")(sync_handle)),
            Route("/either", require.any_of("a", "b")(handle)),
            Route("/plain", handle),
            Route("/healthz", public(open_handler)),
        ],
        middleware=[Middleware(AuthMiddleware, validator=validator, **naming)],
    )
    return Running(asgi_caller(app), lambda: routes(app))


def fastapi_app(validator: Judge, **naming: Any) -> Running:
    """In FastAPI."""
    from fastapi import APIRouter, Depends, FastAPI, Security

    from tokenry.claims import TokenInfo
    from tokenry.fastapi import Bearer, RequestRefused, public, routes

    bearer = Bearer(validator, **naming)
    app = FastAPI(dependencies=[Security(bearer)])
    router = APIRouter()

    def handler(dependency: Any) -> Any:
        async def handle(token=dependency) -> dict[str, str]:  # type: ignore[no-untyped-def]
            assert isinstance(token, TokenInfo)
            return {"caller": token.sub}

        return handle

    async def healthz() -> dict[str, None]:
        return {"caller": None}

    app.get("/orders")(handler(Security(bearer, scopes=["orders.read"])))
    router.get("/both")(handler(Security(bearer, scopes=["a", "b"])))
    router.get("/either")(handler(Depends(bearer.any_of("a", "b"))))
    router.get("/plain")(handler(Security(bearer)))
    router.get("/healthz")(public(healthz))
    app.include_router(router)

    async def as_the_others(_request: Any, refused: Any) -> Any:
        from starlette.responses import Response

        refusal = refused.refusal
        return Response(refusal.body, status_code=refusal.status, headers=dict(refusal.headers))

    app.add_exception_handler(RequestRefused, as_the_others)
    return Running(asgi_caller(app), lambda: routes(app))


def wsgi_app(validator: Judge, **naming: Any) -> Running:
    """In plain WSGI."""
    from tokenry.wsgi import AuthMiddleware, require, token_of

    def answering(status: str = "200 OK") -> Any:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            token = token_of(environ)
            start_response(status, [])
            return [json.dumps({"caller": token.sub if token else None}).encode()]

        return app

    paths = {
        "/orders": require("orders.read")(answering()),
        "/both": require("a", "b")(answering()),
        "/either": require.any_of("a", "b")(answering()),
        "/plain": answering(),
        "/healthz": answering(),
    }

    def app(environ: Any, start_response: Any) -> Any:
        return paths.get(environ["PATH_INFO"], answering("404 Not Found"))(environ, start_response)

    return Running(wsgi_caller(AuthMiddleware(app, validator, public=["/healthz"], **naming)), list)


def flask_app(validator: Judge, **naming: Any) -> Running:
    """In Flask."""
    from flask import Flask, g

    import tokenry.flask as auth

    app = Flask("tokenry_test")
    auth.init_app(app, validator, **naming)

    def handle() -> dict[str, str]:
        return {"caller": g.token.sub}

    @auth.public
    def healthz() -> dict[str, None]:
        return {"caller": None}

    app.add_url_rule("/orders", "orders", auth.require("orders.read")(handle))
    app.add_url_rule("/both", "both", auth.require("a", "b")(handle))
    app.add_url_rule("/either", "either", auth.require.any_of("a", "b")(handle))
    app.add_url_rule("/plain", "plain", handle)
    app.add_url_rule("/healthz", "healthz", healthz)
    return Running(wsgi_caller(app), lambda: auth.routes(app))


def configure_django() -> None:
    """Configure Django, once in a process."""
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY=uuid.uuid4().hex,
            MIDDLEWARE=["tokenry.django.AuthMiddleware"],
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
            DATABASES={},
            LOGGING_CONFIG=None,
            USE_TZ=True,
            REST_FRAMEWORK={
                "UNAUTHENTICATED_USER": None,
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            },
        )
        django.setup()


def use_urls(patterns: list[Any]) -> str:
    """Return the name of a module with *patterns* as Django's routes."""
    from django.urls import clear_url_caches

    name = f"tokenry_test_urls_{uuid.uuid4().hex}"
    module = types.ModuleType(name)
    module.urlpatterns = patterns  # type: ignore[attr-defined]
    sys.modules[name] = module
    clear_url_caches()
    return name


def _django(
    validator: Judge,
    *,
    is_async: bool,
    realm: str | None = None,
    resource_metadata: str | None = None,
    certificate: Any = None,
    dpop: Any = None,
) -> Running:
    configure_django()
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, JsonResponse
    from django.test import override_settings
    from django.urls import path

    from tokenry.django import public, require, routes

    def handle(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"caller": request.token.sub})

    async def ahandle(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"caller": request.token.sub})

    chosen: Any = ahandle if is_async else handle

    @public
    def healthz(_request: HttpRequest) -> JsonResponse:
        return JsonResponse({"caller": None})

    urls = use_urls(
        [
            path("orders", require("orders.read")(chosen)),
            path("both", require("a", "b")(chosen)),
            path("either", require.any_of("a", "b")(chosen)),
            path("plain", chosen),
            path("healthz", healthz),
        ]
    )
    names = {"ROOT_URLCONF": urls, "TOKENRY_VALIDATOR": validator, "TOKENRY_REALM": realm}
    shown = {"TOKENRY_CERTIFICATE": certificate, "TOKENRY_DPOP": dpop}
    override = override_settings(**names, **shown, TOKENRY_RESOURCE_METADATA=resource_metadata)

    def call(*asked: Any) -> Answer:
        with override:
            return (asgi_caller(ASGIHandler()) if is_async else wsgi_caller(WSGIHandler()))(*asked)

    def listed() -> list[RouteAccess]:
        with override:
            return routes()

    return Running(call, listed)


def django_app(validator: Judge, **naming: Any) -> Running:
    """In Django, over WSGI."""
    return _django(validator, is_async=False, **naming)


def django_async_app(validator: Judge, **naming: Any) -> Running:
    """In Django, over ASGI."""
    return _django(validator, is_async=True, **naming)


APPLICATIONS: dict[str, Callable[..., Running]] = {
    "aiohttp": aiohttp_app,
    "asgi": asgi_app,
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "wsgi": wsgi_app,
    "flask": flask_app,
    "django": django_app,
    "django-async": django_async_app,
}
