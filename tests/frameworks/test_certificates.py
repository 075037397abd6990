"""Tokens that are bound to a certificate (RFC 8705 section 3) in every framework: with it 200, without it 401."""

import base64

import pytest

from tests.support.certificates import client_identity
from tests.support.frameworks import APPLICATIONS, call_asgi
from tokenry.asgi import AuthMiddleware, presented_certificate
from tokenry.certificates import ProxyCertificate
from tokenry.oauth.mutual_tls import PresentedCertificate, thumbprint_of_pem
from tokenry.testing import FakeClock, FakeIssuer
from tokenry.wsgi import presented_certificate as presented_to_wsgi

MINE, OTHER = client_identity(), client_identity("stock")
THUMBPRINT = PresentedCertificate(der=MINE.der, chain_verified=True).thumbprint
# aiohttp takes the certificate from the connection: tests/shared/test_aiohttp_certificates.py, over TLS.
TOLD_BY_SERVER = sorted(set(APPLICATIONS) - {"aiohttp"})


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


@pytest.fixture
def bound(issuer):
    token = issuer.token("orders", scope="orders.read", claims={"cnf": {"x5t#S256": THUMBPRINT}})
    return [("Authorization", f"Bearer {token}")]


def pem(identity):
    return identity.pem.decode()


def rfc9440(identity):
    return ("Client-Cert", f":{base64.b64encode(identity.der).decode()}:")


@pytest.mark.parametrize("name", TOLD_BY_SERVER)
def test_V25_what_the_server_tells_of_the_connection_counts(name, issuer, bound):
    app = APPLICATIONS[name](issuer.validator())
    cases = [(pem(MINE), 200), (pem(OTHER), 401), (None, 401), ("", 401), ("garbage", 401), ("x" * 99_999, 401)]
    for certificate, status in cases:
        answer = app.call("GET", "/orders", bound, certificate)
        assert answer.status == status, certificate
        assert status == 200 or answer.json == {"error": "invalid_token"}
    assert app.call("GET", "/orders", [*bound, rfc9440(MINE)], None).status == 401  # written by the caller
    unbound = [("Authorization", f"Bearer {issuer.token(scope='orders.read')}")]
    assert app.call("GET", "/orders", unbound, pem(OTHER)).status == 200


@pytest.mark.parametrize("name", APPLICATIONS)
def test_V25_a_named_proxy_hands_the_certificate_on(name, issuer, bound):
    proxy = ProxyCertificate(proxies=["127.0.0.0/8", "::1/128"])
    if name == "aiohttp":
        from tokenry.aiohttp import ProxyCertificate as OfRequest

        proxy = OfRequest(proxies=["127.0.0.0/8", "::1/128"])
    app = APPLICATIONS[name](issuer.validator(), certificate=proxy)
    for field, status in ((rfc9440(MINE), 200), (rfc9440(OTHER), 401), (("Client-Cert", "garbage"), 401)):
        assert app.call("GET", "/orders", [*bound, field]).status == status
    assert app.call("GET", "/orders", bound).status == 401
    assert app.call("GET", "/orders", [*bound, rfc9440(MINE), rfc9440(MINE)]).status == 401
    if name in TOLD_BY_SERVER:  # the connection is the proxy's, and so is its certificate
        assert app.call("GET", "/orders", bound, pem(MINE)).status == 401


@pytest.mark.parametrize("name", TOLD_BY_SERVER)
def test_T25_anybody_else_who_writes_the_field_is_not_listened_to(name, issuer, bound):
    app = APPLICATIONS[name](issuer.validator(), certificate=ProxyCertificate(proxies=["10.0.0.0/8"]))
    assert app.call("GET", "/orders", [*bound, rfc9440(MINE)]).status == 401


def test_the_first_certificate_of_a_chain_is_the_callers():
    assert thumbprint_of_pem(pem(MINE) + pem(OTHER)) == THUMBPRINT
    scope = {"headers": [], "extensions": {"tls": {"client_cert_chain": [pem(MINE), pem(OTHER)]}}}
    assert presented_certificate(scope) == THUMBPRINT


@pytest.mark.parametrize("extensions", [None, {}, {"tls": None}, {"tls": {}}, {"tls": {"client_cert_chain": []}}])
def test_a_server_that_tells_nothing_shows_none(extensions):
    assert presented_certificate({"headers": [], "extensions": extensions}) is None


def test_gunicorn_tells_it_by_the_connection():
    class Socket:
        def getpeercert(self, *, binary_form):
            assert binary_form
            return MINE.der

    assert presented_to_wsgi({"gunicorn.socket": Socket()}) == THUMBPRINT
    assert presented_to_wsgi({"gunicorn.socket": object()}) is None


async def test_V25_a_websocket_is_judged_likewise(issuer, bound):
    async def accept(_scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    app = AuthMiddleware(accept, issuer.validator())
    for certificate, expected in ((pem(MINE), "websocket.accept"), (None, "websocket.http.response.start")):
        sent = await call_asgi(app, "GET", "/", bound, certificate, kind="websocket")
        assert sent[0]["type"] == expected
