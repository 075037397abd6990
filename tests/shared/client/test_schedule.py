import random
from itertools import pairwise

import pytest

from tokenry.client.access_token import AccessToken
from tokenry.client.schedule import Plan, Schedule
from tokenry.errors import TokenFetchError

TOKEN = AccessToken(value="secret-token", expires_at=0)
ERROR = TokenFetchError("down")


class Fixed(random.Random):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def random(self):
        return self.value


def schedule(*, lifetime=3600.0, uniform=0.5, started=1000.0):
    made = Schedule(uniform=Fixed(uniform))
    made.begin(started)
    made.fetched(TOKEN, lifetime=lifetime, started=started)
    return made


def test_without_a_token_one_is_fetched():
    assert Schedule().plan(0.0) is Plan.FETCH


@pytest.mark.parametrize(
    ("age", "plan"),
    [(0, Plan.USE), (2699, Plan.USE), (2700, Plan.USE_AND_RENEW), (3589, Plan.USE_AND_RENEW), (3590, Plan.FETCH)],
)
def test_a_token_is_renewed_from_three_quarters_and_served_until_ten_seconds_before_its_end(age, plan):
    assert schedule().plan(1000.0 + age) is plan


def test_jitter_moves_the_renewal_by_a_twentieth_of_the_life_either_way():
    assert schedule(uniform=0.0).held.renew_at == pytest.approx(1000 + 0.70 * 3600)
    assert schedule(uniform=1.0).held.renew_at == pytest.approx(1000 + 0.80 * 3600)


@pytest.mark.parametrize("lifetime", [1.0, 5.0, 20.0, 60.0, 80.0, 600.0])
def test_a_short_lived_token_is_renewed_before_it_is_retired(lifetime):
    held = schedule(lifetime=lifetime, uniform=1.0).held
    assert held.renew_at < held.retire_at < 1000 + lifetime


def test_after_a_failed_renewal_the_old_token_serves_and_the_next_try_is_30_s_away():
    made = schedule()
    made.failed(ERROR, now=3700.0, retry_after=None)
    assert made.plan(3729.9) is Plan.USE
    assert made.plan(3730.0) is Plan.USE_AND_RENEW


def test_retry_after_makes_it_later_but_not_without_end():
    made = schedule()
    made.failed(ERROR, now=3700.0, retry_after=100.0)
    assert (made.plan(3799.9), made.plan(3800.0)) == (Plan.USE, Plan.USE_AND_RENEW)
    made.failed(ERROR, now=3800.0, retry_after=86400.0)
    assert made.plan(4100.0) is Plan.USE_AND_RENEW


def test_without_a_token_failures_are_further_and_further_apart():
    made = Schedule(uniform=Fixed(0.0))
    now, pauses = 0.0, []
    for _ in range(7):
        made.failed(ERROR, now=now, retry_after=None)
        begun = now
        while made.plan(now) is Plan.FAIL:
            now += 0.5
        pauses.append(now - begun)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_success_forgets_the_failures():
    made = Schedule(uniform=Fixed(0.0))
    made.failed(ERROR, now=0.0, retry_after=200.0)
    made.fetched(TOKEN, lifetime=3600, started=10.0)
    assert (made.plan(11.0), made.last_error) == (Plan.USE, None)


def test_fetches_begin_a_second_apart_however_short_tokens_live():
    made = Schedule()
    now, begun = 0.0, []
    while now < 20:
        if made.plan(now) is Plan.FETCH:
            now += made.begin(now)
            begun.append(now)
            made.fetched(TOKEN, lifetime=0.001, started=now)
        now += 0.01
    assert all(later - earlier >= 1 for earlier, later in pairwise(begun))
    assert len(begun) >= 18


def test_a_refused_token_is_dropped_and_no_other_one():
    made = schedule()
    assert made.drop("another", now=1500.0)
    assert made.plan(1500.0) is Plan.USE
    assert made.drop("secret-token", now=1500.0)
    assert made.plan(1500.0) is Plan.FETCH
    assert not made.drop("secret-token", now=1500.0)


def test_a_young_token_is_dropped_once_in_30_s():
    made = schedule()
    assert made.drop("secret-token", now=1001.0)
    made.fetched(TOKEN, lifetime=3600, started=1002.0)
    assert not made.drop("secret-token", now=1003.0)
    assert made.plan(1003.0) is Plan.USE
    assert made.drop("secret-token", now=1031.0)


def test_a_repr_shows_no_token():
    assert "secret-token" not in repr(schedule())
    assert "secret-token" not in repr(TOKEN)
    assert "secret-token" not in f"{TOKEN}"
    assert TOKEN.authorization() == "Bearer secret-token"
