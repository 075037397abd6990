"""Tokens bound to a certificate at the aiohttp middleware (RFC 8705 section 3): with it 200, without it 401."""

import base64
import ssl
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.support.certificates import authority, client_identity, make_identity
from tokenry.aiohttp import TOKEN, ProxyCertificate, auth_middleware
from tokenry.errors import ConfigurationError
from tokenry.oauth.mutual_tls import PresentedCertificate
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer

MINE, OTHER = client_identity(), client_identity("stock")


def thumbprint(identity):
    return PresentedCertificate(der=identity.der, chain_verified=True).thumbprint


def rfc9440(identity):
    return f":{base64.b64encode(identity.der).decode()}:"


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


@pytest.fixture
def bound(issuer):
    token = issuer.token("orders", claims={"cnf": {"x5t#S256": thumbprint(MINE)}})
    return {"Authorization": f"Bearer {token}"}


def application(issuer, **options):
    async def whoami(request):
        return web.Response(text=request[TOKEN].sub)

    validator = issuer.validator()
    app = web.Application(middlewares=[auth_middleware(validator, **options)])
    app.cleanup_ctx.append(validator.aiohttp_ctx)
    app.router.add_get("/", whoami)
    return app


async def statuses(app, requests, *, tls=None):
    server = TestServer(app)
    await server.start_server(ssl=tls)
    async with TestClient(server) as client:
        return [(await client.get("/", headers=headers, ssl=context)).status for headers, context in requests]


async def test_V25_over_tls_the_connections_certificate_counts(issuer, bound, tmp_path):
    server = make_identity("CN=localhost", dns=("localhost",), ip=("127.0.0.1",))
    certificate, key = server.write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(certificate, key)
    accepting.load_verify_locations(tmp_path / "ca.pem")
    accepting.verify_mode = ssl.CERT_OPTIONAL

    def with_certificate(identity):
        context = ssl.create_default_context(cafile=str(certificate))
        if identity is not None:
            context.load_cert_chain(*identity.write(tmp_path, "client"))
        return context

    field = {"Client-Cert": rfc9440(MINE)}
    unbound = {"Authorization": f"Bearer {issuer.token('stock')}"}
    found = await statuses(
        application(issuer),
        [
            (bound, with_certificate(MINE)),
            (bound, with_certificate(OTHER)),
            (bound, with_certificate(None)),
            (bound | field, with_certificate(None)),
            (unbound, with_certificate(None)),
            (unbound, with_certificate(MINE)),
        ],
        tls=accepting,
    )
    assert found == [200, 401, 401, 401, 200, 200]


async def test_V25_without_tls_and_without_a_proxy_a_bound_token_is_good_nowhere(issuer, bound):
    field = {"Client-Cert": rfc9440(MINE)}
    assert await statuses(application(issuer), [(bound, True), (bound | field, True)]) == [401, 401]


async def test_V25_a_named_proxy_hands_the_certificate_on(issuer, bound):
    app = application(issuer, certificate=ProxyCertificate(proxies=["127.0.0.0/8", "::1/128"]))
    cases = [
        (bound | {"Client-Cert": rfc9440(MINE)}, 200),
        (bound | {"Client-Cert": rfc9440(OTHER)}, 401),
        (bound | {"Client-Cert": "garbage"}, 401),
        (bound | {"Client-Cert": ""}, 401),
        (bound, 401),
    ]
    assert await statuses(app, [(headers, True) for headers, _ in cases]) == [status for _, status in cases]


async def test_T25_anybody_else_who_writes_the_field_is_not_listened_to(issuer, bound):
    app = application(issuer, certificate=ProxyCertificate(proxies=["10.0.0.0/8"]))
    assert await statuses(app, [(bound | {"Client-Cert": rfc9440(MINE)}, True)]) == [401]


async def test_nginx_writes_it_in_its_own_way(issuer, bound):
    proxy = ProxyCertificate(proxies=["127.0.0.0/8"], header="X-Client-Cert", form="escaped-pem")
    app = application(issuer, certificate=proxy)
    assert await statuses(app, [(bound | {"X-Client-Cert": quote(MINE.pem.decode())}, True)]) == [200]


@pytest.mark.parametrize(
    "arguments", [{"proxies": []}, {"proxies": ["everybody"]}, {"proxies": ["10.0.0.0/8"], "form": "der"}]
)
def test_a_proxy_that_is_nobody_is_a_fault(arguments):
    with pytest.raises(ConfigurationError):
        ProxyCertificate(**arguments)


async def test_the_refusal_says_invalid_token_and_not_why(issuer, bound):
    server = TestServer(application(issuer))
    async with TestClient(server) as client:
        answer = await client.get("/", headers=bound)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert await answer.json() == {"error": "invalid_token"}
    assert isinstance(client.session, aiohttp.ClientSession)
