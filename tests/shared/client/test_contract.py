"""
What the library promises about tokens, tried at random: `get` gives a token or one clear error, quickly, and
never a flood of requests.
"""

import asyncio
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenry import ClientCredentials, TokenFetchError
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.testing import FakeClock, FakeIssuer

ENVIRON = {
    "TOKENRY_TOKEN_URL": "https://issuer.test/oauth2/token",
    "TOKENRY_CLIENT_ID": "orders",
    "TOKENRY_CLIENT_SECRET": "very-secret-indeed",
}


class Scripted:
    """An issuer that answers by script, and counts what is under way at once."""

    def __init__(self, clock, *, pause=0.0):
        self.clock, self.pause = clock, pause
        self.lifetime, self.mood = 3600.0, "good"
        self.asked, self.now, self.most, self.lock = [], 0, 0, threading.Lock()

    def fetch(self, request):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.asked.append(self.clock.monotonic())
            number = len(self.asked)
        try:
            time.sleep(self.pause)
            return self._answer(number)
        finally:
            with self.lock:
                self.now -= 1

    def _answer(self, number):
        if self.mood == "gone":
            raise FetchFailed(Failure.CONNECT, "nobody there")
        if self.mood == "slow":
            raise FetchFailed(Failure.TIMEOUT, "too slow")
        if self.mood == "garbage":
            return Response(status=200, body=b"<html>very-secret-indeed</html>")
        if self.mood == "wrong":
            return Response(status=401, body=b'{"error":"invalid_client"}')
        if self.mood == "busy":
            return Response(status=503, headers=Headers([("Retry-After", "7")]))
        body = f'{{"access_token":"token-{number}","token_type":"Bearer","expires_in":{self.lifetime}}}'
        return Response(status=200, body=body.encode())

    def cancel(self):
        pass


def make(clock, issuer):
    return ClientCredentials("a", environ=ENVIRON, clock=clock, fetcher=issuer, pause=lambda _: None)


def settle(source):
    """Return when no flight is under way."""
    end = time.monotonic() + 5
    while source._flight is not None and time.monotonic() < end:
        time.sleep(0.0005)


def test_forty_threads_and_fifty_coroutines_make_one_request():
    clock = FakeClock()
    issuer = Scripted(clock, pause=0.2)
    source = make(clock, issuer)

    async def fifty():
        return [token.value for token in await asyncio.gather(*(source.aget() for _ in range(50)))]

    with ThreadPoolExecutor(42) as pool:
        threads = [pool.submit(lambda: source.get().value) for _ in range(40)]
        loops = [pool.submit(asyncio.run, fifty()) for _ in range(2)]
        values = {future.result() for future in threads} | {value for loop in loops for value in loop.result()}
    assert values == {"token-1"}
    assert len(issuer.asked) == 1


@pytest.mark.parametrize("mood", ["gone", "slow", "garbage", "wrong", "busy"])
def test_forty_threads_that_get_no_token_make_no_flood_either(mood):
    clock = FakeClock()
    issuer = Scripted(clock, pause=0.05)
    issuer.mood = mood
    source = make(clock, issuer)

    def ask(_):
        with pytest.raises(TokenFetchError) as caught:
            source.get()
        return str(caught.value)

    with ThreadPoolExecutor(40) as pool:
        said = set(pool.map(ask, range(200)))
    assert len(issuer.asked) <= 3  # the tries of one flight
    assert issuer.most == 1
    assert not any("very-secret-indeed" in text for text in said)


def test_tokens_of_one_second_never_flood():
    clock = FakeClock()
    issuer = Scripted(clock)
    issuer.lifetime = 1.0
    source = make(clock, issuer)
    for _ in range(400):  # ten seconds, forty asks a second
        assert source.get().value.startswith("token-")
        settle(source)
        clock.advance(0.025)
    assert len(issuer.asked) <= 14
    spaced = [later - earlier for earlier, later in zip(issuer.asked, issuer.asked[1:], strict=False)]
    assert issuer.most == 1
    assert spaced


def test_a_held_token_costs_microseconds():
    clock = FakeClock()
    source = make(clock, Scripted(clock))
    source.get()
    started = time.perf_counter()
    for _ in range(10_000):
        source.get()
    assert (time.perf_counter() - started) / 10_000 < 100e-6  # ten times what a loaded machine needs


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["good", "gone", "slow", "garbage", "wrong", "busy"]),
        st.floats(min_value=0.0, max_value=2000.0),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, lifetime=st.sampled_from([1.0, 5.0, 60.0, 600.0, 3600.0]))
def test_whatever_the_issuer_does_there_is_a_token_or_one_clear_error(events, lifetime):
    clock = FakeClock()
    issuer = Scripted(clock)
    issuer.lifetime = lifetime
    source = make(clock, issuer)
    held_until, begun = float("-inf"), clock.monotonic()
    for mood, passed, refused in events:
        issuer.mood = mood
        before = len(issuer.asked)
        try:
            token = source.get()
        except TokenFetchError as error:
            # Only without a token that is good for 10 s more (less, of a short one).
            assert clock.monotonic() >= held_until
            assert "very-secret-indeed" not in str(error) + repr(error)
            assert "orders" in str(error)
        else:
            assert token.value.startswith("token-")
            assert token.expires_at > clock.now()
        settle(source)
        assert len(issuer.asked) - before <= 4  # a renewal and, of one flight, three tries
        held = source._schedule.held
        held_until = held.retire_at if held is not None else float("-inf")
        if refused and held is not None:
            source.invalidate(held.token)
            held = source._schedule.held
            held_until = held.retire_at if held is not None else float("-inf")
        clock.advance(passed)
    assert issuer.most <= 1
    # One flight a second at the most, of three tries.
    assert len(issuer.asked) <= 3 * (clock.monotonic() - begun + len(events) + 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_fleet_does_not_renew_at_one_moment(seed):
    uniform = random.Random(seed)  # noqa: S311 - not for secrets
    clock = FakeClock()
    issuer = Scripted(clock)
    renewals = []
    for _ in range(20):
        source = make(clock, issuer)
        source._schedule.uniform = uniform
        source.get()
        renewals.append(source._schedule.held.renew_at - clock.monotonic())
    assert all(0.70 * 3600 <= moment <= 0.80 * 3600 for moment in renewals)
    assert max(renewals) - min(renewals) > 60


def test_a_token_is_in_no_repr_log_or_error(caplog):
    caplog.set_level(logging.DEBUG)
    with FakeIssuer() as issuer:
        source = ClientCredentials("a", environ=issuer.environment())
        token = source.get()
        source.invalidate(token)
        issuer.down = True
        with pytest.raises(TokenFetchError) as caught:
            source.get()
    shown = caplog.text + repr(source) + repr(token) + str(caught.value) + repr(vars(source))
    assert token.value not in shown
    assert issuer.clients["test-client"] not in shown
