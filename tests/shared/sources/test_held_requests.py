"""A list that nothing is wrong with never gets older than its validator allows."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tokenry.sources.revocation_conversation import longest_hold
from tokenry.sources.revocations import RevocationSource
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer


class HoldingServer:
    """A service without news, which holds every request for as long as it is asked to."""

    def __init__(self, clock):
        self.clock, self.issuer, self.ages = clock, FakeIssuer(clock=clock), []

    def fetch(self, request):
        wait = int(parse_qs(urlsplit(request.url).query).get("wait", ["0"])[0])
        assert wait < request.deadline_seconds
        self.clock.advance(wait)
        held = self.source.snapshot()
        if held is not None:  # as old as it gets: the answer is about to come
            self.ages.append(held.age(now=self.clock.now(), monotonic=self.clock.monotonic()))
        return self.issuer.fetch(request)

    def cancel(self):
        pass


@pytest.mark.parametrize("refuse_age", [31.0, 45.0, 60.0, 900.0])
def test_the_age_stays_below_the_limit_while_the_service_is_well(refuse_age):
    clock = FakeClock()
    server = HoldingServer(clock)
    server.source = RevocationSource("https://r.test", fetcher=server, clock=clock, refuse_age_seconds=refuse_age)
    end = clock.monotonic() + 600
    while clock.monotonic() < end:
        clock.advance(server.source._poller.step())
    assert len(server.ages) > 10
    assert max(server.ages) < refuse_age - 3


def test_requests_are_held_as_long_as_common_proxies_allow_where_the_limit_leaves_room():
    assert longest_hold(refuse_age=float("inf"), skew=2) == longest_hold(refuse_age=900, skew=2) == 25
    assert longest_hold(refuse_age=31, skew=2) == 12
    assert longest_hold(refuse_age=0, skew=2) == 1
