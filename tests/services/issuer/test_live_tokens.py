"""Counting live tokens in bounded memory, and pushing the counts."""

import json

import pytest

from tests.services.issuer.support import ISSUER_URL, NOW, running
from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import split
from tokenry.testing.clock import FakeClock
from tokenry_issuer.live_tokens import BUCKET_SECONDS, CounterPush, LiveTokens, boot_name

KEY = PrivateKey.generate()


def test_tokens_are_counted_by_realm_client_and_subject_until_they_expire():
    live = LiveTokens()
    for expires_at in (NOW + 10, NOW + 20, NOW + 1000):
        live.issued(realm="/services", client_id="basket", subject="basket", expires_at=expires_at)
    live.issued(realm="/services", client_id="basket", subject="jdoe", expires_at=NOW + 10)
    rows = {tuple(row[:3]): sum(count for _, count in row[3]) for row in live.rows(NOW)}
    assert rows == {("/services", "basket", "basket"): 3, ("/services", "basket", "jdoe"): 1}
    later = {tuple(row[:3]): sum(count for _, count in row[3]) for row in live.rows(NOW + 10 + BUCKET_SECONDS)}
    assert later == {("/services", "basket", "basket"): 1}
    assert live.rows(NOW + 5000) == []
    assert live._rows == {}


def test_no_token_is_dropped_before_it_expires():
    for expires_at in range(NOW, NOW + 700, 7):
        live = LiveTokens()
        live.issued(realm="r", client_id="c", subject="s", expires_at=expires_at)
        assert live.rows(expires_at - 0.001)


def test_memory_is_bounded_and_what_has_no_room_makes_it_incomplete():
    live = LiveTokens(max_subjects=3)
    for number in range(5):
        live.issued(realm="r", client_id="c", subject=f"s{number}", expires_at=NOW + 100)
    live.issued(realm="r", client_id="c", subject="s0", expires_at=NOW + 100)
    assert len(live.rows(NOW)) == 3
    assert not live.is_complete


class Desk:
    def __init__(self):
        self.answer = Response(status=204)
        self.requests = []

    def fetch(self, request):
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self):
        pass


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def push(desk):
    return CounterPush(
        LiveTokens(), url="https://r.test/revocations", issuer=ISSUER_URL, instance="issuer-1",
        boot=boot_name(b"12345678"), signer=lambda: KEY, new_jti=lambda: "j" * 22, fetcher=desk,
        clock=FakeClock(float(NOW)),
    )  # fmt: skip


async def test_a_push_has_the_whole_state_and_a_token_of_the_issuers_own(push, desk):
    push._live.issued(realm="/services", client_id="basket", subject="jdoe", expires_at=NOW + 100)
    for _ in range(2):
        assert await push.push()
    first, second = desk.requests
    assert first.url == "https://r.test/counters"
    body = json.loads(first.body)
    assert body["rows"][0][:3] == ["/services", "basket", "jdoe"]
    assert (body["as_of"], body["started_at"], body["complete"], body["final"]) == (NOW, NOW, True, False)
    assert json.loads(second.body)["rows"] == body["rows"]
    token = split(first.headers["Authorization"].removeprefix("Bearer "))
    claims = parse_json_object(token.payload)
    assert token.header["typ"] == "at+jwt"
    assert (claims["iss"], claims["aud"], claims["scope"]) == (ISSUER_URL, ISSUER_URL, "revocation.counters")
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize("answer", [FetchFailed(Failure.TIMEOUT, "away"), Response(status=503), Response(status=404)])
async def test_a_push_that_is_not_taken_loses_nothing(push, desk, answer):
    push._live.issued(realm="r", client_id="c", subject="s", expires_at=NOW + 100)
    desk.answer = answer
    assert not await push.push()
    desk.answer = Response(status=204)
    assert await push.push(final=True)
    body = json.loads(desk.requests[-1].body)
    assert (len(body["rows"]), body["final"]) == (1, True)


async def test_without_a_key_nothing_is_pushed(push, desk):
    push._signer = lambda: None
    assert not await push.push()
    assert desk.requests == []


async def test_every_token_that_is_issued_is_counted_and_no_other():
    async with running() as issuer:
        form = {"grant_type": "client_credentials", "realm": "services"}
        assert (await issuer.token(form)).status == 200
        assert (await issuer.password_token(realm="services")).status == 200
        assert (await issuer.token({**form, "scope": "not.mine"})).status == 400
        rows = issuer.issuer.instruments.live.rows(issuer.clock.now())
        assert sorted(row[:3] for row in rows) == [["/services", "orders", "orders"], ["/services", "orders", "robot"]]
        assert [sum(count for _, count in row[3]) for row in rows] == [1, 1]
