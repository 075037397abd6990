"""
A validator whose clock is off (F45, F46, F48): it errs towards saying nothing, never towards saying yes.

Clocks are given to the parts, not to the machine: one to the platform, another one to the validator.
"""

import contextlib

import pytest

from tokenry.errors import InvalidToken, ValidatorNotReady
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.token_validator import TokenValidator

TEN_MINUTES = 600.0
REFUSE_AGE = 300.0


class Apart:
    """A platform on one clock, and a validator on another one that is *ahead* by so many seconds."""

    def __init__(self, ahead: float) -> None:
        self.theirs = FakeClock()
        self.ours = FakeClock(self.theirs.now() + ahead)
        self.issuer = FakeIssuer(clock=self.theirs, lifetime=3600)
        self.validator = TokenValidator(
            self.issuer.issuer,
            audience=self.issuer.audience,
            fetchers=lambda: self.issuer,
            clock=self.ours,
            list_refuse_age=REFUSE_AGE,
        )
        self.read()

    def read(self) -> None:
        for source in (self.validator._keys, self.validator._revocations):
            for _ in range(3):
                source._poller.step()

    def passes(self, seconds: float) -> None:
        self.theirs.advance(seconds)
        self.ours.advance(seconds)


def test_F45_a_validator_whose_clock_is_ahead_finds_its_list_old_and_answers_nothing() -> None:
    apart = Apart(TEN_MINUTES)
    with pytest.raises(ValidatorNotReady):
        apart.validator.validate(apart.issuer.token())
    assert not apart.validator.ready
    apart.ours.set_wall_clock(apart.theirs.now())  # corrected: no restart
    assert apart.validator.ready
    assert apart.validator.validate(apart.issuer.token())


def test_F46_a_validator_whose_clock_is_behind_believes_no_list_and_answers_nothing() -> None:
    """Else it would accept what has expired."""
    apart = Apart(-TEN_MINUTES)
    expired = apart.issuer.token(lifetime=60)
    apart.passes(120)
    with pytest.raises((ValidatorNotReady, InvalidToken)):
        apart.validator.validate(expired)
    with pytest.raises((ValidatorNotReady, InvalidToken)):
        apart.validator.validate(apart.issuer.token())
    assert not apart.validator.ready


def test_F46_a_clock_that_is_set_back_while_it_runs_stops_the_answers_within_the_limit() -> None:
    apart = Apart(0.0)
    assert apart.validator.validate(apart.issuer.token())
    apart.ours.set_wall_clock(apart.theirs.now() - TEN_MINUTES)
    answers = []
    for _ in range(int(REFUSE_AGE / 10) + 1):
        apart.passes(10)
        apart.read()  # each list is of a time that has not come yet: refused
        answers.append(apart.validator.ready)
    assert not answers[-1]
    apart.ours.set_wall_clock(apart.theirs.now())
    apart.passes(30)
    apart.read()
    assert apart.validator.ready


@pytest.mark.parametrize("step", [-1.0, 1.0, -TEN_MINUTES, 3600.0])
def test_F48_a_step_of_the_wall_clock_makes_no_list_younger_and_no_age_negative(step: float) -> None:
    apart = Apart(0.0)
    token, revoked = apart.issuer.token(), apart.issuer.token()
    apart.issuer.revoke(revoked)
    apart.passes(30)
    apart.read()
    apart.passes(100)  # without a read
    before = apart.validator.list_age() or 0.0
    apart.ours.set_wall_clock(apart.ours.now() + step)
    assert (apart.validator.list_age() or 0.0) >= before >= 100
    with contextlib.suppress(ValidatorNotReady, InvalidToken):  # the safe side
        apart.validator.validate(token)
    with pytest.raises((InvalidToken, ValidatorNotReady)):
        apart.validator.validate(revoked)
