"""Waiting until issuers have what was written: by what they say of themselves, on no clock but ours."""

import pytest

from tests.services.issuer.support import running
from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.testing.clock import FakeClock
from tokenry_admin.issuers import BoundWaited, IssuersAsked, NotSettled


class Fleet:
    """Issuers with the monotonic times at which their last complete refreshes began."""

    def __init__(self, clock, **began):
        self.clock = clock
        self.began = began
        self.delay = 0.0
        self.bodies = {}

    def fetch(self, request):
        name = request.url.removeprefix("http://").removesuffix("/metrics")
        began = self.began[name]
        if began is None:
            raise FetchFailed(Failure.CONNECT, "down")
        self.clock.advance(self.delay)
        age = self.clock.monotonic() - began
        body = self.bodies.get(name, f"# HELP x y\ntokenry_credentials_age_seconds {age}\n".encode())
        return Response(status=200, body=body)


def asked(fleet, *, refresh=None, deadline=75.0):
    async def sleep(seconds):
        fleet.clock.advance(seconds)
        if refresh is not None:
            refresh()

    urls = [f"http://{name}/" for name in fleet.began]
    return IssuersAsked(urls, fetcher=fleet, clock=fleet.clock, sleep=sleep, deadline=deadline)


async def test_it_returns_once_every_issuer_has_begun_a_refresh_after_the_write():
    clock = FakeClock()
    written = clock.monotonic()
    fleet = Fleet(clock, a=written - 5, b=written - 25)
    rounds = []

    def refresh():
        rounds.append(clock.monotonic())
        fleet.began["a"] = clock.monotonic()
        if len(rounds) == 3:
            fleet.began["b"] = clock.monotonic() - 0.5

    await asked(fleet, refresh=refresh)(written)
    assert len(rounds) == 3


async def test_a_refresh_that_began_before_the_write_does_not_count_however_slow_the_answer():
    clock = FakeClock()
    written = clock.monotonic()
    fleet = Fleet(clock, a=written - 0.5)
    fleet.delay = 3.0
    with pytest.raises(NotSettled, match="http://a"):
        await asked(fleet)(written)


@pytest.mark.parametrize("body", [b"", b"tokenry_credentials_age_seconds NaN\n", b"x" * 100,
                                  b"tokenry_credentials_age_seconds 1e\n"])  # fmt: skip
async def test_what_says_nothing_of_its_age_has_not_read_it(body):
    clock = FakeClock()
    fleet = Fleet(clock, a=clock.monotonic() + 1e6, b=clock.monotonic() + 1e6)
    fleet.bodies["a"] = body
    with pytest.raises(NotSettled) as error:
        await asked(fleet)(clock.monotonic())
    assert "http://a" in str(error.value)
    assert "http://b" not in str(error.value)


async def test_an_issuer_that_is_away_is_waited_for_and_named():
    clock = FakeClock()
    fleet = Fleet(clock, gone=None)
    started = clock.monotonic()
    with pytest.raises(NotSettled, match="http://gone"):
        await asked(fleet, deadline=20)(clock.monotonic())
    assert 20 <= clock.monotonic() - started <= 22


async def test_without_addresses_it_waits_for_as_long_as_an_issuer_may_take():
    clock, slept = FakeClock(), []

    async def sleep(seconds):
        slept.append(seconds)

    written = clock.monotonic()
    clock.advance(5)
    await BoundWaited(clock=clock, sleep=sleep)(written)
    assert slept == [pytest.approx(70)]


async def test_a_real_issuer_says_how_old_its_credentials_are_in_these_words():
    async with running() as issuer:
        clock = issuer.clock

        class Scraped:
            def __init__(self):
                self.body = b""

            def fetch(self, _request):
                return Response(status=200, body=self.body)

        scraped = Scraped()

        async def look(_seconds=0.0):
            clock.advance(1)
            scraped.body = (await issuer.call("GET", "/metrics")).body

        await look()
        written = clock.monotonic()
        waiting = IssuersAsked(["http://issuer"], fetcher=scraped, clock=clock, sleep=look, deadline=5)
        with pytest.raises(NotSettled):
            await waiting(written)
        await issuer.refresh()
        await look()
        await waiting(written)
