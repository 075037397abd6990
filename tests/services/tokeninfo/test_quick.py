"""What is answered at once is what the ordinary way answers, and nothing else."""

import asyncio

import pytest
import structlog
from multidict import CIMultiDict, CIMultiDictProxy

from tests.services.tokeninfo.conftest import CALLER, bearer
from tests.services.tokeninfo.conftest import answered_at_once as quick
from tests.support.access_tokens import ISSUER, LIFETIME, token
from tests.support.garbage import frames_left
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.serving.keys import HEALTH
from tokenry.serving.quick import QUICK
from tokenry.validation.snapshots import Snapshot

ROUTES = [
    ("GET", "/oauth2/tokeninfo", {}),
    ("GET", "/auth?scope=orders.read", {}),
    ("GET", "/auth?scope=nothing&scope=orders.read&any=1", {}),
    ("GET", "/auth?authenticated=1", {}),
    ("DELETE", "/auth?scope=orders.read", {}),
    ("GET", "/auth/some/path?scope=admin", {"Tokenry-Require": "scope=orders.read"}),
]


REFUSED = b"HTTP/1.1 401 "
# What differs from answer to answer, or only because the other connection is closed.
CHANGING = {"x-request-id", "date", "connection"}


def steady(headers):
    return {name.lower(): value for name, value in headers.items() if name.lower() not in CHANGING}


@pytest.mark.parametrize(("method", "path", "headers"), ROUTES)
@pytest.mark.parametrize(
    "claims",
    [{}, {"sub": "josé ünï", "scope": "uid orders.read", "aud": ["x", "y"]}, {"client_id": "a b", "azp": "a b"}],
)
async def test_it_is_the_answer_of_the_ordinary_way(service, method, path, headers, claims):
    fields = bearer(token(**claims)) | headers
    assert quick(service, token(**claims), path=path, method=method, **headers) is not None
    ordinary = await service.ask(method, path, headers=fields | {"Connection": "close"})
    for _ in range(4):  # the first on a new connection is never quick
        answer = await service.ask(method, path, headers=fields)
        assert (answer.status, answer.body) == (ordinary.status, ordinary.body)
        assert steady(answer.headers) == steady(ordinary.headers)
        assert "Date" in answer.headers
        assert answer.headers["X-Request-Id"] != ordinary.headers["X-Request-Id"]
        service.clock.advance(seconds=7)  # whole: an age is rounded up to the second
        ordinary = await service.ask(method, path, headers=fields | {"Connection": "close"})


@pytest.mark.parametrize(("method", "path", "headers"), ROUTES)
@pytest.mark.parametrize(
    "claims", [{"exp": 1}, {"sub": 5}, {"iss": "https://elsewhere.example"}, {"nbf": 99_999_999_999}]
)
async def test_so_is_a_refusal(service, method, path, headers, claims, capsys):
    fields = bearer(token(**claims)) | headers
    assert quick(service, token(**claims), path=path, method=method, **headers).startswith(REFUSED)
    ordinary = await service.ask(method, path, headers=fields | {"Connection": "close"})
    assert ordinary.status == 401
    for _ in range(3):
        answer = await service.ask(method, path, headers=fields)
        assert (answer.status, answer.body) == (ordinary.status, ordinary.body)
        assert steady(answer.headers) == steady(ordinary.headers)


@pytest.mark.parametrize("extra", [{}, {"Connection": "close"}])  # at once, and the ordinary way
async def test_a_refused_token_leaves_nothing_to_the_garbage_collector(service, extra):
    with frames_left() as left:
        for method, path, _ in ROUTES[:2]:
            answer = await service.ask(method, path, headers=bearer(token(exp=1)) | extra)
            assert answer.status == 401
        await service.introspect(token(exp=1))
        await asyncio.sleep(0.05)  # until the connections have ended
    assert left == []


async def test_a_refusal_is_logged_as_the_ordinary_way_does(service):
    """The reason, and the request with its caller; both with the request's id, and without the token."""
    with structlog.testing.capture_logs() as logs:
        quick(service, token(sub=5), **{"X-Request-Id": "abc-1"})
    reason, request = logs
    assert (reason["event"], reason["reason"]) == ("token refused", "malformed_claims")
    assert (request["event"], request["status"], request["route"]) == ("request", 401, "/oauth2/tokeninfo")
    assert request["client_address"] == "192.0.2.7"
    assert "eyJ" not in repr(logs)


@pytest.mark.parametrize("access_token", ["opaque", "a.b", "a.b.c.d.e"])
async def test_what_is_no_jwt_goes_the_ordinary_way_where_somebody_else_may_know_it(start, access_token):
    async with start(upstream_url="http://127.0.0.1:9/") as service:
        assert quick(service, access_token) is None
    async with start() as service:
        assert quick(service, access_token).startswith(REFUSED)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/oauth2/tokeninfo", {}),
        ("HEAD", "/oauth2/tokeninfo", {}),
        ("GET", "/oauth2/tokeninfo?access_token=x", {}),
        ("GET", "/oauth2/tokeninfo?audience=x", {}),
        ("GET", "/oauth2/introspect", {}),
        ("GET", "/auth", {}),
        ("GET", "/auth?", {}),
        ("GET", "/auth?scope=admin", {}),
        ("GET", "/auth?scope=orders%2eread", {}),
        ("GET", "/auth?scope=orders.read#fragment", {}),
        ("GET", "/auth?scope=orders.read&unknown=1", {}),
        ("HEAD", "/auth?scope=orders.read", {}),
        ("BREW", "/auth?scope=orders.read", {}),
        ("GET", "/auth/x?scope=orders.read", {}),
        ("GET", "/auth/x", {"Tokenry-Require": "scope=admin"}),
        ("GET", "/auth/x", {"Tokenry-Require": "nonsense"}),
    ],
)
def test_what_is_not_plain_goes_the_ordinary_way(service, method, path, headers):
    assert quick(service, token(), method=method, path=path, **headers) is None


def test_so_does_a_request_without_exactly_one_token(service):
    for fields in ([], [("Authorization", "Basic eA==")], [("Authorization", "bearer " + token())],
                   [("Authorization", "Bearer " + token())] * 2):  # fmt: skip
        assert service.app[QUICK]("GET", "/oauth2/tokeninfo", CIMultiDictProxy(CIMultiDict(fields)), CALLER) is None


async def test_V27_what_is_remembered_of_an_answer_is_judged_again_at_each_use(service):
    access_token = token()
    for _ in range(3):
        assert quick(service, access_token) is not None
    service.simulator.revoke_token(iss=ISSUER, jti="MTIzNDU2Nzg5MGFiY2RlZg", signing_input="", exp=service.clock.now())
    service.simulator.revoke_claims({"sub": "stock"})
    service.renew_list()
    assert quick(service, access_token).startswith(REFUSED)
    assert (await service.info(access_token)).status == 401


def test_an_answer_ends_with_its_token(service):
    access_token = token()
    for _ in range(3):
        assert quick(service, access_token) is not None
    service.clock.advance(seconds=LIFETIME - 1)
    service.renew_list()
    assert b'"expires_in":1,' in quick(service, access_token)
    service.clock.advance(seconds=1)
    assert quick(service, access_token).startswith(REFUSED)


def test_V28_an_answer_ends_with_the_freshness_of_the_list(service):
    access_token = token()
    for _ in range(3):
        assert quick(service, access_token) is not None
    service.clock.advance(seconds=901)
    assert quick(service, access_token) is None


def test_an_answer_ends_with_its_key(service):
    access_token = token()
    for _ in range(3):
        assert quick(service, access_token) is not None
    other = KeySet.of(ISSUER, [PrivateKey.generate().public])
    service.keys.held = Snapshot(value=other, as_of=service.clock.now(), age_at_request=0, requested_at=0)
    assert quick(service, access_token) is None


def test_no_age_is_younger_than_the_list(service):
    access_token = token()
    quick(service, access_token)
    service.clock.advance(seconds=10.25)
    assert b"age=11.000\r\n" in quick(service, access_token)


def test_a_request_keeps_its_id_if_that_is_a_sane_one(service):
    assert b"\r\nX-Request-Id: abc-1\r\n" in quick(service, token(), **{"X-Request-Id": "abc-1"})
    answer = quick(service, token(), **{"X-Request-Id": "a\r\nX-Evil: 1"})
    assert answer is not None
    assert b"Evil" not in answer


async def test_a_service_that_drains_closes_connections_the_ordinary_way(service):
    health = service.app[HEALTH]
    assert quick(service, token()) is not None
    health.drain()
    assert quick(service, token()) is None


async def test_where_every_request_is_logged_nothing_is_quick(start):
    async with start(log_level="debug") as service:
        assert service.app.get(QUICK) is None


async def test_every_request_and_validation_is_counted_once(service):
    for _ in range(5):
        await service.info(token())
    for _ in range(3):
        await service.info(token()[:-4] + "AAAA")
    assert service.metric("tokenry_validations_total", result="ok") == 5
    assert service.metric("tokenry_validations_total", result="bad_signature") == 3
    labels = {"http_request_method": "GET", "http_route": "/oauth2/tokeninfo", "http_response_status_code": "200"}
    assert service.metric("http_server_request_duration_seconds_count", **labels) == 5


async def test_answers_come_in_the_order_of_the_requests(service):
    host, port = service.address.rsplit(":", 1)
    good, bad = token(), token()[:-4] + "AAAA"
    reader, writer = await asyncio.open_connection(host, int(port))
    for wanted in ([good], [good, bad, good, good], [bad, bad], [good, good, bad]):
        for each in wanted:
            writer.write(f"GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {each}\r\n\r\n".encode())
        found = [await one_answer(reader) for _ in wanted]
        assert found == [b"200" if each == good else b"401" for each in wanted]
    writer.close()


async def test_a_request_in_pieces_is_answered_whole(service):
    host, port = service.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n\r\n".encode()
    for _ in range(3):
        for piece in (request[:10], request[10:200], request[200:-1], request[-1:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        assert await one_answer(reader) == b"200"
    writer.close()


async def one_answer(reader):
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        return head.split()[1]


async def test_requests_at_once_behind_ordinary_ones_keep_their_order(service):
    """All in one piece, so that the next request is there before the answer to the last one has been written."""
    host, port = service.address.rsplit(":", 1)
    good, bad = token(), token()[:-4] + "AAAA"
    reader, writer = await asyncio.open_connection(host, int(port))
    kinds = {
        "q": ("GET", f"Bearer {good}", b"200"),
        "b": ("GET", f"Bearer {bad}", b"401"),
        "o": ("GET", f"bearer {bad}", b"401"),
        "p": ("PUT", f"Bearer {good}", b"405"),
    }
    for wanted in ("oq", "qoqboq", "pqobqp", "oooqbqq"):
        for each in wanted:
            method, field, _ = kinds[each]
            head = f"{method} /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nAuthorization: {field}\r\n\r\n"
            writer.write(head.encode())
            await asyncio.sleep(0)  # another piece, another event of the loop
        assert [await one_answer(reader) for _ in wanted] == [kinds[each][2] for each in wanted]
    writer.close()
