import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tokenry_registry.key_schedule import CLOCK_MARGIN, KeySchedule, KeyState, KeyTimes, announce_time

HOUR = 3600
DAY = 24 * HOUR
ANNOUNCE = announce_time(jwks_max_age=300)


def key(kid, publish, activate, retire):
    return KeyTimes(kid=kid, publish_at=publish, activate_at=activate, retire_at=retire)


A = key("a", 0, 0, 32 * DAY)
B = key("b", 29 * DAY, 30 * DAY, 62 * DAY)
SCHEDULE = KeySchedule((B, A), ANNOUNCE)


def kid(found):
    return None if found is None else found.kid


def test_a_rotation_goes_through_all_states():
    def states(now):
        return [SCHEDULE.state(each, now, lifetime=HOUR) for each in (A, B)]

    assert states(DAY) == [KeyState.ACTIVE, KeyState.SCHEDULED]
    assert states(29 * DAY) == [KeyState.ACTIVE, KeyState.PUBLISHED]
    assert states(30 * DAY - 1) == [KeyState.ACTIVE, KeyState.PUBLISHED]
    assert states(30 * DAY) == [KeyState.RETIRING, KeyState.ACTIVE]
    assert states(32 * DAY - 1) == [KeyState.RETIRING, KeyState.ACTIVE]
    assert states(32 * DAY) == [KeyState.RETIRED, KeyState.ACTIVE]


def test_M07_F32_a_key_stays_published_until_what_it_signed_has_expired():
    for now in range(0, 31 * DAY, HOUR):
        signer = SCHEDULE.signing(now, lifetime=HOUR)
        assert signer in SCHEDULE.published(now + HOUR + CLOCK_MARGIN - 1)


def test_M06_F31_a_key_that_was_announced_too_late_does_not_sign_while_another_can():
    late = key("late", 30 * DAY - 60, 30 * DAY, 62 * DAY)
    schedule = KeySchedule((A, late), ANNOUNCE)
    assert kid(schedule.signing(30 * DAY, lifetime=HOUR)) == "a"
    assert kid(schedule.signing(30 * DAY - 60 + ANNOUNCE - 1, lifetime=HOUR)) == "a"
    assert kid(schedule.signing(30 * DAY - 60 + ANNOUNCE, lifetime=HOUR)) == "late"


def test_the_announce_time_covers_cache_and_refresh_and_skew():
    assert announce_time(jwks_max_age=300) == 300 + 300 + 60


def test_J11_a_key_that_retires_before_its_token_would_expire_is_not_chosen():
    only = KeySchedule((key("a", 0, 0, DAY),), ANNOUNCE)
    last = DAY - HOUR - CLOCK_MARGIN
    assert kid(only.signing(last, lifetime=HOUR)) == "a"
    assert only.signing(last + 1, lifetime=HOUR) is None
    assert kid(only.signing(last + 1, lifetime=60)) == "a"


def test_the_standby_signs_early_when_the_active_key_is_about_to_retire():
    schedule = KeySchedule((key("a", 0, 0, DAY), key("b", 0, 2 * DAY, 9 * DAY)), ANNOUNCE)
    assert kid(schedule.signing(DAY - HOUR, lifetime=HOUR)) == "b"


def test_the_very_first_key_signs_at_once():
    schedule = KeySchedule((key("a", 100, 100, DAY), key("b", 100, DAY // 2, 2 * DAY)), ANNOUNCE)
    assert kid(schedule.signing(100, lifetime=HOUR)) == "a"
    assert kid(schedule.signing(99, lifetime=HOUR)) is None
    assert kid(schedule.signing(100 + ANNOUNCE, lifetime=HOUR)) == "a"


def test_a_revoked_active_key_is_followed_by_the_announced_standby_at_once():
    now = 29 * DAY + ANNOUNCE
    assert kid(SCHEDULE.signing(now, lifetime=HOUR)) == "a"
    assert kid(SCHEDULE.standby(now, lifetime=HOUR)) == "b"
    assert kid(SCHEDULE.without({"a"}).signing(now, lifetime=HOUR)) == "b"
    assert SCHEDULE.without({"a"}).published(now) == (B,)


def test_a_fresh_standby_is_better_than_no_key():
    assert kid(SCHEDULE.without({"a"}).signing(29 * DAY + 1, lifetime=HOUR)) == "b"


def test_a_key_that_is_not_published_never_signs():
    assert SCHEDULE.without({"a"}).signing(28 * DAY, lifetime=HOUR) is None


def test_without_keys_nothing_signs():
    empty = KeySchedule((), ANNOUNCE)
    assert empty.signing(0, lifetime=HOUR) is None
    assert empty.published(0) == ()
    assert any("no key can sign" in fault for fault in empty.faults(0, lifetime=HOUR))


def test_a_sound_schedule_has_no_faults():
    assert SCHEDULE.faults(29 * DAY + ANNOUNCE, lifetime=HOUR) == ()


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ((A,), "standby"),
        ((A, key("b", 29 * DAY, 32 * DAY - HOUR, 62 * DAY)), "stops signing before"),
        ((A, key("b", 30 * DAY - 10, 30 * DAY, 62 * DAY)), "published less than"),
    ],
)
def test_faults_of_a_schedule_are_told(keys, fault):
    assert any(fault in each for each in KeySchedule(keys, ANNOUNCE).faults(DAY, lifetime=HOUR))


@pytest.mark.parametrize("times", [(5, 4, 9), (0, 9, 9), (0, 9, 8)])
def test_times_out_of_order_are_no_key(times):
    with pytest.raises(ValueError, match="published"):
        key("x", *times)


KEYS = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 3000)).map(
        lambda t: (t[0], t[0] + t[1], t[0] + t[1] + t[2])
    ),
    max_size=6,
).map(lambda times: tuple(key(str(number), *each) for number, each in enumerate(times)))


@given(KEYS, st.integers(0, 5000), st.integers(1, 500))
@examples(max_examples=300)
def test_whatever_the_schedule_the_signer_is_published_long_enough_and_there_is_one_if_any_could(keys, now, lifetime):
    schedule = KeySchedule(keys, 50)
    signer = schedule.signing(now, lifetime=lifetime)
    able = [each for each in keys if each.published(now) and each.published(now + lifetime + CLOCK_MARGIN - 1)]
    assert (signer is None) == (not able)
    if signer is not None:
        assert signer in able
        active = [each for each in keys if schedule.state(each, now, lifetime=lifetime) is KeyState.ACTIVE]
        assert active == [signer]
        announced = [each for each in able if each.publish_at + 50 <= now]
        assert signer in announced or not announced


def test_a_gap_that_has_passed_is_no_fault_any_more():
    schedule = KeySchedule((key("a", 0, 0, DAY), key("b", 0, DAY, 9 * DAY), key("c", 0, 5 * DAY, 20 * DAY)), ANNOUNCE)
    assert schedule.faults(DAY - 30, lifetime=HOUR) == ("key a stops signing before key b begins: retire it later",)
    assert schedule.faults(DAY, lifetime=HOUR) == ()
    retiring = KeySchedule((key("a", 0, 0, 2 * DAY), key("b", 0, 2 * DAY - 60, 9 * DAY)), ANNOUNCE)
    assert "stops signing" not in str(retiring.faults(2 * DAY - 30, lifetime=HOUR))
