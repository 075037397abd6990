"""A circuit breaker, step by step."""

from tokenry_tokeninfo.breaker import FAILURES, FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, TRIAL_SECONDS, Breaker


def opened():
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.admits(0)
        breaker.failed(0)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before():
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed(0)
        breaker.succeeded()
    assert not breaker.open
    assert breaker.admits(0)
    assert not opened().admits(FIRST_PAUSE_SECONDS / 2)


def test_after_the_pause_one_may_try():
    breaker = opened()
    assert [breaker.admits(FIRST_PAUSE_SECONDS) for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert breaker.admits(FIRST_PAUSE_SECONDS)
    assert not breaker.open


def test_the_pause_doubles_up_to_a_bound():
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        began = now
        while not breaker.admits(now):
            now += FIRST_PAUSE_SECONDS / 2
        pauses.append(now - began)
        breaker.failed(now)
    assert pauses[:3] == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]
    assert pauses[-1] == MAX_PAUSE_SECONDS


def test_a_trial_whose_end_nobody_told_does_not_close_it_for_ever():
    breaker = opened()
    assert breaker.admits(FIRST_PAUSE_SECONDS)
    assert not breaker.admits(FIRST_PAUSE_SECONDS + TRIAL_SECONDS / 2)
    assert breaker.admits(FIRST_PAUSE_SECONDS + TRIAL_SECONDS)
