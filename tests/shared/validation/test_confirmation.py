"""Tokens that are bound to a certificate (RFC 8705 section 3): good with that one, and with nothing else."""

import pytest

from tests.shared.validation.test_validator import GOOD, POLICY, refusal, validate
from tests.support.access_tokens import token
from tokenry.errors import Reason
from tokenry.oauth.confirmation import Shown
from tokenry.validation.validator import ANY_CONFIRMATION, Validator

MINE, OTHER = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2", "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
BOUND = token(cnf={"x5t#S256": MINE})


def test_V25_the_certificate_of_the_connection_makes_it_good():
    assert validate(BOUND, confirmation=MINE).claims["cnf"] == {"x5t#S256": MINE}


@pytest.mark.parametrize("confirmation", [None, OTHER, "", MINE.lower(), MINE[:-1]])
def test_V25_without_it_the_token_is_refused(confirmation):
    assert refusal(BOUND, confirmation=confirmation) is Reason.UNCONFIRMED


@pytest.mark.parametrize(
    "cnf",
    [
        {"x5u": MINE},
        {"x5t#S256": MINE, "x5u": MINE},
        {"jkt": "short"},
        {"jkt": MINE + "="},
        {"x5t#S256": MINE, "jkt": None},
        {},
        None,
        MINE,
        [MINE],
        {"x5t#S256": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("confirmation", [MINE, Shown(certificate=MINE, key=MINE), None, ANY_CONFIRMATION])
def test_V25_a_demand_that_is_not_known_is_refused_and_not_taken_for_none(cnf, confirmation):
    assert refusal(token(cnf=cnf), confirmation=confirmation) is Reason.UNCONFIRMED


def test_V26_a_token_that_is_bound_to_a_key_is_good_with_that_key_alone():
    bound = token(cnf={"jkt": MINE})
    assert validate(bound, confirmation=Shown(key=MINE)).claims["cnf"] == {"jkt": MINE}
    assert validate(bound, confirmation=Shown(certificate=OTHER, key=MINE)).sub
    assert validate(bound, confirmation=ANY_CONFIRMATION).sub
    for shown in (None, MINE, Shown(), Shown(key=OTHER), Shown(certificate=MINE), Shown(certificate=MINE, key="")):
        assert refusal(bound, confirmation=shown) is Reason.UNCONFIRMED, shown


def test_V26_two_demands_are_both_met_or_none_is():
    bound = token(cnf={"x5t#S256": MINE, "jkt": OTHER})
    assert validate(bound, confirmation=Shown(certificate=MINE, key=OTHER)).sub
    for shown in (MINE, Shown(certificate=MINE), Shown(key=OTHER), Shown(certificate=OTHER, key=MINE)):
        assert refusal(bound, confirmation=shown) is Reason.UNCONFIRMED, shown


def test_V26_a_token_that_is_bound_to_no_key_is_not_for_one_who_proves_to_have_one():
    assert refusal(GOOD, confirmation=Shown(key=MINE)) is Reason.UNCONFIRMED
    assert refusal(BOUND, confirmation=Shown(certificate=MINE, key=MINE)) is Reason.UNCONFIRMED
    assert validate(GOOD, confirmation=Shown(certificate=MINE)).sub


def test_V25_a_remembered_token_is_compared_at_each_use():
    validator = Validator(POLICY)
    for _ in range(3):
        validate(BOUND, validator=validator, confirmation=MINE)
    assert refusal(BOUND, validator=validator, confirmation=OTHER) is Reason.UNCONFIRMED
    assert refusal(BOUND, validator=validator) is Reason.UNCONFIRMED
    validate(BOUND, validator=validator, confirmation=MINE)


def test_a_certificate_does_not_matter_to_a_token_that_is_not_bound():
    validate(GOOD, confirmation=MINE)
    validate(GOOD, confirmation=None)


def test_whoever_passes_the_demand_on_sees_it():
    assert validate(BOUND, confirmation=ANY_CONFIRMATION).claims["cnf"] == {"x5t#S256": MINE}
