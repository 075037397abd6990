import pytest

from tokenry.testing.clock import FakeClock


def test_it_stands_still_until_it_is_advanced():
    clock = FakeClock(100.0)
    assert (clock.now(), clock.now()) == (100.0, 100.0)


def test_wall_time_and_monotonic_time_advance_together():
    clock = FakeClock(100.0)
    before = clock.monotonic()
    clock.advance(5, minutes=2, hours=1)
    assert clock.now() == 100.0 + 5 + 120 + 3600
    assert clock.monotonic() - before == 5 + 120 + 3600


def test_the_two_times_are_never_equal_so_that_mixing_them_shows():
    clock = FakeClock()
    assert clock.now() != clock.monotonic()


def test_time_does_not_go_back_by_advancing():
    with pytest.raises(ValueError, match="set_wall_clock"):
        FakeClock().advance(-1)


def test_setting_the_wall_clock_leaves_the_monotonic_time_alone():
    clock = FakeClock(100.0)
    before = clock.monotonic()
    clock.set_wall_clock(50.0)
    assert (clock.now(), clock.monotonic()) == (50.0, before)
