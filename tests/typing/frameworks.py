"""Type-checked, never run: the types of the frameworks' modules are part of the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_type

import grpc
import httpx
import httpx2
import requests
from fastapi import FastAPI, Security
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import tokenry.asgi
import tokenry.compat.tokens
import tokenry.fastapi
import tokenry.flask
import tokenry.grpc
import tokenry.httpx
import tokenry.requests
import tokenry.starlette
import tokenry.wsgi
from tokenry import ClientCredentials, Introspector, TokenInfo, TokenValidator, metrics
from tokenry.certificates import ProxyCertificate
from tokenry.dpop import Dpop

if TYPE_CHECKING:
    from concurrent.futures import Future

    from starlette.requests import Request

    from tokenry.client.access_token import AccessToken
    from tokenry.protect import Judge, RouteAccess


def judges() -> tuple[Judge, Judge]:
    remote = Introspector("https://issuer.internal", audience="orders", client_id="orders", client_secret="x")
    assert_type(remote.validate("token", scope="a"), TokenInfo)
    return TokenValidator("https://issuer.internal", audience="orders"), remote


def clients(source: ClientCredentials) -> None:
    origins = ["https://orders.internal"]
    httpx.Client(auth=tokenry.httpx.BearerAuth(source, origins=origins))
    httpx2.AsyncClient(auth=tokenry.httpx.BearerAuth(source))
    session = requests.Session()
    session.auth = tokenry.requests.BearerAuth(source, origins=origins)
    assert_type(tokenry.grpc.call_credentials(source), grpc.CallCredentials)
    future: Future[AccessToken] = source.request()
    future.cancel()


@tokenry.starlette.require("orders.read")
async def endpoint(request: Request) -> PlainTextResponse:
    assert_type(tokenry.starlette.token_of(request), TokenInfo)
    return PlainTextResponse("ok")


def starlette_application(validator: TokenValidator) -> Starlette:
    app = Starlette(
        routes=[Route("/", endpoint)],
        lifespan=validator.lifespan,
        middleware=[
            Middleware(tokenry.starlette.AuthMiddleware, validator=validator, public=["/healthz"]),
            Middleware(
                AuthenticationMiddleware,
                backend=tokenry.starlette.BearerBackend(validator),
                on_error=tokenry.starlette.on_error,
            ),
        ],
    )
    listed: list[RouteAccess] = tokenry.starlette.routes(app)
    listed.clear()
    return app


def fastapi_application(validator: TokenValidator) -> FastAPI:
    bearer = tokenry.fastapi.Bearer(validator)
    app = FastAPI(lifespan=validator.lifespan)

    @app.get("/")
    async def list_orders(token: Annotated[TokenInfo, Security(bearer, scopes=["orders.read"])]) -> str:
        return token.sub

    @app.get("/healthz")
    @tokenry.fastapi.public
    def healthz() -> str:
        return "ok"

    assert_type(healthz(), str)
    return app


def flask_application(validator: TokenValidator) -> Flask:
    app = Flask("orders")
    tokenry.flask.init_app(app, validator, public=["/static/*"])

    @app.get("/")
    @tokenry.flask.require("orders.read")
    def list_orders() -> str:
        return "ok"

    assert_type(list_orders(), str)
    app.wsgi_app = tokenry.wsgi.AuthMiddleware(app.wsgi_app, validator)  # type: ignore[method-assign]
    return app


def grpc_interceptors(validator: TokenValidator) -> None:
    grpc.aio.server(interceptors=[tokenry.grpc.ServerInterceptor(validator, {"/shop.Orders/Get": ("orders.read",)})])
    assert_type(tokenry.grpc.current_token(), TokenInfo | None)
    assert_type(tokenry.asgi.current_token(), TokenInfo | None)


def bound_tokens(validator: TokenValidator) -> None:
    dpop = Dpop("https://orders.example")
    proxy = ProxyCertificate(proxies=["10.0.0.0/8"])
    app = Flask("orders")
    tokenry.flask.init_app(app, validator, dpop=dpop, certificate=proxy)
    tokenry.fastapi.Bearer(validator, dpop=dpop, certificate=proxy)
    tokenry.starlette.BearerBackend(validator, dpop=dpop, certificate=proxy)
    tokenry.grpc.ServerInterceptor(validator, dpop=dpop)
    source = metrics.watch_source(ClientCredentials(scope=["orders.read"], dpop=True), name="orders")
    assert_type(source, ClientCredentials)
    assert_type(source.get().headers("GET", "https://orders.example/"), dict[str, str])
    ClientCredentials(assertion_file="/var/run/token", dpop="yes")  # type: ignore[arg-type]  # a choice, no word
    tokenry.asgi.AuthMiddleware(None, validator)  # type: ignore[arg-type]  # no application


def old_code() -> str:
    tokenry.compat.tokens.manage("example", ["a"])
    return tokenry.compat.tokens.get("example")


# What must not type-check: an unused ignore fails the check.
Introspector("https://issuer.internal")  # type: ignore[call-arg]  # the audience is a choice
tokenry.requests.BearerAuth("token")  # type: ignore[arg-type]  # a source, not a token
