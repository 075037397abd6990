"""How long revocations take, as a reader can know it."""

import pytest

from tokenry.revocation.lists import RevocationList
from tokenry.serving.metrics import Metrics
from tokenry.sources.events import EventKind, SourceEvent
from tokenry.testing.clock import FakeClock
from tokenry.validation.snapshots import Snapshot
from tokenry_tokeninfo.measures import Propagation

NEWS = SourceEvent(source="revocations", kind=EventKind.LOADED, applied=3)
NOTHING_NEW = SourceEvent(source="revocations", kind=EventKind.LOADED, applied=0)
CONFIRMED = SourceEvent(source="revocations", kind=EventKind.REFRESHED)
FAILED = SourceEvent(source="revocations", kind=EventKind.FAILED, reason="timeout")


class Reader:
    def __init__(self):
        self.clock = FakeClock()
        self.metrics = Metrics(service="test")
        self.propagation = Propagation(self.metrics, clock=self.clock)

    def hears(self, event, *, complete_to=0.0):
        now = self.clock.now()
        held = Snapshot(value=RevocationList.empty(), as_of=now + complete_to, age_at_request=0.0, requested_at=0.0)
        self.propagation.heard(event, held)

    @property
    def seen(self):
        name, value = "tokenry_revocation_propagation_seconds", self.metrics.registry.get_sample_value
        return value(f"{name}_count"), value(f"{name}_sum")


@pytest.fixture
def reader():
    return Reader()


def test_the_first_list_says_nothing_about_how_long_it_took(reader):
    reader.propagation.heard(FAILED, None)
    reader.hears(NEWS)
    assert reader.seen == (0, 0)


def test_news_took_at_most_the_time_since_the_list_before_was_complete(reader):
    reader.hears(NEWS, complete_to=-2)
    reader.clock.advance(10)
    reader.hears(NEWS, complete_to=-2)
    assert reader.seen == (1, 12)


def test_what_confirms_the_list_brings_the_bound_forward_and_counts_for_nothing(reader):
    reader.hears(NEWS)
    for event in (NOTHING_NEW, CONFIRMED):
        reader.clock.advance(20)
        reader.hears(event)
    reader.clock.advance(5)
    reader.hears(NEWS)
    assert reader.seen == (1, 5)


def test_an_outage_counts_in_full(reader):
    reader.hears(NEWS, complete_to=0)
    reader.clock.advance(300)
    reader.hears(FAILED, complete_to=-300)
    reader.hears(NEWS)
    assert reader.seen == (1, 300)


def test_a_list_from_a_clock_ahead_of_ours_counts_as_no_time_and_not_as_less(reader):
    reader.hears(NEWS, complete_to=1.5)
    reader.hears(NEWS, complete_to=1.5)
    assert reader.seen == (1, 0)
