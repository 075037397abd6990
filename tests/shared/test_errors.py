"""Errors say what to do and never repeat a token."""

from tokenry.errors import (
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    Reason,
    UnknownKey,
    Unready,
    ValidatorNotReady,
)


def test_a_configuration_error_lists_every_fault() -> None:
    error = ConfigurationError(["A is missing", "B is no number"])
    assert error.faults == ("A is missing", "B is no number")
    assert "A is missing" in str(error)
    assert "B is no number" in str(error)


def test_missing_scopes_are_sorted() -> None:
    assert InsufficientScope({"b", "a"}).missing == ("a", "b")


def test_an_unknown_key_is_an_invalid_token_that_names_its_issuer() -> None:
    error = UnknownKey("https://issuer.example")
    assert isinstance(error, InvalidToken)
    assert (error.reason, error.issuer) == (Reason.UNKNOWN_KEY, "https://issuer.example")


def test_a_validator_that_is_not_ready_says_when_to_come_again() -> None:
    error = ValidatorNotReady(Unready.NO_LIST, retry_after=3)
    assert error.retry_after == 3
    assert "3 s" in str(error)
