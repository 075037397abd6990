import math

import pytest

from tokenry.validation.snapshots import Snapshot

SNAPSHOT = Snapshot(value="list", as_of=1000.0, age_at_request=3.0, requested_at=50.0, skew=2.0)


@pytest.mark.parametrize(
    ("now", "monotonic", "age"),
    [
        (1003.0, 50.0, 3.0),  # as the server said
        (1003.0, 60.0, 13.0),  # what has passed since counts, though the wall clock stands still
        (1100.0, 60.0, 98.0),  # a server that stopped counting is older by the wall clock, less the skew
        (900.0, 60.0, 13.0),  # a wall clock that went back makes nothing younger
    ],
)
def test_the_larger_of_the_two_ages_counts(now, monotonic, age):
    assert SNAPSHOT.age(now=now, monotonic=monotonic) == age


def test_F48_an_age_is_never_negative():
    ahead = Snapshot(value="list", as_of=1000.0, age_at_request=0.0, requested_at=50.0)
    assert ahead.age(now=900.0, monotonic=49.0) == 0.0


@pytest.mark.parametrize("monotonic", [math.nan, math.inf, -math.inf, 0.0, 49.0, 50.0, 1e9])
@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, 0.0, 1002.0, 1005.0, 1e12])
def test_an_age_that_is_no_number_is_not_taken_for_a_young_one(now, monotonic):
    age = SNAPSHOT.age(now=now, monotonic=monotonic)
    by_definition = max(3.0 + (monotonic - 50.0), now - 1000.0 - 2.0, 0.0)
    assert age == by_definition or (math.isnan(age) and math.isnan(by_definition))
    assert not (math.isnan(monotonic) and age <= 900.0)
