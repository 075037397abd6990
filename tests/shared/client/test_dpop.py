"""Tokens that are bound to a key (DPoP, RFC 9449), from the issuer to a protected service, by every HTTP client."""

import asyncio
import threading

import aiohttp
import httpx
import httpx2
import pytest
import requests

import tokenry.aiohttp
import tokenry.httpx
import tokenry.requests
from tokenry import ClientCredentials, Introspector, StaticTokenSource
from tokenry.client.access_token import AccessToken
from tokenry.dpop import Asked, Dpop
from tokenry.errors import InvalidToken, TokenFetchError
from tokenry.http.fetch import Headers, Response
from tokenry.jose.encoding import b64url_decode, parse_json_object
from tokenry.oauth.confirmation import Shown
from tokenry.protect import Protection, Refused
from tokenry.testing import FakeClock, FakeIssuer
from tokenry.testing.issuer import AUDIENCE, CLIENT_ID, CLIENT_SECRET
from tokenry.testing.server import LoopbackServer


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


def source_of(issuer, **more):
    environment = issuer.environment()
    return ClientCredentials(
        "orders.read", environ=environment, fetcher=issuer, clock=issuer.clock, dpop=True, pause=lambda _: None, **more
    )


def test_the_token_is_bound_to_the_key_of_its_source(issuer):
    first, second = source_of(issuer), source_of(issuer)
    token = first.get()
    assert token.authorization() == f"DPoP {token.value}"
    jkt = token.prover.jkt
    assert jkt != second.get().prover.jkt
    with pytest.raises(InvalidToken):
        issuer.validator().validate(token.value)
    assert issuer.validator().validate(token.value, confirmation=Shown(key=jkt)).claims["cnf"] == {"jkt": jkt}


def test_each_request_gets_a_proof_of_its_own(issuer):
    token = source_of(issuer).get()
    first, second = (token.headers("GET", "https://orders.example/orders") for _ in range(2))
    assert first["Authorization"] == second["Authorization"]
    assert first["DPoP"] != second["DPoP"]


def test_a_bearer_token_has_no_proof():
    assert StaticTokenSource("x").get().headers("GET", "anything") == {"Authorization": "Bearer x"}


def test_a_repeated_request_for_a_token_has_a_new_proof(issuer):
    issuer.enqueue(Response(status=503))
    assert source_of(issuer).get().prover is not None
    proofs = [request.headers.get("dpop") for request in issuer.token_requests()]
    assert len(set(proofs)) == len(proofs) == 2


def test_the_key_stays_when_the_token_is_renewed(issuer):
    source = source_of(issuer)
    before = source.get()
    issuer.clock.advance(seconds=20)
    assert source.invalidate(before)
    after = source.get()
    assert before.value != after.value
    assert before.prover is after.prover


def test_an_issuer_that_binds_nothing_is_an_error_and_not_a_bearer_token(issuer):
    body = b'{"access_token":"a.b.c","token_type":"Bearer","expires_in":60}'
    for _ in range(3):
        issuer.enqueue(Response(status=200, headers=Headers([("Content-Type", "application/json")]), body=body))
    with pytest.raises(TokenFetchError, match="not of token_type DPoP"):
        source_of(issuer).get()


def test_a_bound_token_that_was_not_asked_for_is_an_error(issuer):
    body = b'{"access_token":"a.b.c","token_type":"DPoP","expires_in":60}'
    for _ in range(3):
        issuer.enqueue(Response(status=200, headers=Headers([("Content-Type", "application/json")]), body=body))
    source = ClientCredentials(environ=issuer.environment(), fetcher=issuer, pause=lambda _: None)
    with pytest.raises(TokenFetchError, match="not of token_type Bearer"):
        source.get()


def test_neither_token_nor_key_is_printed(issuer):
    token = source_of(issuer).get()
    assert repr(token) == f"AccessToken(expires_at={token.expires_at!r}, scope=frozenset({{'orders.read'}}))"
    assert repr(token.prover) == f"ProofKey(jkt={token.prover.jkt!r})"


def test_the_remote_twin_says_what_a_token_is_bound_to_and_compares(issuer):
    token = source_of(issuer).get()
    remote = Introspector(
        issuer.issuer,
        audience=AUDIENCE,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        fetcher=issuer,
        clock=issuer.clock,
    )
    assert remote.validate(token.value, confirmation=Shown(key=token.prover.jkt)).sub == CLIENT_ID
    for shown in (None, "x", Shown(key="x")):
        with pytest.raises(InvalidToken):
            remote.validate(token.value, confirmation=shown)


# --- over HTTP, to a service that reads proofs ---


class Orders:
    """A protected service; `/moved` leads to `/orders`, `/seen` does by GET, `/away` to another service."""

    def __init__(self, issuer, away="", nonces=False):
        self.nonces = nonces
        self.server = LoopbackServer(self.answer)
        self.url, self.away = self.server.url, away
        self.seen, self._lock = [], threading.Lock()
        self._protection = Protection(validator=issuer.validator(), dpop=Dpop(self.url, clock=issuer.clock))

    def answer(self, request):
        headers, path = Headers(request.headers.items()), request.url.removeprefix(self.url).partition("?")[0]
        with self._lock:
            self.seen.append((path, headers.get("authorization"), headers.get("dpop")))
        given = [value for value in [headers.get("authorization")] if value]
        proofs = [value for value in [headers.get("dpop")] if value]
        try:
            self._protection.admit(given, asked=lambda: Asked(request.method, path, proofs))
        except Refused as refused:
            refusal = refused.refusal
            return Response(status=refusal.status, headers=Headers(refusal.headers), body=refusal.body)
        if self.nonces:
            claims = parse_json_object(b64url_decode(proofs[0].split(".")[1]))
            if claims.get("nonce") != "fresh~nonce":
                fields = [
                    ("WWW-Authenticate", 'DPoP error="use_dpop_nonce", algs="ES256"'),
                    ("DPoP-Nonce", "fresh~nonce"),
                ]
                return Response(status=401, headers=Headers(fields))
        to = {"/moved": (307, "/orders"), "/seen": (303, "/orders"), "/away": (307, self.away)}.get(path)
        if to is not None:
            return Response(status=to[0], headers=Headers([("Location", to[1])]))
        return Response(status=200, body=b"ok")


def by_httpx(module):
    def send(source, url, method="GET", origins=None):
        with module.Client(auth=tokenry.httpx.BearerAuth(source, origins=origins), follow_redirects=True) as client:
            return client.request(method, url).status_code

    return send


def by_async_httpx(source, url, method="GET", origins=None):
    async def run():
        auth = tokenry.httpx.BearerAuth(source, origins=origins)
        async with httpx2.AsyncClient(auth=auth, follow_redirects=True) as client:
            return (await client.request(method, url)).status_code

    return asyncio.run(run())


def by_requests(source, url, method="GET", origins=None):
    with requests.Session() as session:
        session.auth = tokenry.requests.BearerAuth(source, origins=origins)
        return session.request(method, url, timeout=5).status_code


def by_aiohttp(source, url, method="GET", origins=None):
    async def run():
        auth = tokenry.aiohttp.BearerAuth(source, origins=origins or [url.rpartition("/")[0]])
        async with aiohttp.ClientSession(middlewares=[auth]) as session, session.request(method, url) as response:
            return response.status

    return asyncio.run(run())


CLIENTS = {
    "httpx2": by_httpx(httpx2),
    "httpx2-async": by_async_httpx,
    "httpx": by_httpx(httpx),
    "requests": by_requests,
    "aiohttp": by_aiohttp,
}


@pytest.fixture
def orders(issuer):
    other = Orders(issuer)
    service = Orders(issuer, away=f"{other.url}/orders")
    service.other = other
    yield service
    service.server.close()
    other.server.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_sends_a_proof_with_each_request(client, issuer, orders):
    source = source_of(issuer)
    for method in ("GET", "POST", "GET"):
        assert CLIENTS[client](source, f"{orders.url}/orders?page=1", method) == 200
    assert len({proof for _, _, proof in orders.seen}) == 3
    assert len(issuer.token_requests()) == 1


@pytest.mark.parametrize("client", ["requests", "aiohttp"])
@pytest.mark.parametrize("path", ["/moved", "/seen"])
def test_where_a_redirect_leads_gets_a_proof_of_its_own(client, path, issuer, orders):
    assert CLIENTS[client](source_of(issuer), orders.url + path, "POST") == 200
    assert [where for where, _, _ in orders.seen] == [path, "/orders"]


@pytest.mark.parametrize("client", ["httpx2", "httpx2-async", "httpx"])
def test_httpx_repeats_the_proof_after_a_redirect_and_is_refused(client, issuer, orders):
    assert CLIENTS[client](source_of(issuer), f"{orders.url}/moved") == 401


@pytest.mark.parametrize("client", CLIENTS)
def test_no_token_goes_along_to_another_origin(client, issuer, orders):
    assert CLIENTS[client](source_of(issuer), f"{orders.url}/away") == 401
    assert [(where, token) for where, token, _ in orders.other.seen] == [("/orders", None)]
    if client in {"requests", "aiohttp"}:
        assert orders.other.seen[0][2] is None


@pytest.mark.parametrize("client", CLIENTS)
def test_a_refused_token_is_replaced_once_with_a_new_proof(client, issuer, orders):
    source = source_of(issuer)
    issuer.revoke(source.get().value)
    issuer.clock.advance(seconds=20)
    assert CLIENTS[client](source, f"{orders.url}/orders") == 200
    assert len(orders.seen) == 2
    assert len({proof for _, _, proof in orders.seen}) == 2


@pytest.mark.parametrize("client", CLIENTS)
def test_a_service_that_asks_for_a_nonce_gets_it_in_the_next_proofs(client, issuer):
    service = Orders(issuer, nonces=True)
    try:
        source = source_of(issuer)
        for _ in range(2):
            assert CLIENTS[client](source, f"{service.url}/orders", "POST") == 200
        assert len(service.seen) == 3  # the first one twice
        assert len(issuer.token_requests()) == 1
    finally:
        service.server.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_service_that_is_never_content_with_a_nonce_is_asked_twice(client, issuer):
    service = Orders(issuer, nonces=True)
    source = source_of(issuer)
    source.get().prover.learn = lambda _url, _nonce: None
    try:
        assert CLIENTS[client](source, f"{service.url}/orders") == 401
        assert len(service.seen) == 2
    finally:
        service.server.close()


def test_an_issuer_that_asks_for_a_nonce_gets_it(issuer):
    fields = [("Content-Type", "application/json"), ("DPoP-Nonce", "n-1")]
    issuer.enqueue(Response(status=400, headers=Headers(fields), body=b'{"error":"use_dpop_nonce"}'))
    assert source_of(issuer).get().prover is not None
    sent = [request.headers["dpop"] for request in issuer.token_requests()]
    nonces = [parse_json_object(b64url_decode(proof.split(".")[1])).get("nonce") for proof in sent]
    assert nonces == [None, "n-1"]


def test_what_is_no_nonce_is_left_out_and_their_number_is_bounded(issuer):
    prover = source_of(issuer).get().prover
    for nonce in ("", "a b", 'a"b', "x" * 513, "é"):
        prover.learn("https://a.example/x", nonce)
    assert prover._nonces == {}
    for number in range(200):
        prover.learn(f"https://a{number}.example/x", "n")
    assert len(prover._nonces) <= 64
    assert prover._nonces["https://a199.example"] == "n"


def test_an_access_token_is_equal_by_what_it_is():
    assert AccessToken(value="x", expires_at=1) == AccessToken(value="x", expires_at=1)
