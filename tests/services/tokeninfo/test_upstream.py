import asyncio
import json

import pytest

from tests.support.access_tokens import NOW, token
from tokenry.errors import InvalidToken
from tokenry.jose.encoding import dump_json
from tokenry.serving.outgoing import Answer, TimedOut, Unreachable
from tokenry.testing.clock import FakeClock
from tokenry_tokeninfo.breaker import FAILURES, FIRST_PAUSE_SECONDS
from tokenry_tokeninfo.upstream import REFUSED_SECONDS, Upstream

URL = "https://upstream.test/tokeninfo"


def said(**members):
    return Answer(status=200, body=dump_json({"access_token": "opaque", "uid": "old", "expires_in": 100, **members}))


async def test_an_opaque_token_is_asked_about_upstream_and_remembered(start):
    async with start(upstream_url=URL, upstream_timeout=1.5) as service:
        service.calls.handle = lambda _: said()
        first, second = await service.info("opaque"), await service.info("opaque")
        assert [answer.headers["X-Cache"] for answer in (first, second)] == ["MISS", "HIT"]
        assert first.json == second.json == {"access_token": "opaque", "uid": "old", "expires_in": 100}
        (asked,) = service.calls.asked
        assert (asked["url"], asked["headers"]["Authorization"]) == (URL, "Bearer opaque")
        assert asked["deadline"] == 1.5


async def test_contract_4_12_a_remembered_answer_grows_old_and_ends_with_the_token(start):
    async with start(upstream_url=URL, upstream_cache_ttl=1000) as service:
        service.calls.handle = lambda _: said(expires_in=10)
        await service.info("opaque")
        service.clock.advance(9.5)
        assert (await service.info("opaque")).json["expires_in"] == 0
        service.clock.advance(0.5)
        assert (await service.info("opaque")).headers["X-Cache"] == "MISS"


async def test_it_is_remembered_no_longer_than_configured(start):
    async with start(upstream_url=URL, upstream_cache_ttl=5) as service:
        service.calls.handle = lambda _: said()
        await service.info("opaque")
        service.clock.advance(5)
        assert (await service.info("opaque")).headers["X-Cache"] == "MISS"


@pytest.mark.parametrize("expires_in", [None, "100", True, 0, -5])
async def test_without_a_life_it_is_not_remembered(start, expires_in):
    async with start(upstream_url=URL) as service:
        service.calls.handle = lambda _: said(expires_in=expires_in)
        assert [(await service.info("opaque")).headers["X-Cache"] for _ in range(2)] == ["MISS", "MISS"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_token_that_it_refuses_is_401_and_remembered_for_a_moment(start, status):
    async with start(upstream_url=URL) as service:
        service.calls.handle = lambda _: Answer(status=status, body=b"{}")
        for _ in range(2):
            answer = await service.info("opaque")
            assert (answer.status, answer.json["error"]) == (401, "invalid_token")
        assert len(service.calls.asked) == 1
        service.calls.handle = lambda _: said()
        service.clock.advance(REFUSED_SECONDS)
        assert (await service.info("opaque")).status == 200


async def test_bad_tokens_drive_no_good_one_out():
    calls = Answers(lambda token: said() if token == "good" else Answer(status=401, body=b"{}"))
    asked = upstream(calls, cache_size=2)
    await asked.ask("good")
    for number in range(50):
        with pytest.raises(InvalidToken):
            await asked.ask(f"bad-{number}")
    assert (await asked.ask("good")).remembered


async def test_an_upstream_that_keeps_failing_is_left_alone_and_tried_again():
    clock, working = FakeClock(), False
    calls = Answers(lambda _: said() if working else Answer(status=500, body=b""))
    asked = upstream(calls, clock=clock)
    for number in range(FAILURES + 3):
        with pytest.raises(Unreachable):
            await asked.ask(f"t{number}")
    assert (calls.count, asked.left_alone) == (FAILURES, True)
    clock.advance(FIRST_PAUSE_SECONDS)
    for _ in range(2):  # one trial, which fails
        with pytest.raises(Unreachable):
            await asked.ask("t")
    assert calls.count == FAILURES + 1
    working = True
    clock.advance(2 * FIRST_PAUSE_SECONDS)
    assert not (await asked.ask("t")).remembered
    assert not asked.left_alone


async def test_that_it_refuses_tokens_is_no_failure():
    asked = upstream(Answers(lambda _: Answer(status=401, body=b"{}")))
    for number in range(3 * FAILURES):
        with pytest.raises(InvalidToken):
            await asked.ask(f"t{number}")
    assert not asked.left_alone


async def test_an_old_yes_is_not_given_when_there_is_no_newer_one():
    clock, working = FakeClock(), True
    asked = upstream(Answers(lambda _: said() if working else Answer(status=500, body=b"")), clock=clock)
    await asked.ask("t")
    working = False
    clock.advance(9)  # `cache_seconds`
    for _ in range(FAILURES + 2):
        with pytest.raises(Unreachable):
            await asked.ask("t")


class Answers:
    def __init__(self, answer):
        self.answer, self.count = answer, 0

    async def call(self, _method, _url, *, headers, **_more):
        self.count += 1
        return self.answer(headers["Authorization"].removeprefix("Bearer "))


def upstream(calls, **changes):
    settings = {
        "clock": FakeClock(), "timeout_seconds": 1, "cache_size": 100, "cache_seconds": 9, "concurrency": 5,
    }  # fmt: skip
    return Upstream(url=URL, calls=calls, **settings | changes)


# --- introspection of opaque tokens -------------------------------------------------------------------------


async def test_an_opaque_token_is_introspected_upstream(start):
    async with start(upstream_url=URL, introspection_scopes='{"gateway": ["orders.*"]}') as service:
        service.calls.handle = lambda _: said(scope=["uid", "orders.read"], realm="/services", expires_in=100.5)
        for _ in range(2):
            assert (await service.introspect("opaque")).json == {
                "active": True, "sub": "old", "realm": "/services", "scope": "orders.read", "token_type": "Bearer",
                "exp": NOW + 100,
            }  # fmt: skip
        assert len(service.calls.asked) == 1
        service.calls.handle = lambda _: Answer(status=401, body=b"{}")
        assert (await service.introspect("other")).body == b'{"active":false}'
        service.calls.handle = lambda _: Answer(status=500, body=b"")
        assert (await service.introspect("third")).status == 502
        assert (await service.introspect("fourth", audience="x")).body == b'{"active":false}'


@pytest.mark.parametrize("members", [{"scope": None}, {"scope": ["a b"]}, {"scope": [1]}, {"scope": "uid"},
                                     {"scope": [], "expires_in": "10"}, {"scope": [], "expires_in": 0},
                                     {"scope": [], "expires_in": True}])  # fmt: skip
async def test_what_is_no_token_info_makes_no_token_active(start, members):
    async with start(upstream_url=URL) as service:
        service.calls.handle = lambda _: said(**members)
        assert (await service.introspect("opaque")).body == b'{"active":false}'


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(TimedOut("t"), 504), (Unreachable("u"), 502), (Answer(status=500, body=b""), 502),
     (Answer(status=302, body=b""), 502),
     (Answer(status=200, body=b"<html>"), 502), (Answer(status=200, body=b"[]"), 502)],
)  # fmt: skip
async def test_an_upstream_that_fails_is_502_and_one_that_is_late_504(start, outcome, status):
    def handle(_call):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with start(upstream_url=URL) as service:
        service.calls.handle = handle
        answer = await service.info("opaque")
        assert (answer.status, set(answer.json)) == (status, {"error", "error_description"})


async def test_what_is_no_bearer_token_is_not_sent_on(start):
    async with start(upstream_url=URL) as service:
        for text in (" x", "a b", "a\tb", "a\u00e9", '"'):
            answer = await service.ask("GET", "/oauth2/tokeninfo", params={"access_token": text})
            assert answer.status == 401
        assert service.calls.asked == []


async def test_a_jwt_is_never_sent_on(start):
    async with start(upstream_url=URL) as service:
        assert (await service.info(token())).status == 200
        assert (await service.info("a.b.c")).status == 401
        assert service.calls.asked == []


async def test_without_an_upstream_an_opaque_token_is_refused(service):
    assert (await service.info("opaque")).status == 401


async def test_contract_4_12_calls_at_a_time_are_bounded_and_waiting_counts_against_the_deadline():
    running, most = 0, 0

    class Slow:
        async def call(self, *_args, **_more):
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(0.1)
            finally:
                running -= 1
            return said()

    asked = upstream(Slow(), timeout_seconds=0.25, concurrency=2)
    outcomes = await asyncio.gather(*(asked.ask(f"t{n}") for n in range(10)), return_exceptions=True)
    assert most == 2
    assert {type(outcome).__name__ for outcome in outcomes} == {"UpstreamAnswer", "TimedOut"}


async def test_memory_is_bounded_by_count():
    asked = upstream(Answers(lambda _: said()), cache_size=3)
    for number in range(10):
        await asked.ask(f"t{number}")
    assert len(asked) == 3
    assert (await asked.ask("t9")).remembered
    assert not (await asked.ask("t0")).remembered


def test_the_answer_shows_no_token():
    assert "opaque" not in repr(said())
    assert json.loads(said().body)["access_token"] == "opaque"
