"""An assertion is used once, and what was used is not forgotten early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry_issuer.replay import MemoryFull, UsedAssertions, UsedBefore

NOW = 1_800_000_000.0


def test_C10_the_same_id_of_the_same_owner_is_refused_until_it_has_expired():
    used = UsedAssertions()
    used.use("orders", "a", expires_at=NOW + 60, now=NOW)
    for now in (NOW, NOW + 59.9):
        with pytest.raises(UsedBefore):
            used.use("orders", "a", expires_at=NOW + 60, now=now)
    used.use("orders", "a", expires_at=NOW + 120, now=NOW + 60)


def test_C10_another_expiry_does_not_make_it_another_assertion():
    used = UsedAssertions()
    used.use("orders", "a", expires_at=NOW + 60, now=NOW)
    with pytest.raises(UsedBefore):
        used.use("orders", "a", expires_at=NOW + 90, now=NOW)


def test_two_owners_may_choose_the_same_id():
    used = UsedAssertions()
    for owner in ("orders", "stock"):
        used.use(owner, "a", expires_at=NOW + 60, now=NOW)
    used.use("order", "sa", expires_at=NOW + 60, now=NOW)  # and no two are joined into one
    assert len(used) == 3


def test_when_it_is_full_nothing_is_forgotten_and_the_next_has_to_wait():
    used = UsedAssertions(max_remembered=2, max_per_owner=2)
    used.use("a", "1", expires_at=NOW + 60, now=NOW)
    used.use("b", "1", expires_at=NOW + 30, now=NOW)
    with pytest.raises(MemoryFull):
        used.use("c", "1", expires_at=NOW + 60, now=NOW)
    with pytest.raises(UsedBefore):
        used.use("b", "1", expires_at=NOW + 30, now=NOW)
    used.use("c", "1", expires_at=NOW + 60, now=NOW + 30)


def test_one_owner_does_not_take_the_room_of_the_others():
    used = UsedAssertions(max_remembered=4, max_per_owner=2)
    for jti in "12":
        used.use("greedy", jti, expires_at=NOW + 60, now=NOW)
    with pytest.raises(MemoryFull):
        used.use("greedy", "3", expires_at=NOW + 60, now=NOW)
    used.use("modest", "1", expires_at=NOW + 60, now=NOW)
    used.use("greedy", "3", expires_at=NOW + 120, now=NOW + 60)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 3)), max_size=60))
def test_it_answers_as_a_plain_table_would(steps):
    used, model, now = UsedAssertions(), {}, NOW
    for jti, life, passed in steps:
        now += passed
        is_used = model.get(jti, 0.0) > now
        try:
            used.use("o", jti, expires_at=now + life, now=now)
        except UsedBefore:
            assert is_used
        else:
            assert not is_used
            model[jti] = now + life
    assert len(used) <= 3
