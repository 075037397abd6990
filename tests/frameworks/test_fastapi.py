import asyncio
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket

from tests.support.frameworks import asgi_caller, call_asgi
from tokenry import TokenInfo
from tokenry.fastapi import Bearer, public, routes
from tokenry.testing import FakeClock, FakeIssuer


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


@pytest.fixture
def bearer(issuer):
    return Bearer(issuer.validator())


def fields(issuer, **kind):
    return list(issuer.headers("basket", **kind).items())


def test_the_openapi_document_shows_scheme_and_scopes(bearer):
    app = FastAPI()

    @app.get("/orders")
    async def list_orders(token: Annotated[TokenInfo, Security(bearer, scopes=["orders.read"])]):
        return token.sub

    document = app.openapi()
    assert document["paths"]["/orders"]["get"]["security"] == [{"Bearer": ["orders.read"]}]
    assert document["components"]["securitySchemes"] == {
        "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert "parameters" not in document["paths"]["/orders"]["get"]


def test_scopes_of_dependencies_add_up(issuer, bearer):
    def caller(token: Annotated[TokenInfo, Security(bearer, scopes=["a"])]):
        return token.sub

    app = FastAPI()

    @app.get("/")
    async def both(name: Annotated[str, Security(caller, scopes=["b"])]):
        return name

    ask = asgi_caller(app)
    assert ask("GET", "/", fields(issuer, scope="a")).status == 403
    assert ask("GET", "/", fields(issuer, scope="b")).status == 403
    assert ask("GET", "/", fields(issuer, scope="a b")).json == "basket"
    [shown] = app.openapi()["paths"]["/"]["get"]["security"]
    assert sorted(shown["Bearer"]) == ["a", "b"]


def test_a_refusal_is_rendered_as_fastapi_does_with_the_challenge(issuer, bearer):
    app = FastAPI(dependencies=[Security(bearer)])

    @app.get("/")
    async def plain():
        return None

    ask = asgi_caller(app)
    answer = ask("GET", "/", [])
    assert (answer.status, answer.challenge, answer.json) == (401, "Bearer", {"detail": "no_token"})
    answer = ask("GET", "/", fields(issuer, expired=True))
    assert (answer.challenge, answer.json) == ('Bearer error="invalid_token"', {"detail": "invalid_token"})
    assert answer.headers["cache-control"] == "no-store"


def test_an_application_that_depends_as_a_whole_is_closed_but_for_what_is_public(issuer, bearer):
    app, router = FastAPI(dependencies=[Security(bearer)]), APIRouter(prefix="/v1")

    @router.get("/plain")
    async def plain():
        return "ok"

    @router.get("/open")
    @public
    async def is_open():
        return "ok"

    app.include_router(router, prefix="/api")
    ask = asgi_caller(app)
    assert ask("GET", "/api/v1/plain", []).status == 401
    assert ask("GET", "/api/v1/plain", fields(issuer)).status == 200
    assert ask("GET", "/api/v1/open", []).status == 200
    listed = {route.path: str(route.access) for route in routes(app)}
    assert listed["/api/v1/plain"] == "any valid token"
    assert listed["/api/v1/open"] == "public"
    assert listed["/openapi.json"] == "public"


def test_public_does_not_open_an_endpoint_that_asks_for_scopes(issuer, bearer):
    app = FastAPI(dependencies=[Security(bearer)])

    @app.get("/")
    @public
    async def contradictory(token: Annotated[TokenInfo, Security(bearer, scopes=["a"])]):
        return token.sub

    assert asgi_caller(app)("GET", "/", []).status == 401


def test_a_dependency_can_be_overridden_in_tests(issuer, bearer):
    app = FastAPI()

    @app.get("/")
    async def plain(token: Annotated[TokenInfo, Security(bearer)]):
        return token.sub

    info = issuer.validator().validate(issuer.token("someone"))
    app.dependency_overrides[bearer] = lambda: info
    assert asgi_caller(app)("GET", "/", []).json == "someone"


def test_a_websocket_needs_a_token(issuer, bearer):
    app = FastAPI()

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, token: Annotated[TokenInfo, Security(bearer, scopes=["a"])]):
        await websocket.accept()
        await websocket.send_text(token.sub)
        await websocket.close()

    def ask(headers):
        return asyncio.run(call_asgi(app, "GET", "/ws", headers, kind="websocket"))

    assert not any(message["type"] == "websocket.accept" for message in ask([]))
    assert not any(message["type"] == "websocket.accept" for message in ask(fields(issuer, scope="b")))
    sent = ask(fields(issuer, scope="a"))
    assert [message["text"] for message in sent if message["type"] == "websocket.send"] == ["basket"]


def test_any_of_is_listed_and_enforced(issuer, bearer):
    app = FastAPI()

    @app.get("/")
    async def either(token: Annotated[TokenInfo, Depends(bearer.any_of("a", "b"))]):
        return token.sub

    ask = asgi_caller(app)
    assert [ask("GET", "/", fields(issuer, scope=scope)).status for scope in ("a", "b", "c")] == [200, 200, 403]
    assert {str(route.access) for route in routes(app) if route.path == "/"} == {"a or b"}
