"""tokenry.httpx (with httpx2 and with httpx, synchronous or not) and tokenry.requests: one suite for all of them."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import pytest
import requests

import tokenry.httpx
import tokenry.requests
from tokenry.client.access_token import AccessToken
from tokenry.client.sending import Origins, origin_of
from tokenry.client.token_source import ClientCredentials
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.http.fetch import Headers, Response
from tokenry.testing import FakeIssuer
from tokenry.testing.server import LoopbackServer

REFUSAL = Response(status=401, headers=Headers([("WWW-Authenticate", 'Bearer error="invalid_token"')]))
OK = Response(status=200, body=b"ok")


def redirect(location):
    return Response(status=307, headers=Headers([("Location", location)]))


class Source:
    """A source of numbered tokens."""

    def __init__(self, *, broken_after=None):
        self.number, self.dropped, self.allows, self.broken_after = 1, [], True, broken_after

    def get(self):
        if self.broken_after is not None and self.number > self.broken_after:
            raise TokenFetchError("no other one")
        return AccessToken(value=f"token-{self.number}", expires_at=0)

    async def aget(self):
        await asyncio.sleep(0)
        return self.get()

    def invalidate(self, token=None):
        self.dropped.append(token.value)
        self.number += self.allows
        return self.allows


class Service:
    """A service that writes down what it is sent, and answers by script."""

    def __init__(self):
        self.seen, self.answers, self._lock = [], [], threading.Lock()
        self.server = LoopbackServer(self.answer)
        self.url = self.server.url

    def answer(self, request):
        headers = Headers(request.headers.items())
        with self._lock:
            self.seen.append((headers.get("authorization"), request.body or b""))
            return self.answers.pop(0) if self.answers else OK

    @property
    def tokens(self):
        return [token for token, _ in self.seen]


@pytest.fixture
def service():
    service = Service()
    yield service
    service.server.close()


@pytest.fixture
def other():
    service = Service()
    yield service
    service.server.close()


def by_httpx(module):
    def send(source, url, *, origins=None, method="GET", body=None, headers=None):
        auth = tokenry.httpx.BearerAuth(source, origins=origins)
        with module.Client(auth=auth, follow_redirects=True, trust_env=False) as client:
            content = iter(body) if isinstance(body, list) else body
            return client.request(method, url, content=content, headers=headers).status_code

    return send


def by_async_httpx(module):
    def send(source, url, *, origins=None, method="GET", body=None, headers=None):
        async def parts():
            for part in body:
                yield part

        async def run():
            auth = tokenry.httpx.BearerAuth(source, origins=origins)
            async with module.AsyncClient(auth=auth, follow_redirects=True, trust_env=False) as client:
                content = parts() if isinstance(body, list) else body
                return (await client.request(method, url, content=content, headers=headers)).status_code

        return asyncio.run(run())

    return send


def by_requests(source, url, *, origins=None, method="GET", body=None, headers=None):
    with requests.Session() as session:
        session.trust_env = False
        session.auth = tokenry.requests.BearerAuth(source, origins=origins)
        data = iter(body) if isinstance(body, list) else body
        return session.request(method, url, data=data, headers=headers, timeout=5).status_code


CLIENTS = {
    "httpx2": by_httpx(httpx2),
    "httpx2-async": by_async_httpx(httpx2),
    "httpx": by_httpx(httpx),
    "httpx-async": by_async_httpx(httpx),
    "requests": by_requests,
}


@pytest.fixture(params=CLIENTS)
def send(request):
    return CLIENTS[request.param]


def test_a_token_is_sent_to_a_listed_origin(send, service):
    assert send(Source(), f"{service.url}/orders", origins=[service.url]) == 200
    assert service.tokens == ["Bearer token-1"]


def test_no_token_is_sent_to_another_origin(send, service):
    assert send(Source(), service.url, origins=["https://orders.internal"]) == 200
    assert service.tokens == [None]


def test_without_a_list_a_token_goes_where_the_program_sends_it(send, service):
    assert send(Source(), service.url) == 200
    assert service.tokens == ["Bearer token-1"]


def test_without_a_list_nothing_goes_unencrypted_over_a_network(send):
    with pytest.raises(ConfigurationError, match="not encrypted"):
        send(Source(), "http://orders.internal/")


@pytest.mark.parametrize("listed", [True, False])
def test_no_token_follows_a_redirect_to_another_origin(send, service, other, listed):
    service.answers = [redirect(f"{other.url}/x")]
    assert send(Source(), service.url, origins=[service.url] if listed else None) == 200
    assert (service.tokens, other.tokens) == (["Bearer token-1"], [None])


def test_a_token_stays_with_a_redirect_inside_its_origin(send, service):
    service.answers = [redirect("/elsewhere")]
    assert send(Source(), service.url, origins=[service.url]) == 200
    assert service.tokens == ["Bearer token-1", "Bearer token-1"]


def test_no_token_goes_with_a_second_hop_either(send, service, other):
    service.answers = [redirect("/again"), redirect(f"{other.url}/x")]
    other.answers = [redirect(f"{service.url}/back")]
    send(Source(), service.url, origins=[service.url])
    assert other.tokens == [None]


def test_a_refusal_by_another_origin_makes_no_new_token(send, service, other):
    service.answers, other.answers = [redirect(f"{other.url}/x")], [REFUSAL]
    source = Source()
    assert send(source, service.url, origins=[service.url]) == 401
    assert (source.dropped, other.tokens) == ([], [None])


def test_credentials_of_the_caller_are_left_alone(send, service):
    send(Source(), service.url, headers={"Authorization": "Basic abc"})
    assert service.tokens == ["Basic abc"]


def test_a_refused_token_is_replaced_once(send, service):
    service.answers = [REFUSAL]
    source = Source()
    assert send(source, service.url, origins=[service.url]) == 200
    assert (service.tokens, source.dropped) == (["Bearer token-1", "Bearer token-2"], ["token-1"])


def test_a_second_refusal_is_the_answer(send, service):
    service.answers = [REFUSAL, REFUSAL, REFUSAL]
    assert send(Source(), service.url, origins=[service.url]) == 401
    assert len(service.seen) == 2


@pytest.mark.parametrize(
    ("status", "challenge"),
    [(401, "Bearer"), (401, 'Bearer error="insufficient_scope"'), (403, 'Bearer error="invalid_token"'), (401, None)],
)
def test_a_refusal_for_another_reason_is_not_retried(send, service, status, challenge):
    fields = [("WWW-Authenticate", challenge)] if challenge else []
    service.answers = [Response(status=status, headers=Headers(fields))]
    source = Source()
    assert send(source, service.url, origins=[service.url]) == status
    assert (len(service.seen), source.dropped) == (1, [])


def test_a_body_in_memory_is_sent_again(send, service):
    service.answers = [REFUSAL]
    assert send(Source(), service.url, origins=[service.url], method="POST", body=b"data") == 200
    assert [body for _, body in service.seen] == [b"data", b"data"]


def test_a_body_that_is_gone_is_not_sent_again(send, service):
    service.answers = [REFUSAL]
    source = Source()
    assert send(source, service.url, origins=[service.url], method="POST", body=[b"once"]) == 401
    assert (len(service.seen), source.dropped) == (1, [])


def test_without_another_token_the_services_answer_stays(send, service):
    service.answers = [REFUSAL]
    assert send(Source(broken_after=1), service.url, origins=[service.url]) == 401
    source = Source()
    source.allows = False
    service.answers = [REFUSAL]
    assert send(source, service.url, origins=[service.url]) == 401
    assert len(service.seen) == 2


def test_no_token_at_all_is_an_error_before_anything_is_sent(send, service):
    with pytest.raises(TokenFetchError):
        send(Source(broken_after=0), service.url, origins=[service.url])
    assert service.seen == []


def test_with_real_tokens_over_the_whole_way(send, service):
    with FakeIssuer() as issuer:
        source = ClientCredentials("orders.read", environ=issuer.environment())
        assert send(source, service.url, origins=[service.url]) == 200
        token = service.tokens[0].removeprefix("Bearer ")
        assert issuer.validator().validate(token, scope="orders.read").sub == "test-client"
        assert len(issuer.token_requests()) == 1


def test_one_auth_object_serves_many_threads(service):
    auth = tokenry.requests.BearerAuth(Source(), origins=[service.url])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: requests.get(service.url, auth=auth, timeout=5), range(40)))
    assert service.tokens == ["Bearer token-1"] * 40


@pytest.mark.parametrize("module", [tokenry.httpx, tokenry.requests])
@pytest.mark.parametrize(
    "origins",
    [
        [],
        ["orders.internal"],
        ["https://orders.internal/path"],
        ["https://u@orders.internal"],
        ["ftp://h"],
        [""],
        ["https://h?x"],
        ["https://h:0x50"],
    ],
    ids=str,
)
def test_origins_must_be_origins(module, origins):
    with pytest.raises(ConfigurationError):
        module.BearerAuth(Source(), origins=origins)


@pytest.mark.parametrize("module", [tokenry.httpx, tokenry.requests])
def test_a_repr_shows_no_token(module):
    source = Source()
    auth = module.BearerAuth(source, origins=["https://orders.internal/"])
    assert "https://orders.internal:443" in repr(auth)
    assert source.get().value not in repr(auth)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Orders.Internal/x", "https://orders.internal:443"),
        ("https://orders.internal:443", "https://orders.internal:443"),
        ("http://h:8080/a?b#c", "http://h:8080"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
        ("https://bücher.example/", "https://xn--bcher-kva.example:443"),
        ("https://good.internal@evil.example/", "https://evil.example:443"),
        ("/relative", None),
        ("https://h:99999/", None),
        ("file:///etc/passwd", None),
        ("https://", None),
    ],
)
def test_an_origin_has_one_spelling(url, origin):
    assert origin_of(url) == origin


def test_what_looks_like_a_listed_origin_is_another_one():
    listed = Origins.of("https://orders.internal")
    assert listed.allow("https://orders.internal/x")
    for url in (
        "http://orders.internal/",
        "https://orders.internal:8443/",
        "https://orders.internal.evil.example/",
        "https://evil.example/https://orders.internal",
        "https://orders.internal@evil.example/",
        "https://orders.internal./",
    ):
        assert not listed.allow(url), url
