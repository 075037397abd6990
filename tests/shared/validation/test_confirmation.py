"""Tokens that are bound to a certificate (RFC 8705 section 3): good with that one, and with nothing else."""

import pytest

from tests.shared.validation.test_validator import GOOD, POLICY, refusal, validate
from tests.support.access_tokens import token
from tokenry.errors import Reason
from tokenry.validation.validator import ANY_CONFIRMATION, Validator

MINE, OTHER = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2", "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
BOUND = token(cnf={"x5t#S256": MINE})


def test_V25_the_certificate_of_the_connection_makes_it_good():
    assert validate(BOUND, confirmation=MINE).claims["cnf"] == {"x5t#S256": MINE}


@pytest.mark.parametrize("confirmation", [None, OTHER, "", MINE.lower(), MINE[:-1]])
def test_V25_without_it_the_token_is_refused(confirmation):
    assert refusal(BOUND, confirmation=confirmation) is Reason.UNCONFIRMED


@pytest.mark.parametrize(
    "cnf", [{"jkt": MINE}, {"x5t#S256": MINE, "jkt": MINE}, {}, None, MINE, [MINE], {"x5t#S256": None}]
)
@pytest.mark.parametrize("confirmation", [MINE, None, ANY_CONFIRMATION])
def test_V25_a_demand_that_is_not_known_is_refused_and_not_taken_for_none(cnf, confirmation):
    assert refusal(token(cnf=cnf), confirmation=confirmation) is Reason.UNCONFIRMED


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
