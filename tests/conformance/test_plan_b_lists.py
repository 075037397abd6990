"""An unchanged Plan B validator that polls our list refuses what it should, and nothing else."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.planb_tokeninfo import PlanBTokeninfo, ValidatorDied
from tokenry.revocation.planb import PlanBList, PlanBRow, Refresh, claims_rows, global_rows, token_rows

START = 1_800_000_000
SALT = "seasaltisthebest"
SKEW = 2.0
RETENTION = 3_720
POLL = 30


@dataclass
class Service:
    """Our service, as far as its list goes: rows, a notification, and replicas with clocks of their own."""

    rows: list[PlanBRow] = field(default_factory=list)
    refresh: Refresh | None = None

    def answer(self, validator, *, now, clock_offset=0.0):
        """Let *validator* poll at the true time *now* a replica whose clock is ahead by *clock_offset*."""
        clock = now + clock_offset
        revocations = PlanBList(self.rows, now=clock, skew=SKEW, retention=RETENTION, refresh=self.refresh)
        validator.take(revocations.body(after=validator.question(now), now=clock), now=now)

    def revoke(self, claims, *, now, before=None):
        cut_off = default_cut_off(now) if before is None else before
        rows = (
            claims_rows
            if claims
            else lambda _, **more: global_rows(issued_before=more["issued_before"], revoked_at=more["revoked_at"])
        )
        self.rows += rows(claims, issued_before=cut_off, revoked_at=int(now), salt=SALT)
        return cut_off


def default_cut_off(now):
    return int(now) + 1 + 2


def token(sub="jdoe", *, iat, **more):
    return f"{sub}.{iat}.x", {"sub": sub, "iat": iat, "jti": f"{sub}-{iat}", **more}


def validator(offset=0.0):
    return PlanBTokeninfo(salt=SALT, clock_offset=offset)


def poll_for_a_minute(service, planb, *, since):
    for now in (since, since + POLL, since + 2 * POLL):
        service.answer(planb, now=now)


def test_a_revoked_subject_is_refused_after_the_next_poll():
    service, planb = Service(), validator()
    service.answer(planb, now=START)
    assert not planb.refuses(*token(iat=START - 5))
    service.revoke({"sub": "jdoe"}, now=START)
    service.answer(planb, now=START + 1)
    assert planb.refuses(*token(iat=START - 5))
    assert not planb.refuses(*token("other", iat=START - 5))


@pytest.mark.parametrize("validators_offset", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("iat_offset", [-1, 0, 1, 2])
def test_a_token_of_the_same_second_or_of_a_clock_ahead_does_not_escape(validators_offset, iat_offset):
    service, planb = Service(), validator(validators_offset)
    service.revoke({"sub": "jdoe"}, now=START + 0.7)
    poll_for_a_minute(service, planb, since=START + 1)
    assert planb.refuses(*token(iat=START + iat_offset))
    assert not planb.refuses(*token(iat=START + 3))  # minted after it


def test_a_validator_that_could_not_poll_for_a_while_loses_nothing():
    service, planb = Service(), validator()
    service.revoke({"sub": "jdoe"}, now=START)
    service.answer(planb, now=START + 1)
    service.revoke({"sub": "other"}, now=START + 200)
    service.answer(planb, now=START + 201)
    assert planb.refuses(*token(iat=START + 2))
    assert planb.refuses(*token("other", iat=START + 2))


def test_a_position_that_moved_on_before_a_cut_off_settled_still_gets_it():
    service, planb = Service(), PlanBTokeninfo(salt=SALT, tolerance=3)
    service.revoke({"sub": "jdoe"}, now=START)
    service.revoke({"sub": "other"}, now=START + 4)
    service.answer(planb, now=START + 4.5)
    assert planb.question(START + 34) > START  # it asks for nothing as old as the revocation
    service.answer(planb, now=START + 34)
    assert planb.refuses(*token(iat=START + 2))


def test_the_settled_row_reaches_a_position_that_stands_at_the_revocation():
    service, planb = Service(), validator()
    service.revoke({"sub": "jdoe"}, now=START)
    service.answer(planb, now=START + 4)
    assert not planb.refuses(*token(iat=START + 2))
    service.answer(planb, now=START + 34)
    assert planb.refuses(*token(iat=START + 2))


def test_a_token_is_refused_by_its_hash_and_its_twin_by_its_id():
    service, planb = Service(), validator()
    raw, claims = token(iat=START - 5)
    service.rows += token_rows([raw], iat=START - 5, jti=claims["jti"], cut_off=1, revoked_at=START, salt=SALT)
    service.answer(planb, now=START + 1)
    assert planb.refuses(raw, claims)
    assert planb.refuses("the same token in another spelling", claims)
    assert planb.refuses(raw, {"iat": START - 5})
    assert not planb.refuses(*token("other", iat=START - 5))


def test_everything_is_refused_that_was_issued_before():
    service, planb = Service(), validator()
    service.revoke(None, now=START)
    poll_for_a_minute(service, planb, since=START)
    assert planb.refuses(*token(iat=START + 2))
    assert not planb.refuses(*token(iat=START + 3))


def test_an_earlier_cut_off_that_is_posted_later_takes_nothing_back():
    service, planb = Service(), validator()
    service.revoke({"sub": "jdoe"}, now=START)
    poll_for_a_minute(service, planb, since=START)
    service.revoke({"sub": "jdoe"}, now=START + 100, before=START - 1000)
    service.revoke(None, now=START + 100, before=START - 1000)
    poll_for_a_minute(service, planb, since=START + 200)
    assert planb.refuses(*token(iat=START + 2))


def test_a_validator_that_starts_late_gets_all_that_is_in_force():
    service, planb = Service(), validator()
    for number in range(50):
        service.revoke({"sub": f"s{number}"}, now=START + number)
    service.answer(planb, now=START + 3000)
    assert all(planb.refuses(*token(f"s{number}", iat=START - 1)) for number in range(50))


def test_a_refresh_makes_it_read_again_what_it_drops():
    service, planb = Service(), validator()
    service.revoke({"sub": "old"}, now=START)
    service.revoke({"sub": "dropped"}, now=START + 1000)
    poll_for_a_minute(service, planb, since=START + 1010)
    service.refresh = Refresh(since=START + 500, timestamp=START + 2000)
    service.answer(planb, now=START + 2001)
    assert planb.refuses(*token("old", iat=START - 1))
    assert planb.refuses(*token("dropped", iat=START - 1))
    service.revoke({"sub": "new"}, now=START + 2010)
    poll_for_a_minute(service, planb, since=START + 2011)
    assert planb.refuses(*token("new", iat=START - 1))


def test_the_model_ends_as_the_original_does():
    service, planb = Service(), validator()
    service.refresh = Refresh(since=START, timestamp=START + 1)
    service.answer(planb, now=START + 2)
    service.answer(planb, now=START + 3)
    service.refresh = Refresh(since=START, timestamp=START + 9)
    with pytest.raises(ValidatorDied):
        service.answer(planb, now=START + 10)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 400),  # when
        st.sampled_from([{"sub": "a"}, {"client_id": "a"}, {"sub": "b", "realm": "/r"}, {"realm": "/r"}, None]),
        st.none() | st.integers(0, 300),  # how far back its cut-off lies; None: the default
        st.sampled_from([0.0, 1.0, 2.0]),  # the clock of the replica that takes it
    ),
    min_size=1,
    max_size=6,
)
CLOCKS = st.sampled_from([0.0, 1.0, 2.0])  # any two of the platform differ by the bound at most
REFRESHES = st.none() | st.tuples(st.integers(0, 400), st.integers(0, 400))


@given(EVENTS, st.lists(CLOCKS, min_size=20, max_size=20), CLOCKS, st.integers(0, POLL), REFRESHES)
@settings(max_examples=400)
def test_no_history_of_revocations_lets_a_revoked_token_through(events, replicas, own_clock, phase, refresh):
    service, planb = Service(), validator(own_clock)
    posts = sorted(events, key=lambda event: event[0])
    cut_offs: list[tuple[dict[str, str] | None, int]] = []
    for number in range(20):
        now = START + phase + number * POLL + 0.25
        while posts and START + posts[0][0] <= now:
            when, claims, back, clock = posts.pop(0)
            posted = START + when + clock
            before = None if back is None else int(posted) - back
            cut_offs.append((claims, service.revoke(claims, now=posted, before=before)))
        if refresh and START + max(refresh) <= now:
            service.refresh = Refresh(since=START + min(refresh), timestamp=START + max(refresh))
        service.answer(planb, now=now, clock_offset=replicas[number])
    for iat in range(START - 310, START + 420, 7):
        for sub, azp, realm in [
            ("a", "c", "/x"),
            ("c", "a", "/x"),
            ("b", "c", "/r"),
            ("d", "c", "/r"),
            ("d", "c", "/x"),
        ]:
            raw, claims = token(sub, iat=iat, azp=azp, client_id=azp, realm=realm)
            expected = any(iat < cut_off for rule, cut_off in cut_offs if fits(rule, claims))
            if expected:
                assert planb.refuses(raw, claims)
            elif {sub, azp}.isdisjoint({"a"}):  # `a` is one value under two names: Plan B cannot tell them apart
                assert not planb.refuses(raw, claims)


def fits(rule, claims):
    return rule is None or all(claims[name] == value for name, value in rule.items())
