"""Rotation: no gap, no token that outlives its key, always a standby, over any policy, time and interruption."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tokenry_admin import key_rotation
from tokenry_admin.key_rotation import ChangedKey, KeyNeeded, NewKey, NoSuchKey, RotationPolicy
from tokenry_registry.key_schedule import CLOCK_MARGIN, KeySchedule, KeyState, KeyTimes, announce_time

HOUR = 3600
DAY = 24 * HOUR
NOW = 1_800_000_000
ANNOUNCE = announce_time(jwks_max_age=300)
POLICY = RotationPolicy(period=90 * DAY, overlap=14 * DAY, lifetime=HOUR, announce=ANNOUNCE)


class Keys:
    """A key store that carries plans out, whole or in part."""

    def __init__(self, keys=()):
        self.by_kid = {key.kid: key for key in keys}
        self.made = 0

    @property
    def all(self):
        return tuple(self.by_kid.values())

    def write(self, write):
        if isinstance(write, NewKey):
            self.made += 1
            kid = f"k{self.made:03}"
            self.by_kid[kid] = replace(write.times, kid=kid)
        else:
            assert self.by_kid[write.before.kid] == write.before
            self.by_kid[write.after.kid] = write.after

    def carry_out(self, writes, *, first=None):
        for write in writes[:first]:
            self.write(write)

    def due(self, now, policy=POLICY, **named):
        return key_rotation.due(self.all, now=now, policy=policy, **named)

    def schedule(self, policy=POLICY):
        return KeySchedule(self.all, policy.announce)


def begun(now=NOW, policy=POLICY):
    keys = Keys()
    keys.carry_out(keys.due(now, policy))
    return keys


def kid(found):
    return None if found is None else found.kid


# --- the first keys, and the usual course -----------------------------------------------------------------------


def test_the_first_key_signs_at_once_and_a_standby_is_published():
    first, standby = begun().all
    assert (first.publish_at, first.activate_at) == (NOW - ANNOUNCE, NOW)
    assert (standby.publish_at, standby.activate_at) == (NOW - ANNOUNCE, NOW + 90 * DAY)
    assert first.retire_at == NOW + 104 * DAY + HOUR + CLOCK_MARGIN


def test_nothing_is_due_while_one_signs_and_one_waits():
    keys = begun()
    for now in (NOW, NOW + DAY, NOW + 76 * DAY - 1):
        assert keys.due(now) == ()


def test_the_next_standby_is_made_an_overlap_before_the_last_one_gets_its_turn():
    keys = begun()
    now = NOW + 76 * DAY
    (write,) = keys.due(now)
    assert write.times.publish_at == now
    assert write.times.activate_at == NOW + 180 * DAY


def test_M06_M07_years_of_rotation_keep_to_the_period_and_leave_nothing_published_for_ever():
    keys = begun()
    signed = {}
    for now in range(NOW, NOW + 1500 * DAY, DAY):
        keys.carry_out(keys.due(now))
        schedule = keys.schedule()
        assert schedule.faults(now, lifetime=HOUR) == ()
        assert 2 <= len(schedule.published(now)) <= 4
        signed.setdefault(schedule.signing(now, lifetime=HOUR).kid, now)
    begins = list(signed.values())
    assert len(begins) == 17
    assert {later - earlier for earlier, later in pairwise(begins)} == {90 * DAY}


def test_a_rotator_that_was_away_for_a_period_and_two_overlaps_caused_no_outage():
    keys = begun()
    for now in range(NOW, NOW + (90 + 90 + 14) * DAY, HOUR):
        assert keys.schedule().signing(now, lifetime=HOUR) is not None


def test_after_an_outage_of_rotation_new_keys_are_announced_before_they_sign():
    keys = begun()
    now = NOW + 190 * DAY  # the second key is ten days late
    keys.carry_out(keys.due(now))
    assert keys.schedule().signing(now, lifetime=HOUR).activate_at == NOW + 90 * DAY
    assert keys.schedule().signing(now + ANNOUNCE, lifetime=HOUR).activate_at == now + ANNOUNCE
    assert keys.schedule().faults(now, lifetime=HOUR) == ()


def test_when_all_keys_have_ended_a_new_one_signs_at_once():
    keys = begun()
    now = NOW + 1000 * DAY
    keys.carry_out(keys.due(now))
    signer = keys.schedule().signing(now, lifetime=HOUR)
    assert (signer.publish_at, signer.activate_at) == (now, now)


def test_a_revoked_signer_is_followed_by_its_standby_and_a_new_standby():
    keys = begun()
    first, standby = (key.kid for key in keys.all)
    now = NOW + DAY
    keys.carry_out(keys.due(now, revoked={first}))
    left = keys.schedule().without({first})
    assert left.signing(now, lifetime=HOUR).kid == standby
    assert keys.by_kid[standby].activate_at == now
    assert left.standby(now, lifetime=HOUR) is not None
    assert keys.due(now, revoked={first}) == ()


# --- on demand --------------------------------------------------------------------------------------------------


def test_a_rotation_on_demand_lets_the_standby_sign_now_and_publishes_another():
    keys = begun()
    first, standby = (key.kid for key in keys.all)
    now = NOW + DAY
    made, changed = key_rotation.rotation(keys.all, now=now, policy=POLICY)
    assert isinstance(made, NewKey)
    assert isinstance(changed, ChangedKey)
    keys.carry_out((made, changed))
    schedule = keys.schedule()
    assert schedule.signing(now, lifetime=HOUR).kid == standby
    assert schedule.state(keys.by_kid[first], now, lifetime=HOUR) is KeyState.RETIRING
    assert schedule.faults(now, lifetime=HOUR) == ()
    assert keys.due(now) == ()


def test_a_rotation_in_the_first_second_of_a_key_takes_effect_all_the_same():
    for names in (("a", "b"), ("b", "a")):  # a tie would be decided by the kids
        made = [replace(write.times, kid=name) for write, name in zip(Keys().due(NOW), names, strict=True)]
        keys = Keys(made)
        keys.carry_out(key_rotation.rotation(keys.all, now=NOW, policy=POLICY))
        assert keys.schedule().signing(NOW + 1, lifetime=HOUR).kid == names[1]


def test_a_standby_that_not_every_cache_knows_yet_signs_when_they_do():
    keys = begun()
    now = NOW + DAY
    keys.carry_out(key_rotation.rotation(keys.all, now=now, policy=POLICY))
    keys.carry_out(key_rotation.rotation(keys.all, now=now + 1, policy=POLICY))
    assert key_rotation.next_rotation(keys.all, now=now + 1) == now + ANNOUNCE
    assert key_rotation.rotation(keys.all, now=now + 2, policy=POLICY) == ()


def test_a_rotation_that_was_cut_off_goes_on_where_it_was():
    keys = begun()
    writes = key_rotation.rotation(keys.all, now=NOW + DAY, policy=POLICY)
    keys.carry_out(writes, first=1)
    assert keys.due(NOW + DAY) == ()
    assert key_rotation.rotation(keys.all, now=NOW + DAY, policy=POLICY) == writes[1:]


def test_another_standby_has_its_turn_after_all_that_wait():
    keys = begun()
    keys.carry_out(key_rotation.another(keys.all, now=NOW + DAY, policy=POLICY))
    assert sorted(key.activate_at for key in keys.all) == [NOW, NOW + 90 * DAY, NOW + 105 * DAY]


# --- leaked -----------------------------------------------------------------------------------------------------


def test_a_leaked_key_is_gone_with_one_write_and_the_standby_signs():
    keys = begun()
    first, standby = (key.kid for key in keys.all)
    now = NOW + DAY
    writes = key_rotation.leaked(keys.all, first, now=now, policy=POLICY)
    assert len(writes) == 1
    keys.carry_out(writes)
    assert [key.kid for key in keys.schedule().published(now)] == [standby]
    keys.carry_out(keys.due(now))
    assert keys.schedule().faults(now, lifetime=HOUR) == ()


def test_a_leaked_key_without_a_standby_is_followed_by_a_new_one_that_comes_first():
    only = KeyTimes(kid="only", publish_at=NOW - DAY, activate_at=NOW - DAY, retire_at=NOW + DAY)
    keys = Keys([only])
    writes = key_rotation.leaked(keys.all, "only", now=NOW, policy=POLICY)
    assert [type(write) for write in writes] == [NewKey, ChangedKey]
    keys.carry_out(writes)
    assert keys.schedule().signing(NOW, lifetime=HOUR).activate_at == NOW


def test_a_leaked_standby_that_never_signed_can_be_taken_away_too():
    keys = begun()
    standby = keys.all[1].kid
    keys.carry_out(key_rotation.leaked(keys.all, standby, now=NOW + DAY, policy=POLICY))
    assert [key.kid for key in keys.schedule().published(NOW + DAY)] == [keys.all[0].kid]


def test_a_key_that_has_to_sign_once_more_hands_over_before_its_end():
    keys = begun()
    first, second = (key.kid for key in keys.all)
    now = NOW + 80 * DAY
    keys.carry_out(keys.due(now))
    keys.carry_out(key_rotation.rotation(keys.all, now=now, policy=POLICY))
    keys.carry_out(key_rotation.leaked(keys.all, second, now=now + 60, policy=POLICY))
    assert keys.schedule().signing(now + 60, lifetime=HOUR).kid == first
    keys.carry_out(keys.due(now + 60))
    assert keys.schedule().faults(now + 60, lifetime=HOUR) == ()
    assert keys.due(now + 60) == ()


# --- retirement -------------------------------------------------------------------------------------------------


def test_F32_the_key_that_signs_and_the_only_standby_stay():
    keys = begun()
    for key, why in zip(keys.all, ("signs now", "only standby"), strict=True):
        with pytest.raises(KeyNeeded, match=why):
            key_rotation.retirement(keys.all, key.kid, now=NOW + DAY, policy=POLICY)


def test_F32_a_key_stays_until_its_last_token_is_over():
    keys = begun()
    first, now = keys.all[0].kid, NOW + DAY
    keys.carry_out(key_rotation.rotation(keys.all, now=now, policy=POLICY))
    free = key_rotation.removable_after(keys.by_kid[first], keys.all, policy=POLICY)
    assert free == now + 60 + HOUR + CLOCK_MARGIN
    with pytest.raises(KeyNeeded, match="may be in use for 1 s more"):
        key_rotation.retirement(keys.all, first, now=free - 1, policy=POLICY)
    keys.carry_out(key_rotation.retirement(keys.all, first, now=free, policy=POLICY))
    assert first not in {key.kid for key in keys.schedule().published(free)}


def test_a_key_that_is_gone_or_never_was_is_not_found():
    keys = begun()
    with pytest.raises(NoSuchKey, match="no key nope"):
        key_rotation.retirement(keys.all, "nope", now=NOW, policy=POLICY)
    with pytest.raises(NoSuchKey, match="already"):
        key_rotation.leaked(keys.all, keys.all[0].kid, now=NOW + 1000 * DAY, policy=POLICY)


# --- policies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"period": 0}, "above zero"),
        ({"lifetime": 0}, "above zero"),
        ({"overlap": ANNOUNCE - 1}, "announced"),
        ({"period": 13 * DAY}, "shorter than the overlap"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        replace(POLICY, **changes)


# --- any policy, any time, any interruption -----------------------------------------------------------------------


@st.composite
def policies(draw):
    announce = draw(st.integers(70, 660))
    overlap = draw(st.integers(announce, 30 * DAY))
    return RotationPolicy(
        period=draw(st.integers(overlap, 400 * DAY)),
        overlap=overlap,
        lifetime=draw(st.integers(1, DAY)),
        announce=announce,
    )


STEPS = st.lists(
    st.tuples(
        st.floats(0, 1, allow_nan=False),  # how much of an overlap passes
        st.sampled_from(["due", "due", "due", "rotate", "publish", "leak", "retire", "twice"]),
        st.integers(0, 3),  # how many of the writes are carried out before the interruption
        st.integers(0, 7),  # which key
    ),
    max_size=14,
)


def signs_for_its_tokens(schedule, now, policy):
    signer = schedule.signing(now, lifetime=policy.lifetime)
    return signer is not None and signer.published(now + policy.lifetime + CLOCK_MARGIN - 1)


def planned(action, keys, named, now, policy):
    plans = {
        "rotate": lambda: key_rotation.rotation(keys, now=now, policy=policy),
        "publish": lambda: key_rotation.another(keys, now=now, policy=policy),
        "leak": lambda: key_rotation.leaked(keys, named, now=now, policy=policy),
        "retire": lambda: key_rotation.retirement(keys, named, now=now, policy=policy),
    }
    try:
        return plans.get(action, tuple)()
    except (KeyNeeded, NoSuchKey):
        return ()


@examples(max_examples=300, deadline=None)
@given(policy=policies(), steps=STEPS)
def test_J11_M07_no_policy_time_or_interruption_leaves_a_gap_or_lets_a_token_outlive_its_key(policy, steps):
    keys, now = begun(policy=policy), NOW
    alive = []  # (kid, until) of tokens that were signed
    ended = set()  # keys that were declared leaked: their tokens are meant to die
    for share, action, cut, which in steps:
        now += int(share * policy.overlap)
        named = sorted(keys.by_kid)[which % len(keys.by_kid)]
        for write in planned(action, keys.all, named, now, policy)[:cut]:
            keys.write(write)
            if action == "leak" and isinstance(write, ChangedKey):
                ended.add(named)
            assert signs_for_its_tokens(keys.schedule(policy), now, policy), "a write left a gap"
        writes = keys.due(now, policy)
        if action == "twice":  # two rotators read the same and both write
            keys.carry_out(tuple(write for write in writes if isinstance(write, NewKey)))
        for write in writes[:cut]:
            keys.write(write)
            assert signs_for_its_tokens(keys.schedule(policy), now, policy), "a write left a gap"
        keys.carry_out(keys.due(now, policy))  # the next run completes it
        schedule = keys.schedule(policy)
        assert keys.due(now, policy) == ()
        assert schedule.standby(now, lifetime=policy.lifetime) is not None
        assert signs_for_its_tokens(schedule, now, policy)
        assert not [fault for fault in schedule.faults(now, lifetime=policy.lifetime) if "less than" not in fault]
        # What was signed before is still verified, unless its key was declared leaked.
        published = {key.kid for key in schedule.published(now)}
        assert {kid for kid, until in alive if until > now} <= published | ended
        alive.append((schedule.signing(now, lifetime=policy.lifetime).kid, now + policy.lifetime))
