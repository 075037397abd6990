"""Taking the bearer token out of a request (RFC 6750 section 2)."""

import pytest

from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.errors import OAuthError


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_V20_the_scheme_is_accepted_in_any_case(scheme: str) -> None:
    assert bearer_token([f"{scheme} a.b.c"]) == "a.b.c"


@pytest.mark.parametrize("header", ["Basic Zm9v", "Bearer", "Bearer ", "", "Bearera.b.c", "Token x"])
def test_D61_another_scheme_or_no_value_is_no_token(header: str) -> None:
    assert bearer_token([header]) is None


def test_D61_a_second_space_belongs_to_a_malformed_token() -> None:
    assert bearer_token(["Bearer  x"]) == " x"


def test_the_token_may_stand_in_form_or_query_where_the_endpoint_says_so() -> None:
    assert bearer_token([], form=["f"]) == "f"
    assert bearer_token([], query=["q"]) == "q"
    assert bearer_token([]) is None


@pytest.mark.parametrize(
    ("authorization", "form", "query"),
    [
        (["Bearer a", "Bearer a"], [], []),
        (["Bearer a"], ["a"], []),
        (["Bearer a"], [], ["a"]),
        ([], ["a"], ["a"]),
        ([], ["a", "a"], []),
        ([], [], ["a", "b"]),
    ],
)
def test_V19_a_token_sent_twice_is_invalid_request(authorization: list[str], form: list[str], query: list[str]) -> None:
    with pytest.raises(OAuthError) as refused:
        bearer_token(authorization, form=form, query=query)
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")
