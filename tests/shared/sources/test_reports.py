"""What a validator reports of the revocations that it enforces."""

import json
import random

import pytest

from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.sources.reports import MAX_IDS, NOT_TAKEN_SECONDS
from tokenry.sources.revocations import RevocationSource
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer


class Desk:
    """Takes reports, or does not."""

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

    @property
    def bodies(self):
        return [json.loads(request.body) for request in self.requests]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def source(issuer, clock, desk):
    source = RevocationSource(
        "https://r.test", fetcher=issuer, clock=clock, name="orders", version="1.2", report_fetcher=desk
    )
    source._poller.step()
    source._reports._conversation._uniform = random.Random(7)  # noqa: S311 -- jitter
    source._reports.step()  # the first one, as at the start
    desk.requests.clear()
    return source


def read(source, clock, seconds=0.3):
    clock.advance(seconds)
    source._conversation._due = float("-inf")  # as if it had been held open until now
    source._poller.step()


def tell(source, clock, seconds=10):
    clock.advance(seconds)
    source._reports.step()


def test_a_report_says_since_when_a_revocation_is_enforced(source, issuer, clock, desk):
    read(source, clock)
    name = issuer.revocations.revoke_claims({"sub": "basket"})
    read(source, clock)
    enforced_at = clock.now()
    tell(source, clock)
    report = desk.bodies[0]
    assert desk.requests[0].url == "https://r.test/validators/reports"
    assert (report["name"], report["version"]) == ("orders", "1.2")
    assert report["enforced"] == {name: pytest.approx(enforced_at, abs=0.002)}
    assert report["as_of"] == pytest.approx(source.snapshot().as_of)
    assert report["list_age"] == pytest.approx(10, abs=1)


def test_what_the_first_list_brings_is_no_news(issuer, clock, desk):
    issuer.revocations.revoke_claims({"sub": "basket"})
    source = RevocationSource("https://r.test", fetcher=issuer, clock=clock, name="orders", report_fetcher=desk)
    source._poller.step()
    source._reports.step()
    assert desk.bodies[0]["enforced"] == {}


def test_a_revocation_is_reported_once_although_the_service_repeats_it(source, issuer, clock, desk):
    read(source, clock)
    issuer.revocations.revoke_claims({"sub": "basket"})
    read(source, clock)
    tell(source, clock)
    source._conversation._cursor = "0"  # the service sends everything again
    read(source, clock)
    for _ in range(30):
        tell(source, clock)
    assert sum(len(body["enforced"]) for body in desk.bodies) == 1


def test_many_revocations_at_once_make_few_and_bounded_reports(source, issuer, clock, desk):
    read(source, clock)
    for number in range(2 * MAX_IDS):
        issuer.revocations.revoke_claims({"sub": f"s{number}"})
    read(source, clock)
    for _ in range(100):
        tell(source, clock, 0.5)
    assert len(desk.requests) <= 2
    assert all(len(body["enforced"]) <= MAX_IDS for body in desk.bodies)


def test_without_news_it_tells_its_age_once_a_minute(source, clock, desk):
    for _ in range(600):
        tell(source, clock, 1)
    assert 9 <= len(desk.requests) <= 14


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_where_reports_are_not_taken_it_asks_again_much_later(source, issuer, clock, desk, status):
    desk.answer = Response(status=status)
    tell(source, clock, 70)
    assert len(desk.requests) == 1
    for _ in range(50):
        tell(source, clock, 10)
    assert len(desk.requests) == 1
    tell(source, clock, NOT_TAKEN_SECONDS)
    assert len(desk.requests) == 2


@pytest.mark.parametrize("answer", [FetchFailed(Failure.TIMEOUT, "away"), Response(status=503)])
def test_what_could_not_be_told_is_told_later(source, issuer, clock, desk, answer):
    read(source, clock)
    name = issuer.revocations.revoke_claims({"sub": "basket"})
    read(source, clock)
    desk.answer = answer
    tell(source, clock)
    desk.answer = Response(status=204)
    tell(source, clock, 30)
    assert list(desk.bodies[-1]["enforced"]) == [name]
    tell(source, clock, 30)


def test_a_source_without_a_fetcher_for_reports_sends_none(issuer, clock):
    source = RevocationSource("https://r.test", fetcher=issuer, clock=clock, name="orders")
    assert source._others() == []
