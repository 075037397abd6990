"""A secret is never printed and compares in constant time."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.secret import Secret


def test_a_secret_shows_nothing_however_it_is_printed() -> None:
    secret = Secret("hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret, repr([secret])):  # noqa: UP031
        assert "hunter2" not in shown


@given(st.text(), st.text())
def test_it_equals_the_same_text_and_nothing_else(one: str, other: str) -> None:
    assert Secret(one) == Secret(one)
    assert (Secret(one) == Secret(other)) == (one == other)
    assert Secret(one).matches(other) == (one == other)


def test_it_is_no_string() -> None:
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert not Secret("")


def test_it_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret("a"))
