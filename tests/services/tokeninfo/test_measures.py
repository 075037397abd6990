"""How long revocations take, as the metrics of token info show it."""

import pytest

from tokenry.serving.metrics import Metrics
from tokenry.sources.events import EventKind, SourceEvent
from tokenry_tokeninfo.measures import Propagation

NAME = "tokenry_revocation_propagation"


class Reader:
    def __init__(self):
        self.metrics = Metrics(service="test")
        self.propagation = Propagation(self.metrics)

    def hears(self, *seconds, kind=EventKind.LOADED):
        self.propagation.heard(SourceEvent(source="revocations", kind=kind, applied=3, propagation=seconds))

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"{NAME}_{name}", labels)


@pytest.fixture
def reader():
    return Reader()


def test_what_says_nothing_of_its_creation_counts_for_nothing(reader):
    reader.hears()
    reader.hears(kind=EventKind.REFRESHED)
    assert (reader.value("seconds_count"), reader.value("ahead_total")) == (0, 0)


def test_each_revocation_is_observed(reader):
    reader.hears(0.2, 0.4)
    reader.hears(40)
    assert (reader.value("seconds_count"), reader.value("seconds_sum")) == (3, 40.6)


@pytest.mark.parametrize(("took", "within", "below"), [(0.4, "0.5", "0.25"), (0.9, "1.0", "0.75"), (30, "31.0", "28.0"),
                                                       (60.5, "61.0", "60.0"), (200, "300.0", "120.0")])  # fmt: skip
def test_the_buckets_tell_the_promises_apart(reader, took, within, below):
    reader.hears(took)
    assert (reader.value("seconds_bucket", le=within), reader.value("seconds_bucket", le=below)) == (1, 0)


def test_a_clock_ahead_of_ours_counts_as_no_time_and_is_counted_apart(reader):
    reader.hears(-1.5)
    assert (reader.value("seconds_count"), reader.value("seconds_sum"), reader.value("ahead_total")) == (1, 0, 1)
