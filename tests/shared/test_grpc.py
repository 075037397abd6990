import asyncio
import threading
from concurrent import futures

import grpc
import grpc.aio
import pytest

from tokenry.client.access_token import AccessToken
from tokenry.client.token_source import ClientCredentials, StaticTokenSource
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.grpc import ServerInterceptor, SyncServerInterceptor, call_credentials, current_token, routes
from tokenry.testing import FakeClock, FakeIssuer

SCOPES = {"/shop.Orders/Get": ("orders.read",), "/shop.Orders/List": "orders.read"}
PUBLIC = ["/grpc.health.v1.Health/Check"]
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


def caller():
    token = current_token()
    return token.sub.encode() if token is not None else b"-"


def handlers():
    """A service whose methods answer with the caller's name: one of each kind, and two more."""

    def one(_request, _context):
        return caller()

    def many(_request, _context):
        yield caller()
        yield caller()

    kinds = {
        "unary_unary": grpc.unary_unary_rpc_method_handler(one),
        "unary_stream": grpc.unary_stream_rpc_method_handler(many),
        "stream_unary": grpc.stream_unary_rpc_method_handler(one),
        "stream_stream": grpc.stream_stream_rpc_method_handler(many),
        "Get": grpc.unary_unary_rpc_method_handler(one),
        "List": grpc.unary_stream_rpc_method_handler(many),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(one)}
    return [
        grpc.method_handlers_generic_handler("shop.Orders", kinds),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
    ]


def ahandlers():
    async def one(_request, _context):
        return caller()

    async def many(_request, _context):
        yield caller()
        await asyncio.sleep(0)
        yield caller()

    kinds = {
        "unary_unary": grpc.unary_unary_rpc_method_handler(one),
        "unary_stream": grpc.unary_stream_rpc_method_handler(many),
        "stream_unary": grpc.stream_unary_rpc_method_handler(one),
        "stream_stream": grpc.stream_stream_rpc_method_handler(many),
        "Get": grpc.unary_unary_rpc_method_handler(one),
        "List": grpc.unary_stream_rpc_method_handler(many),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(one)}
    return [
        grpc.method_handlers_generic_handler("shop.Orders", kinds),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
    ]


class Outcome:
    """The messages, or how the call ended."""

    def __init__(self, messages=(), error=None):
        self.messages = list(messages)
        self.code = error.code() if error else grpc.StatusCode.OK
        trailer = dict(error.trailing_metadata() or ()) if error else {}
        self.challenge = trailer.get("www-authenticate")


def call(channel, method, kind, metadata):
    request = iter([b"x"]) if kind.startswith("stream") else b"x"
    answer = getattr(channel, kind)(method)
    try:
        got = answer(request, metadata=metadata, timeout=10)
        return Outcome(list(got) if kind.endswith("stream") else [got])
    except grpc.RpcError as error:
        return Outcome(error=error)


@pytest.fixture(params=["aio", "sync"])
def orders(request, issuer):
    """How to call a server of either kind: method, token -> Outcome."""
    if request.param == "sync":
        server = grpc.server(
            futures.ThreadPoolExecutor(4),
            handlers(),
            interceptors=[SyncServerInterceptor(issuer.validator(), SCOPES, public=PUBLIC, realm="shop")],
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        stop = lambda: server.stop(None).wait(5)  # noqa: E731
    else:
        started, ended = threading.Event(), []
        ports = []

        async def serve():
            ended[:] = [asyncio.get_running_loop(), asyncio.Event()]
            server = grpc.aio.server(
                handlers=ahandlers(),
                interceptors=[ServerInterceptor(issuer.validator(), SCOPES, public=PUBLIC, realm="shop")],
            )
            ports.append(server.add_insecure_port("127.0.0.1:0"))
            await server.start()
            started.set()
            await ended[1].wait()
            await server.stop(None)

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        started.wait(10)
        port = ports[0]

        def stop():
            ended[0].call_soon_threadsafe(ended[1].set)
            thread.join(10)

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:

        def ask(method, token=None, *, kind="unary_unary", metadata=()):
            authorization = [("authorization", f"Bearer {token}")] if token is not None else []
            return call(channel, method, kind, [*authorization, *metadata])

        yield ask
    stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_gets_through_and_the_handler_knows_whose_it_is(orders, issuer, kind):
    got = orders(f"/shop.Orders/{kind}", issuer.token("basket"), kind=kind)
    assert set(got.messages) == {b"basket"}
    assert len(got.messages) == (2 if kind.endswith("stream") else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_token_no_handler_runs(orders, kind):
    got = orders(f"/shop.Orders/{kind}", kind=kind)
    assert (got.code, got.challenge, got.messages) == (grpc.StatusCode.UNAUTHENTICATED, 'Bearer realm="shop"', [])


def test_a_method_that_does_not_exist_needs_a_token_too(orders, issuer):
    assert orders("/shop.Orders/Nothing").code is grpc.StatusCode.UNAUTHENTICATED
    assert orders("/shop.Orders/Nothing", issuer.token()).code is grpc.StatusCode.UNIMPLEMENTED


def test_a_bad_token_is_unauthenticated(orders, issuer):
    for bad in (issuer.token(expired=True), issuer.token(wrong_key=True), "nonsense"):
        got = orders("/shop.Orders/Get", bad)
        assert (got.code, got.challenge) == (
            grpc.StatusCode.UNAUTHENTICATED,
            'Bearer realm="shop", error="invalid_token"',
        )


@pytest.mark.parametrize(("method", "kind"), [("Get", "unary_unary"), ("List", "unary_stream")])
def test_a_missing_scope_is_permission_denied(orders, issuer, method, kind):
    got = orders(f"/shop.Orders/{method}", issuer.token(scope="other"), kind=kind)
    assert got.code is grpc.StatusCode.PERMISSION_DENIED
    assert got.challenge == 'Bearer realm="shop", error="insufficient_scope", scope="orders.read"'
    assert orders(f"/shop.Orders/{method}", issuer.token(scope="orders.read"), kind=kind).code is grpc.StatusCode.OK


def test_a_public_method_is_open_and_knows_no_caller(orders, issuer):
    assert orders("/grpc.health.v1.Health/Check").messages == [b"-"]
    assert orders("/grpc.health.v1.Health/Check", issuer.token()).messages == [b"-"]


def test_two_tokens_are_refused(orders, issuer):
    twice = [("authorization", f"Bearer {issuer.token()}")]
    assert orders("/shop.Orders/Get", issuer.token(), metadata=twice).code is grpc.StatusCode.UNAUTHENTICATED


def test_a_validator_that_cannot_judge_is_unavailable(orders, issuer, clock):
    token = issuer.token(scope="orders.read")
    issuer.down = True
    clock.advance(minutes=20)
    assert orders("/shop.Orders/Get", token).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("make", [ServerInterceptor, SyncServerInterceptor])
def test_a_rule_for_what_is_no_method_is_a_mistake(make, issuer):
    with pytest.raises(ConfigurationError):
        make(issuer.validator(), {"Get": ("orders.read",)})
    with pytest.raises(ConfigurationError):
        make(issuer.validator(), {"/shop.Orders/Get": ()})


def test_the_methods_can_be_listed(issuer):
    listed = {
        route.path: str(route.access) for route in routes(ServerInterceptor(issuer.validator(), SCOPES, public=PUBLIC))
    }
    assert listed["/shop.Orders/Get"] == "orders.read"
    assert listed["/grpc.health.v1.Health/Check"] == "public"
    assert listed["/*"] == "any valid token"


# --- client ---


@pytest.fixture
def echo():
    """A server with transport security of this machine, that answers with the authorization it got."""

    def answer(_request, context):
        return dict(context.invocation_metadata()).get("authorization", "-").encode()

    generic = grpc.method_handlers_generic_handler("echo", {"Echo": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(futures.ThreadPoolExecutor(4), [generic])
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(5)


def channel_to(target, credentials):
    return grpc.secure_channel(
        target, grpc.composite_channel_credentials(grpc.local_channel_credentials(), credentials)
    )


def test_each_call_carries_a_token(echo):
    with FakeIssuer() as issuer:
        source = ClientCredentials("orders.read", environ=issuer.environment())
        with channel_to(echo, call_credentials(source)) as channel:
            for _ in range(3):
                assert channel.unary_unary("/echo/Echo")(b"", timeout=10).decode() == source.get().authorization()
        assert len(issuer.token_requests()) == 1


async def test_each_call_of_asyncio_carries_a_token(echo):
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(), call_credentials(StaticTokenSource("fixed"))
    )
    async with grpc.aio.secure_channel(echo, credentials) as channel:
        assert await channel.unary_unary("/echo/Echo")(b"", timeout=10) == b"Bearer fixed"


def test_no_token_goes_to_an_origin_that_is_not_listed(echo):
    with channel_to(echo, call_credentials(StaticTokenSource("fixed"), origins=["https://other"])) as channel:
        assert channel.unary_unary("/echo/Echo")(b"", timeout=10) == b"-"
    with channel_to(echo, call_credentials(StaticTokenSource("fixed"), origins=[f"https://{echo}"])) as channel:
        assert channel.unary_unary("/echo/Echo")(b"", timeout=10) == b"Bearer fixed"


class Broken:
    def get(self):
        raise TokenFetchError("the issuer said invalid_client")

    async def aget(self):
        return self.get()

    def invalidate(self, token=None):
        return False


def test_without_a_token_the_call_fails_and_says_why(echo):
    with (
        channel_to(echo, call_credentials(Broken())) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/echo/Echo")(b"", timeout=10)
    assert "invalid_client" in caught.value.details()


class Waiting:
    """A source whose token is not there yet."""

    def __init__(self):
        self.future = futures.Future()

    def request(self):
        return self.future

    def get(self):
        return self.future.result()

    async def aget(self):
        return self.get()

    def invalidate(self, token=None):
        return False


def test_a_call_that_waits_for_a_token_keeps_no_other_call_waiting(echo):
    waiting = Waiting()
    with (
        channel_to(echo, call_credentials(waiting)) as slow,
        channel_to(echo, call_credentials(StaticTokenSource("fixed"))) as quick,
    ):
        call = slow.unary_unary("/echo/Echo").future(b"", timeout=20)
        assert quick.unary_unary("/echo/Echo")(b"", timeout=10) == b"Bearer fixed"
        assert not call.done()
        waiting.future.set_result(AccessToken(value="late", expires_at=0))
        assert call.result(10) == b"Bearer late"
