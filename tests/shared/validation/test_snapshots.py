"""The age of a snapshot is never told too small."""

from tokenry.validation.snapshots import Snapshot

SNAPSHOT = Snapshot(value="list", as_of=1000.0, age_at_request=0.5, requested_at=50.0, skew=2.0)


def test_the_age_grows_with_monotonic_time_when_the_clocks_agree() -> None:
    assert SNAPSHOT.age(now=1003.0, monotonic=53.0) == 3.5


def test_a_wall_clock_set_back_does_not_make_it_young() -> None:
    assert SNAPSHOT.age(now=500.0, monotonic=110.0) == 60.5


def test_a_machine_that_stood_still_does_not_make_it_young() -> None:
    assert SNAPSHOT.age(now=1100.0, monotonic=50.0) == 98.0


def test_an_age_is_never_negative() -> None:
    assert SNAPSHOT.age(now=0.0, monotonic=0.0) == 0.0
