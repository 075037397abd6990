"""Scopes (RFC 6749 section 3.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.scope import MAX_SCOPE_TOKENS, InvalidScope, format_scope, parse_scope, scope_of

TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1)


@given(st.sets(TOKENS, max_size=20))
def test_what_is_written_is_read_again(names: set[str]) -> None:
    assert parse_scope(format_scope(names)) == names


def test_the_empty_text_has_no_scope() -> None:
    assert parse_scope("") == frozenset()


@pytest.mark.parametrize("text", [" ", "a ", " a", "a  b", 'a"', "a\\", "a\tb", "ä", "a\x7f", "a\n"])
def test_what_is_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidScope):
        parse_scope(text)


def test_the_number_of_scopes_is_bounded() -> None:
    with pytest.raises(InvalidScope):
        scope_of(str(n) for n in range(MAX_SCOPE_TOKENS + 1))


def test_V24_scopes_are_whole_and_case_sensitive() -> None:
    assert "read" not in parse_scope("read.all READ")
