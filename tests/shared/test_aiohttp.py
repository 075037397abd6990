import asyncio
import functools

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tokenry.aiohttp import TOKEN, BearerAuth, auth_middleware, public, require
from tokenry.client.access_token import AccessToken
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture
async def serve():
    clients = []

    async def serve(app):
        client = TestClient(TestServer(app))
        clients.append(client)
        await client.start_server()
        return client

    yield serve
    for client in clients:
        await client.close()


# --- server ---


@require("orders.read")
async def list_orders(request):
    return web.json_response({"caller": request[TOKEN].sub})


@require("a", "b")
async def both(request):
    return web.Response(text="ok")


@require.any_of("a", "b")
async def either(request):
    return web.Response(text="ok")


@public
async def healthz(request):
    return web.Response(text="ok")


async def plain(request):
    return web.Response(text=request[TOKEN].sub)


async def socket(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.send_str(request[TOKEN].sub)
    await ws.close()
    return ws


class Orders(web.View):
    async def get(self):
        return web.Response(text=self.request[TOKEN].sub)

    @require("orders.write")
    async def post(self):
        return web.Response(text="written")


@require("admin")
class Admin(web.View):
    async def get(self):
        return web.Response(text="ok")


def unmarked(handler):
    """A decorator that forgets `functools.wraps`, as they do."""

    async def run(request):
        return await handler(request)

    return run


def make_app(validator):
    app = web.Application(middlewares=[auth_middleware(validator)])
    app.cleanup_ctx.append(validator.aiohttp_ctx)
    app.add_routes(
        [
            web.get("/orders", list_orders),
            web.get("/both", both),
            web.get("/either", either),
            web.get("/healthz", healthz),
            web.get("/plain", plain),
            web.get("/ws", socket),
            web.view("/view", Orders),
            web.view("/admin", Admin),
            web.get("/partial", functools.partial(both)),
            web.get("/unmarked", unmarked(both)),
        ]
    )
    return app


@pytest.fixture
async def client(serve, issuer):
    return await serve(make_app(issuer.validator()))


async def status(client, path, headers=None, method="GET"):
    async with client.request(method, path, headers=headers) as response:
        return response.status


async def test_needs_scope(client, issuer):
    good = await client.get("/orders", headers=issuer.headers("basket", scope="orders.read"))
    bad = await client.get("/orders", headers=issuer.headers("basket", scope="other"))
    assert (good.status, bad.status) == (200, 403)
    assert await good.json() == {"caller": "basket"}
    assert bad.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="orders.read"'


async def test_revoked(client, issuer):
    token = issuer.token("basket", scope="orders.read")
    issuer.revoke(token)
    assert await status(client, "/orders", {"Authorization": f"Bearer {token}"}) == 401


async def test_without_a_token_the_challenge_is_bare(client):
    async with client.get("/orders") as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.headers["Cache-Control"] == "no-store"
        assert await response.read() == b""


@pytest.mark.parametrize(
    "bad",
    [{"expired": True}, {"wrong_key": True}, {"alg": "none"}, {"audience": "other"}, {"claims": {"iat": None}}],
)
async def test_a_bad_token_is_refused_with_the_same_words_whatever_the_reason(client, issuer, bad):
    async with client.get("/orders", headers=issuer.headers(scope="orders.read", **bad)) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert await response.json() == {"error": "invalid_token"}


async def test_two_headers_are_a_bad_request(client, issuer):
    one, two = issuer.headers()["Authorization"], issuer.headers()["Authorization"]
    async with client.get("/plain", headers=[("Authorization", one), ("Authorization", two)]) as response:
        assert response.status == 400
        assert (await response.json())["error"] == "invalid_request"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
async def test_the_scheme_is_read_in_any_case(client, issuer, scheme):
    assert await status(client, "/plain", {"Authorization": f"{scheme} {issuer.token()}"}) == 200


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Negotiate x"])
async def test_another_scheme_is_no_token(client, header):
    async with client.get("/plain", headers={"Authorization": header}) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_a_token_in_the_query_string_is_ignored(client, issuer):
    assert await status(client, f"/plain?access_token={issuer.token()}") == 401


async def test_what_is_not_marked_needs_any_valid_token(client, issuer):
    assert await status(client, "/plain") == 401
    assert await status(client, "/plain", issuer.headers()) == 200


async def test_public_is_open_also_with_a_bad_token(client, issuer):
    assert await status(client, "/healthz") == 200
    assert await status(client, "/healthz", issuer.headers(expired=True)) == 200


async def test_routes_that_do_not_exist_and_methods_that_are_not_allowed_need_a_token_too(client, issuer):
    assert await status(client, "/nowhere") == 401
    assert await status(client, "/nowhere", issuer.headers()) == 404
    assert await status(client, "/plain", method="DELETE") == 401
    assert await status(client, "/plain", issuer.headers(), method="DELETE") == 405
    assert await status(client, "/plain", method="OPTIONS") == 401


async def test_a_websocket_needs_a_token(client, issuer):
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await client.ws_connect("/ws")
    assert caught.value.status == 401
    async with client.ws_connect("/ws", headers=issuer.headers("basket")) as ws:
        assert await ws.receive_str() == "basket"


async def test_all_of_and_any_of(client, issuer):
    for scope, all_of, any_of in (("a b", 200, 200), ("a", 403, 200), ("b", 403, 200), ("c", 403, 403)):
        headers = issuer.headers(scope=scope)
        assert await status(client, "/both", headers) == all_of, scope
        assert await status(client, "/either", headers) == any_of, scope


async def test_methods_of_a_view_are_guarded_one_by_one_or_together(client, issuer):
    reader, writer, admin = (issuer.headers(scope=scope) for scope in ("x", "orders.write", "admin"))
    assert await status(client, "/view", reader) == 200
    assert await status(client, "/view", reader, method="POST") == 403
    assert await status(client, "/view", writer, method="POST") == 200
    assert await status(client, "/admin", writer) == 403
    assert await status(client, "/admin", admin) == 200
    assert await status(client, "/admin") == 401


@pytest.mark.parametrize("path", ["/partial", "/unmarked"])
async def test_scopes_hold_when_a_wrapper_hides_the_mark(client, issuer, path):
    assert await status(client, path, issuer.headers(scope="a")) == 403
    assert await status(client, path, issuer.headers(scope="a b")) == 200


@pytest.mark.parametrize("handler", [list_orders, Admin])
async def test_a_required_scope_without_the_middleware_runs_nothing(serve, handler, caplog):
    app = web.Application()
    app.router.add_route("GET", "/", handler)
    assert await status(await serve(app), "/") == 500
    assert "without auth_middleware" in caplog.text


async def test_a_validator_that_cannot_judge_is_503_and_never_401(client, issuer, clock):
    headers = issuer.headers(scope="orders.read", lifetime=3600)
    issuer.down = True
    clock.advance(minutes=20)
    async with client.get("/orders", headers=headers) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "WWW-Authenticate" not in response.headers
        assert (await response.json())["error"] == "temporarily_unavailable"


async def test_a_realm_can_be_named(serve, issuer):
    app = web.Application(middlewares=[auth_middleware(issuer.validator(), realm="orders")])
    async with (await serve(app)).get("/") as response:
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="orders"'


async def test_sub_applications_are_closed_too(serve, issuer):
    sub = web.Application()
    sub.add_routes([web.get("/open", healthz), web.get("/orders", list_orders)])
    app = web.Application(middlewares=[auth_middleware(issuer.validator())])
    app.add_subapp("/sub", sub)
    client = await serve(app)
    assert await status(client, "/sub/open") == 200
    assert await status(client, "/sub/orders") == 401
    assert await status(client, "/sub/orders", issuer.headers(scope="orders.read")) == 200


@pytest.mark.parametrize("scopes", [(), ("",), (list_orders,), ('a"b',)])
def test_a_decorator_without_scopes_is_a_mistake(scopes):
    with pytest.raises(Exception, match="scope"):
        require(*scopes)


# --- among other middlewares ---


@web.middleware
async def in_a_task(request, handler):
    return await asyncio.create_task(handler(request))


@web.middleware
async def catching(request, handler):
    answer = handler(request)
    try:
        return await answer
    except (ZeroDivisionError, web.HTTPGone, TimeoutError) as error:
        return web.Response(text=type(error).__name__)


@web.middleware
async def impatient(request, handler):
    async with asyncio.timeout(0.05):
        return await handler(request)


@web.middleware
async def seeing_the_token(request, handler):
    answer = await handler(request)
    answer.headers["Caller"] = request[TOKEN].sub if TOKEN in request else ""
    return answer


@pytest.mark.parametrize("around", [[], [in_a_task], [seeing_the_token, in_a_task]], ids=["alone", "task", "two"])
@pytest.mark.parametrize("within", [[], [in_a_task], [seeing_the_token, in_a_task]], ids=["alone", "task", "two"])
async def test_other_middlewares_stand_around_it_and_within_it(serve, issuer, around, within):
    app = make_app(issuer.validator())
    app.middlewares[:] = [*around, *app.middlewares, *within]
    client = await serve(app)
    headers = issuer.headers("basket", scope="a b")
    assert await status(client, "/healthz") == 200
    for path, expected in (("/plain", 200), ("/both", 200), ("/orders", 403), ("/nowhere", 404)):
        assert await status(client, path, headers) == expected, path
    assert await status(client, "/plain") == 401
    if not within:  # nobody can make a task of a view itself
        assert await status(client, "/view", headers) == 200
        async with client.ws_connect("/ws", headers=headers) as ws:
            assert await ws.receive_str() == "basket"


@pytest.mark.parametrize("ours_is_outside", [False, True])
async def test_what_a_handler_raises_reaches_the_middlewares_around_it(serve, issuer, ours_is_outside):
    async def divide(request):
        return web.Response(text=str(1 // 0))

    async def gone(request):
        raise web.HTTPGone

    async def endless(request):
        await asyncio.Event().wait()

    ours = auth_middleware(issuer.validator())
    others = [catching, impatient]
    app = web.Application(middlewares=[ours, *others] if ours_is_outside else [*others, ours])
    app.add_routes([web.get("/divide", divide), web.get("/gone", gone), web.get("/endless", endless)])
    client = await serve(app)
    for path, name in (("/divide", "ZeroDivisionError"), ("/gone", "HTTPGone"), ("/endless", "TimeoutError")):
        async with client.get(path, headers=issuer.headers()) as response:
            assert await response.text() == name


async def test_what_fails_before_the_handler_reaches_whoever_awaits_it(serve, issuer):
    def broken(request):
        return 1 // 0

    app = web.Application(middlewares=[catching, auth_middleware(issuer.validator(), certificate=broken)])
    app.add_routes([web.get("/plain", plain)])
    async with (await serve(app)).get("/plain", headers=issuer.headers()) as response:
        assert await response.text() == "ZeroDivisionError"


async def test_a_judge_that_has_to_wait_is_waited_for(serve, issuer):
    validator = issuer.validator()

    class Waiting:
        async def avalidate(self, token, **shown):
            await asyncio.sleep(0)
            return await validator.avalidate(token, **shown)

    app = web.Application(middlewares=[in_a_task, auth_middleware(Waiting(), realm="orders")])
    app.add_routes([web.get("/plain", plain), web.get("/unmarked", unmarked(both)), web.view("/view", Orders)])
    client = await serve(app)
    assert await status(client, "/plain") == 401
    assert await status(client, "/plain", issuer.headers()) == 200
    assert await status(client, "/view", issuer.headers()) == 200
    assert await status(client, "/unmarked", issuer.headers(scope="a")) == 403


@pytest.mark.parametrize("options", [{}, {"realm": "orders"}, {"resource_metadata": "https://o.test/m"}])
async def test_a_refusal_behind_a_hidden_mark_is_that_of_the_middleware(serve, issuer, options):
    app = web.Application(middlewares=[auth_middleware(issuer.validator(), **options)])
    app.add_routes([web.get("/both", both), web.get("/unmarked", unmarked(both))])
    client = await serve(app)
    found = []
    for path in ("/both", "/unmarked"):
        async with client.get(path, headers=issuer.headers(scope="a")) as response:
            found.append((response.status, response.headers["WWW-Authenticate"]))
    assert found[0] == found[1]
    assert found[0][0] == 403


# --- client ---


class Source:
    """A source of numbered tokens."""

    def __init__(self, *, broken_after=None):
        self.number = 1
        self.dropped = []
        self.broken_after = broken_after
        self.allows = True

    def get(self):
        return AccessToken(value=f"token-{self.number}", expires_at=0)

    async def aget(self):
        await asyncio.sleep(0)
        if self.broken_after is not None and self.number > self.broken_after:
            raise TokenFetchError("no other one")
        return self.get()

    def invalidate(self, token=None):
        self.dropped.append(token.value)
        if self.allows:
            self.number += 1
        return self.allows


class Service:
    """A service that writes down what it is sent, and answers by script."""

    def __init__(self):
        self.seen = []
        self.answers = []
        self.app = web.Application()
        self.app.router.add_route("*", "/{tail:.*}", self.handle)

    async def handle(self, request):
        self.seen.append((request.headers.get("Authorization"), await request.text()))
        if self.answers:
            return self.answers.pop(0)
        return web.Response(text="ok")


def refusal(challenge='Bearer error="invalid_token"', status=401):
    return web.Response(status=status, headers={"WWW-Authenticate": challenge})


@pytest.fixture
async def service():
    return Service()


@pytest.fixture
async def origin(serve, service):
    client = await serve(service.app)
    return str(client.make_url("/")).rstrip("/")


async def send(source, origin, url, *, origins=None, **more):
    auth = BearerAuth(source, origins=origins or [origin])
    async with (
        aiohttp.ClientSession(middlewares=[auth]) as session,
        session.request(more.pop("method", "GET"), url, **more) as response,
    ):
        await response.read()
        return response.status


async def test_a_token_is_sent_to_a_listed_origin(service, origin):
    assert await send(Source(), origin, f"{origin}/orders") == 200
    assert service.seen == [("Bearer token-1", "")]


async def test_no_token_is_sent_to_another_origin(service, origin):
    assert await send(Source(), origin, f"{origin}/", origins=["https://orders.internal"]) == 200
    assert service.seen == [(None, "")]


async def test_no_token_follows_a_redirect_to_another_origin(serve, service, origin):
    foreign = Service()
    elsewhere = str((await serve(foreign.app)).make_url("/"))
    service.answers = [web.Response(status=302, headers={"Location": elsewhere})]
    await send(Source(), origin, f"{origin}/")
    assert foreign.seen == [(None, "")]


async def test_a_token_follows_a_redirect_between_listed_origins(serve, service, origin):
    other = Service()
    elsewhere = str((await serve(other.app)).make_url("/")).rstrip("/")
    service.answers = [web.Response(status=302, headers={"Location": elsewhere + "/x"})]
    await send(Source(), origin, f"{origin}/", origins=[origin, elsewhere])
    assert other.seen == [("Bearer token-1", "")]


async def test_our_token_is_taken_off_where_it_must_not_go(service, origin):
    auth = BearerAuth(Source(), origins=["https://orders.internal"])
    auth._sent.append("Bearer token-1")
    async with (
        aiohttp.ClientSession(middlewares=[auth]) as session,
        session.get(origin, headers={"Authorization": "Bearer token-1"}),
    ):
        pass
    assert service.seen == [(None, "")]


async def test_credentials_of_the_caller_are_left_alone(service, origin):
    await send(Source(), origin, origin, headers={"Authorization": "Basic abc"})
    assert service.seen == [("Basic abc", "")]


async def test_a_refused_token_is_replaced_once(service, origin):
    service.answers = [refusal()]
    source = Source()
    assert await send(source, origin, origin) == 200
    assert [token for token, _ in service.seen] == ["Bearer token-1", "Bearer token-2"]
    assert source.dropped == ["token-1"]


async def test_a_second_refusal_is_the_answer(service, origin):
    service.answers = [refusal(), refusal(), refusal()]
    assert await send(Source(), origin, origin) == 401
    assert len(service.seen) == 2


@pytest.mark.parametrize(
    "answer",
    [
        refusal("Bearer"),
        refusal('Bearer error="insufficient_scope"'),
        refusal('Basic realm="Bearer error=invalid_token"'),
        refusal('Bearer realm="error=invalid_token"'),
        refusal("Bearer error=invalid_token_x"),
        refusal(status=403),
        refusal(status=400),
        web.Response(status=401),
    ],
    ids=["bare", "scope", "quoted in another", "quoted realm", "longer", "403", "400", "no challenge"],
)
async def test_a_refusal_for_another_reason_is_not_retried(service, origin, answer):
    service.answers = [answer]
    source = Source()
    await send(source, origin, origin)
    assert (len(service.seen), source.dropped) == (1, [])


@pytest.mark.parametrize(
    "challenge",
    [
        "Bearer error=invalid_token",
        'bearer realm="x", error="invalid_token", error_description="a, b"',
        'Basic realm="x", Bearer error="invalid_token"',
    ],
)
async def test_the_challenge_is_read_in_any_spelling(service, origin, challenge):
    service.answers = [refusal(challenge)]
    assert await send(Source(), origin, origin) == 200


async def test_a_body_in_memory_is_sent_again(service, origin):
    service.answers = [refusal()]
    assert await send(Source(), origin, origin, method="POST", json={"a": 1}) == 200
    assert [body for _, body in service.seen] == ['{"a": 1}', '{"a": 1}']


async def test_a_body_that_is_gone_is_not_sent_again(service, origin):
    async def parts():
        yield b"once"

    service.answers = [refusal()]
    source = Source()
    assert await send(source, origin, origin, method="POST", data=parts()) == 401
    assert (len(service.seen), source.dropped) == (1, [])


async def test_without_another_token_the_services_answer_stays(service, origin):
    service.answers = [refusal()]
    assert await send(Source(broken_after=1), origin, origin) == 401
    assert len(service.seen) == 1
    source = Source()
    source.allows = False
    service.answers = [refusal()]
    assert await send(source, origin, origin) == 401
    assert len(service.seen) == 2


async def test_no_token_at_all_is_an_error_before_anything_is_sent(service, origin):
    with pytest.raises(TokenFetchError):
        await send(Source(broken_after=0), origin, origin)
    assert service.seen == []


@pytest.mark.parametrize(
    "origins",
    [[], ["orders.internal"], ["https://orders.internal/path"], ["https://u@orders.internal"], ["ftp://h"], [""]],
)
def test_origins_must_be_origins(origins):
    with pytest.raises(ConfigurationError):
        BearerAuth(Source(), origins=origins)


def test_a_slash_at_the_end_of_an_origin_is_forgiven():
    assert "https://orders.internal" in repr(BearerAuth(Source(), origins=["https://orders.internal/"]))


async def test_the_way_from_the_client_to_the_server_with_real_tokens(serve):
    from tokenry.client.token_source import ClientCredentials

    with FakeIssuer() as issuer:
        client = await serve(make_app(issuer.validator()))
        origin = str(client.make_url("/")).rstrip("/")
        source = ClientCredentials("orders.read", environ=issuer.environment())
        auth = BearerAuth(source, origins=[origin])
        async with aiohttp.ClientSession(origin, middlewares=[auth]) as session:
            async with session.get("/orders") as response:
                assert await response.json() == {"caller": "test-client"}
            first = source.get()
            issuer.revoke(first.value)
            async with session.get("/orders") as response:
                assert response.status == 200, "a young token that was refused is fetched once more"
            assert source.get() != first
            issuer.revoke(source.get().value)
            async with session.get("/orders") as response:
                assert response.status == 401, "and only once in a while"
