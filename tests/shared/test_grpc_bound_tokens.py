"""Tokens that are bound to a certificate or a key, in gRPC: over TLS, with both kinds of server."""

import asyncio
import threading
from concurrent import futures

import grpc
import grpc.aio
import pytest

from tests.support.certificates import authority, client_identity, make_identity
from tokenry import ClientCredentials, StaticTokenSource
from tokenry.dpop import Dpop
from tokenry.grpc import ServerInterceptor, SyncServerInterceptor, call_credentials, current_token
from tokenry.oauth.mutual_tls import PresentedCertificate
from tokenry.testing import FakeIssuer

MINE, OTHER = client_identity(), client_identity("stock")
THUMBPRINT = PresentedCertificate(der=MINE.der, chain_verified=True).thumbprint
METADATA = "https://orders.example/.well-known/oauth-protected-resource"
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def sync_handlers():
    def one(_request, _context):
        return current_token().sub.encode()

    def many(_request, _context):
        yield current_token().sub.encode()
        yield b"2"

    return _generic(one, many)


def async_handlers():
    async def one(_request, _context):
        return current_token().sub.encode()

    async def many(_request, _context):
        yield current_token().sub.encode()
        yield b"2"

    async def writing(_request, context):
        await context.write(current_token().sub.encode())

    return [*_generic(one, many), *_generic(one, writing, "shop.Writing"), *_mixed()]


def _mixed():
    """Handlers that are no coroutines, which a server of asyncio runs in threads."""
    return [
        grpc.method_handlers_generic_handler(
            "shop.Threads",
            {
                "unary_unary": grpc.unary_unary_rpc_method_handler(lambda _r, _c: current_token().sub.encode()),
                "unary_stream": grpc.unary_stream_rpc_method_handler(lambda _r, _c: iter([b"1", b"2"])),
            },
        )
    ]


def _generic(one, many, service="shop.Orders"):
    made = {
        "unary_unary": grpc.unary_unary_rpc_method_handler(one),
        "unary_stream": grpc.unary_stream_rpc_method_handler(many),
        "stream_unary": grpc.stream_unary_rpc_method_handler(one),
        "stream_stream": grpc.stream_stream_rpc_method_handler(many),
    }
    return [grpc.method_handlers_generic_handler(service, made)]


@pytest.fixture
def issuer():
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture(params=["aio", "sync"])
def server(request, issuer):
    identity = make_identity("CN=localhost", issuer=authority(), dns=("localhost",))
    credentials = grpc.ssl_server_credentials(
        [(identity.key_pem, identity.pem)], root_certificates=authority().pem, require_client_auth=True
    )
    dpop = Dpop("https://orders.example")
    if request.param == "sync":
        server = grpc.server(
            futures.ThreadPoolExecutor(4),
            sync_handlers(),
            interceptors=[SyncServerInterceptor(issuer.validator(), dpop=dpop, resource_metadata=METADATA)],
        )
        port = server.add_secure_port("localhost:0", credentials)
        server.start()
        stop = lambda: server.stop(None).wait(5)  # noqa: E731
    else:
        started, ended, ports = threading.Event(), [], []

        async def serve():
            ended[:] = [asyncio.get_running_loop(), asyncio.Event()]
            server = grpc.aio.server(
                handlers=async_handlers(),
                interceptors=[ServerInterceptor(issuer.validator(), dpop=dpop, resource_metadata=METADATA)],
            )
            ports.append(server.add_secure_port("localhost:0", credentials))
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

    def channel(identity=MINE, *, call=None):
        shown = grpc.ssl_channel_credentials(
            root_certificates=authority().pem, private_key=identity.key_pem, certificate_chain=identity.pem
        )
        return grpc.secure_channel(
            f"localhost:{port}", shown if call is None else grpc.composite_channel_credentials(shown, call)
        )

    yield request.param, channel
    stop()


def ask(channel, kind="unary_unary", service="shop.Orders", metadata=()):
    request = iter([b"x"]) if kind.startswith("stream") else b"x"
    try:
        answer = getattr(channel, kind)(f"/{service}/{kind}")(request, metadata=metadata, timeout=10)
        return list(answer) if kind.endswith("stream") else [answer]
    except grpc.RpcError as error:
        return error.code()


@pytest.mark.parametrize("kind", KINDS)
def test_V25_the_certificate_of_the_connection_counts(server, issuer, kind):
    flavour, channel = server
    token = issuer.token("orders", claims={"cnf": {"x5t#S256": THUMBPRINT}})
    metadata = [("authorization", f"Bearer {token}")]
    with channel() as mine, channel(OTHER) as other:
        assert ask(mine, kind, metadata=metadata)[0] == b"orders"
        assert ask(other, kind, metadata=metadata) is grpc.StatusCode.UNAUTHENTICATED
        expired = issuer.token(expired=True, claims={"cnf": {"x5t#S256": THUMBPRINT}})
        refused = ask(mine, kind, metadata=[("authorization", f"Bearer {expired}")])
        assert refused is grpc.StatusCode.UNAUTHENTICATED
        if flavour == "aio" and kind.endswith("stream"):
            assert ask(mine, kind, "shop.Writing", metadata=metadata) == [b"orders"]
        if flavour == "aio" and kind.startswith("unary"):
            first = ask(mine, kind, "shop.Threads", metadata=metadata)[0]
            assert first in {b"orders", b"1"}


@pytest.mark.parametrize("kind", KINDS)
def test_V26_a_proof_is_for_this_method_and_good_once(server, issuer, kind):
    _, channel = server
    headers = issuer.dpop_headers("POST", f"https://orders.example/shop.Orders/{kind}", "orders")
    metadata = [(name.lower(), value) for name, value in headers.items()]
    with channel(OTHER) as asking:
        assert ask(asking, kind, metadata=metadata)[0] == b"orders"
        assert ask(asking, kind, metadata=metadata) is grpc.StatusCode.UNAUTHENTICATED
        other = issuer.dpop_headers("POST", "https://orders.example/shop.Orders/Other", "orders")
        metadata = [(name.lower(), value) for name, value in other.items()]
        assert ask(asking, kind, metadata=metadata) is grpc.StatusCode.UNAUTHENTICATED
        as_bearer = [("authorization", headers["Authorization"].replace("DPoP", "Bearer"))]
        assert ask(asking, kind, metadata=as_bearer) is grpc.StatusCode.UNAUTHENTICATED


def test_M10_a_challenge_names_the_metadata_and_both_schemes(server):
    _, channel = server
    with channel() as asking, pytest.raises(grpc.RpcError) as refused:
        asking.unary_unary("/shop.Orders/unary_unary")(b"", timeout=10)
    trailer = dict(refused.value.trailing_metadata())
    assert trailer["www-authenticate"] == f'Bearer resource_metadata="{METADATA}", DPoP algs="ES256"'


@pytest.fixture
def echo():
    def answer(_request, context):
        sent = dict(context.invocation_metadata())
        return f"{sent['authorization']} {sent.get('dpop', '-')}".encode()

    generic = grpc.method_handlers_generic_handler("echo", {"Echo": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(futures.ThreadPoolExecutor(2), [generic])
    port = server.add_secure_port("localhost:0", grpc.local_server_credentials())
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait(5)


def test_V26_each_call_of_a_client_carries_a_proof(echo, issuer):
    source = ClientCredentials(environ=issuer.environment(), dpop=True)
    credentials = grpc.composite_channel_credentials(grpc.local_channel_credentials(), call_credentials(source))
    ours = Dpop(f"https://{echo}")
    with grpc.secure_channel(echo, credentials) as channel:
        for _ in range(2):
            scheme, token, proof = channel.unary_unary("/echo/Echo")(b"", timeout=10).decode().split()
            assert (scheme, token) == ("DPoP", source.get().value)
            from tokenry.dpop import Asked

            read = ours.read([f"DPoP {token}"], lambda proof=proof: Asked("POST", "/echo/Echo", [proof]))
            ours.use(read[1])


def test_a_bearer_token_has_no_proof(echo):
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(), call_credentials(StaticTokenSource("fixed"))
    )
    with grpc.secure_channel(echo, credentials) as channel:
        assert channel.unary_unary("/echo/Echo")(b"", timeout=10) == b"Bearer fixed -"
