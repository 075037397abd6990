import asyncio

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from tests.support.frameworks import asgi_caller, call_asgi
from tokenry.asgi import AuthMiddleware as PlainAuthMiddleware
from tokenry.errors import ConfigurationError
from tokenry.starlette import AuthMiddleware, BearerBackend, current_token, on_error, public, require, routes, token_of
from tokenry.testing import FakeClock, FakeIssuer


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


async def plain(request):
    return PlainTextResponse(token_of(request).sub)


@public
async def healthz(_request):
    return PlainTextResponse("ok")


class Orders(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse(token_of(request).sub)

    @require("orders.write")
    async def post(self, _request):
        return PlainTextResponse("written")


@require("admin")
class Admin(HTTPEndpoint):
    async def get(self, _request):
        return PlainTextResponse("ok")


def hidden(handler):
    """A decorator that forgets `functools.wraps`."""

    async def run(request):
        return await handler(request)

    return run


async def socket(websocket):
    await websocket.accept()
    await websocket.send_text(websocket.scope["tokenry.token"].sub)
    await websocket.close()


ROUTES = [
    Route("/plain", plain),
    Route("/healthz", healthz),
    Route("/orders", Orders),
    Route("/admin", Admin),
    Route("/hidden", hidden(require("a")(plain))),
    WebSocketRoute("/ws", socket),
    Mount("/below", routes=[Route("/plain", plain), Route("/open", healthz), Route("/scoped", require("a")(plain))]),
    Mount("/static", app=PlainTextResponse("file")),
]


def application(issuer, **naming):
    return Starlette(routes=ROUTES, middleware=[Middleware(AuthMiddleware, validator=issuer.validator(), **naming)])


@pytest.fixture
def ask(issuer):
    caller = asgi_caller(application(issuer))

    def ask(path, scope=None, *, method="GET"):
        fields = [] if scope is None else list(issuer.headers("basket", scope=scope).items())
        return caller(method, path, fields).status

    return ask


def test_mounted_routes_are_closed_and_open_as_they_are_marked(ask):
    assert (ask("/below/plain"), ask("/below/plain", "")) == (401, 200)
    assert ask("/below/open") == 200
    assert (ask("/below/scoped", "b"), ask("/below/scoped", "a")) == (403, 200)


def test_a_mounted_application_is_closed(ask):
    assert (ask("/static/x.js"), ask("/static/x.js", "")) == (401, 200)


def test_methods_of_an_endpoint_class_are_guarded_one_by_one_or_together(ask):
    assert ask("/orders", "x") == 200
    assert (ask("/orders", "x", method="POST"), ask("/orders", "orders.write", method="POST")) == (403, 200)
    assert (ask("/admin"), ask("/admin", "x"), ask("/admin", "admin")) == (401, 403, 200)


def test_scopes_hold_when_a_wrapper_hides_the_mark(ask):
    assert (ask("/hidden", "b"), ask("/hidden", "a")) == (403, 200)


def test_a_required_scope_without_the_middleware_runs_nothing():
    with pytest.raises(RuntimeError, match="without the middleware"):
        asgi_caller(Starlette(routes=[Route("/", require("a")(plain))]))("GET", "/", [])
    with pytest.raises(RuntimeError, match="no verified token"):
        asgi_caller(Starlette(routes=[Route("/", plain)]))("GET", "/", [])


def test_public_paths_are_open_and_nothing_beside_them(issuer):
    caller = asgi_caller(application(issuer, public=["/static/*", "/health"]))
    assert caller("GET", "/static/a/b.js", []).status == 200
    for path in ("/static", "/staticx", "/static/../plain", "/static//plain", "/static/.\\plain", "/static/./x"):
        assert caller("GET", path, []).status == 401, path


@pytest.mark.parametrize("path", ["static", "/*/x", "", "*"])
def test_a_public_path_has_a_form(issuer, path):
    with pytest.raises(ConfigurationError):
        PlainAuthMiddleware(plain, issuer.validator(), public=[path])


@pytest.mark.parametrize("extensions", [{"websocket.http.response": {}}, {}])
def test_a_websocket_needs_a_token(issuer, extensions):
    app = application(issuer)

    async def inner(scope, receive, send):
        await app({**scope, "extensions": extensions}, receive, send)

    sent = asyncio.run(call_asgi(inner, "GET", "/ws", [], kind="websocket"))
    if extensions:
        assert [message["type"] for message in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == 401
    else:
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    fields = list(issuer.headers("basket").items())
    sent = asyncio.run(call_asgi(inner, "GET", "/ws", fields, kind="websocket"))
    assert [message.get("text") for message in sent if message["type"] == "websocket.send"] == ["basket"]


def test_the_caller_is_known_everywhere_in_the_request_and_nowhere_outside(issuer):
    seen = []

    def in_a_thread(_request):
        seen.append(current_token().sub)
        return PlainTextResponse("ok", background=BackgroundTask(lambda: seen.append(current_token().sub)))

    app = Starlette(
        routes=[Route("/", in_a_thread)], middleware=[Middleware(AuthMiddleware, validator=issuer.validator())]
    )
    asgi_caller(app)("GET", "/", list(issuer.headers("basket").items()))
    assert seen == ["basket", "basket"]
    assert current_token() is None


def test_a_forged_entry_in_the_scope_is_overwritten(issuer):
    async def app(scope, _receive, send):
        assert scope["tokenry.token"] is None
        await PlainTextResponse("ok")(scope, _receive, send)

    guarded = PlainAuthMiddleware(app, issuer.validator(), public=["/"])

    async def inner(scope, receive, send):
        await guarded({**scope, "tokenry.token": "forged"}, receive, send)

    assert asgi_caller(inner)("GET", "/", []).status == 200


def test_the_list_of_routes_shows_what_is_open(issuer):
    listed = {(route.method, route.path): str(route.access) for route in routes(application(issuer))}
    assert listed["GET", "/below/open"] == "public"
    assert listed["GET", "/below/scoped"] == "a"
    assert listed["*", "/orders"] == "any valid token"
    assert listed["*", "/static/*"] == "any valid token"
    unprotected = Starlette(routes=ROUTES)
    assert {str(route.access) for route in routes(unprotected) if route.path == "/plain"} == {"public"}


# --- Starlette's own authentication ---


@requires("orders.read")
async def list_orders(request):
    return JSONResponse({"caller": request.user.info.sub, "name": request.user.display_name})


def own_authentication(issuer):
    backend = BearerBackend(issuer.validator(), realm="orders")
    return Starlette(
        routes=[Route("/orders", list_orders), Route("/open", healthz)],
        middleware=[Middleware(AuthenticationMiddleware, backend=backend, on_error=on_error)],
    )


def test_starlettes_own_requires_goes_on_working(issuer):
    caller = asgi_caller(own_authentication(issuer))

    def ask(path, **kind):
        return caller("GET", path, list(issuer.headers("basket", **kind).items()))

    assert ask("/orders", scope="orders.read").json == {"caller": "basket", "name": "basket"}
    assert ask("/orders", scope="other").status == 403
    assert caller("GET", "/orders", []).status == 403  # as Starlette has it
    assert caller("GET", "/open", []).status == 200
    refused = ask("/orders", scope="orders.read", expired=True)
    assert (refused.status, refused.challenge) == (401, 'Bearer realm="orders", error="invalid_token"')
    assert refused.json == {"error": "invalid_token"}


async def test_over_httpx_with_the_lifespan_of_a_real_validator():
    from tokenry import TokenValidator

    with FakeIssuer() as issuer:
        validator = TokenValidator(issuer.issuer, audience=issuer.audience)
        app = Starlette(
            routes=ROUTES, lifespan=validator.lifespan, middleware=[Middleware(AuthMiddleware, validator=validator)]
        )
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client,
        ):
            assert (await client.get("/plain")).status_code == 401
            assert (await client.get("/plain", headers=issuer.headers("basket"))).text == "basket"
