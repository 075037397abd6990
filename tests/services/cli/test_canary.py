import json

import pytest
from prometheus_client import generate_latest
from typer.testing import CliRunner

from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.secret import Secret
from tokenry.serving.metrics import Metrics
from tokenry_cli.__main__ import app
from tokenry_cli.canary import PROMISE_SECONDS, Flight, Measures, Outcome, fly
from tokenry_cli.context import Context
from tokenry_cli.platform import Platform


class Services:
    """Three services in one, by the canary's own time."""

    def __init__(self, *, refuses_after=2.0):
        self.seconds = 0.0
        self.refuses_after = refuses_after
        self.revoked_at = None
        self.first = 200
        self.away = None
        self.posted = []

    def fetch(self, request):
        path = request.url.partition("//")[2].partition("/")[2]
        if self.away and path.startswith(self.away):
            raise FetchFailed(Failure.TIMEOUT, "away")
        if path == "oauth2/token":
            return Response(status=200, body=b'{"access_token":"t","expires_in":60,"scope":""}')
        if path == "revocations":
            self.revoked_at = self.seconds
            self.posted.append(json.loads(request.body))
            return Response(status=201, body=b'{"id":"r1"}')
        late = self.revoked_at is not None and self.seconds - self.revoked_at >= self.refuses_after
        return Response(status=401 if late else self.first)

    def cancel(self):
        pass

    def sleep(self, seconds):
        self.seconds += seconds

    def fly(self):
        url = "https://p.test"
        context = Context(issuer=url, tokeninfo=url, revocation=url, client_id="canary", client_secret=Secret("s"))
        return fly(Platform(context, fetcher=self), now=lambda: self.seconds, sleep=self.sleep)


def test_it_times_from_the_revocation_to_the_first_refusal():
    services = Services(refuses_after=2.0)
    flight = services.fly()
    assert flight.outcome is Outcome.REFUSED
    assert flight.seconds == pytest.approx(2.0, abs=0.11)
    assert services.posted == [{"type": "TOKEN", "data": {"token": "t", "reason": "test"}}]


def test_a_token_that_is_accepted_beyond_every_promise_is_an_outcome_of_its_own():
    services = Services(refuses_after=10**6)
    assert services.fly().outcome is Outcome.STILL_ACCEPTED
    assert services.seconds == pytest.approx(PROMISE_SECONDS, abs=0.3)


def test_a_fresh_token_that_is_refused_is_not_taken_for_a_revocation():
    services = Services()
    services.first = 401
    assert services.fly().outcome is Outcome.NOT_ACCEPTED
    assert services.posted == []


@pytest.mark.parametrize("away", ["oauth2/token", "revocations", "oauth2/tokeninfo"])
def test_a_service_that_is_away_is_a_failed_flight(away):
    services = Services()
    services.away = away
    flight = services.fly()
    assert (flight.outcome, flight.seconds) == (Outcome.FAILED, None)


def test_every_outcome_is_counted_from_the_start():
    measures = Measures(Metrics(service="canary"))
    measures.landed(Flight(outcome=Outcome.REFUSED, seconds=0.3))
    text = generate_latest(measures.registry).decode()
    assert 'tokenry_canary_flights_total{outcome="refused"} 1.0' in text
    assert 'tokenry_canary_flights_total{outcome="still_accepted"} 0.0' in text
    assert 'tokenry_canary_revocation_seconds_bucket{le="0.5"} 1.0' in text


def test_without_token_info_there_is_nothing_to_time(monkeypatch):
    monkeypatch.setenv("TOKENRY_ISSUER", "http://127.0.0.1:9")
    assert CliRunner().invoke(app, ["canary", "--flights", "1"]).exit_code == 2


def test_a_flight_that_failed_is_its_exit_status(monkeypatch):
    for name, value in (
        ("ISSUER", "http://127.0.0.1:9"), ("TOKENINFO_URL", "http://127.0.0.1:9"), ("CLIENT_ID", "a"),
        ("CLIENT_SECRET", "b"),
    ):  # fmt: skip
        monkeypatch.setenv(f"TOKENRY_{name}", value)
    result = CliRunner().invoke(app, ["canary", "--flights", "1", "--metrics-port", "0"])
    assert result.exit_code == 6
    assert "failed" in result.output
