"""Type-checked, never run: the types of the public names are part of the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from aiohttp import web

import tokenry
from tokenry import (
    ANY_AUDIENCE,
    AccessToken,
    ClientCredentials,
    FileTokenSource,
    InsufficientScope,
    InvalidToken,
    Reason,
    StaticTokenSource,
    TokenFetchError,
    TokenInfo,
    TokenSource,
    TokenValidator,
    ValidatorNotReady,
    default_source,
)
from tokenry.aiohttp import TOKEN, BearerAuth, auth_middleware, public, require
from tokenry.testing import FakeClock, FakeIssuer

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher


def sources() -> None:
    credentials: TokenSource = ClientCredentials(scope=["orders.read"])
    mounted: TokenSource = FileTokenSource("/meta/credentials/orders-token-secret")
    fixed: TokenSource = StaticTokenSource("abc")
    assert_type(default_source("a b", name="orders"), TokenSource)
    assert_type(credentials.get(), AccessToken)
    assert_type(mounted.get().value, str)
    assert_type(fixed.get().expires_at, float)
    assert_type(credentials.invalidate(credentials.get()), bool)


async def a_source(source: TokenSource) -> str:
    return (await source.aget()).value


async def a_client(session: ClientSession) -> BearerAuth:
    auth = BearerAuth(ClientCredentials("orders.read"), origins=["https://orders.internal"])
    async with session.get("/", middlewares=[auth]) as response:
        response.raise_for_status()
    return auth


def validation(validator: TokenValidator) -> None:
    info = validator.validate("token", scope=("orders.read",))
    assert_type(info, TokenInfo)
    assert_type(info.sub, str)
    assert_type(info.client_id, str | None)
    assert_type(info.scope, frozenset[str])
    try:
        validator.validate("token", scope="a b")
    except InvalidToken as refused:
        assert_type(refused.reason, Reason)
    except InsufficientScope as lacking:
        assert_type(lacking.missing, tuple[str, ...])
    except ValidatorNotReady as unready:
        assert_type(unready.retry_after, int)
    except TokenFetchError as failed:
        assert_type(failed.error, str | None)
    except tokenry.TokenryError:
        pass


@require("orders.read")
async def list_orders(request: web.Request) -> web.Response:
    assert_type(request[TOKEN], TokenInfo)
    return web.json_response({"caller": request[TOKEN].sub})


@require.any_of("a", "b")
async def either(_request: web.Request) -> web.Response:
    return web.Response()


@public
async def healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def application() -> web.Application:
    validator = TokenValidator("https://issuer.internal", audience="orders")
    TokenValidator("https://issuer.internal", audience=ANY_AUDIENCE)
    app = web.Application(middlewares=[auth_middleware(validator)])
    app.cleanup_ctx.append(validator.aiohttp_ctx)
    app.add_routes([web.get("/orders", list_orders), web.get("/either", either), web.get("/healthz", healthz)])
    return app


def fakes() -> None:
    clock: Clock = FakeClock()
    issuer = FakeIssuer(clock=clock)
    fetcher: Fetcher = issuer
    ClientCredentials("a", fetcher=fetcher, clock=clock)
    assert_type(issuer.token("basket", scope="a"), str)
    assert_type(issuer.validator(), TokenValidator)


# What must not type-check: an unused ignore fails the check.
TokenValidator("https://issuer.internal")  # type: ignore[call-arg]  # the audience is a choice
ClientCredentials(client_secret=5)  # type: ignore[arg-type]
BearerAuth(ClientCredentials("a"))  # type: ignore[call-arg]  # the origins are a choice
