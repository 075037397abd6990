"""OAuth's refusals, to the letter of RFC 6749 section 5.2 and RFC 6750 section 3."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.oauth import errors

ALLOWED = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")


@given(st.text(max_size=700))
def test_T16_a_description_has_only_the_characters_that_the_rfc_allows(text: str) -> None:
    error = errors.invalid_request(text)
    assert ALLOWED.fullmatch(error.description)
    assert len(error.description) <= errors.MAX_DESCRIPTION


@given(st.text(max_size=50), st.lists(st.text(max_size=10), max_size=3))
def test_V23_a_challenge_names_each_attribute_once_and_cannot_be_broken_out_of(text: str, scope: list[str]) -> None:
    challenge = errors.bearer_challenge(realm=text, error=text, description=text, scope=scope)
    attributes = re.findall(r'(\w+)="([^"\\]*)"', challenge)
    assert [name for name, _ in attributes] == ["realm", "error", "error_description", "scope"]
    assert challenge == "Bearer " + ", ".join(f'{name}="{value}"' for name, value in attributes)


def test_V21_a_challenge_without_a_token_has_no_error_code() -> None:
    assert errors.bearer_challenge() == "Bearer"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.invalid_request("x"), 400, "invalid_request"),
        (errors.unsupported_grant_type(), 400, "unsupported_grant_type"),
        (errors.unauthorized_client(), 400, "unauthorized_client"),
        (errors.invalid_client(), 401, "invalid_client"),
        (errors.invalid_grant(), 400, "invalid_grant"),
        (errors.realm_not_found(), 400, "realm_not_found"),
        (errors.missing_realm(), 400, "missing_realm"),
        (errors.invalid_scope(["a"]), 400, "invalid_scope"),
        (errors.invalid_target(), 400, "invalid_target"),
        (errors.too_many_failures(retry_after=3), 429, "temporarily_unavailable"),
        (errors.wrong_content_type(), 415, "invalid_request"),
        (errors.body_too_large(1), 413, "invalid_request"),
        (errors.temporarily_unavailable("x"), 503, "temporarily_unavailable"),
        (errors.server_error("r1"), 500, "server_error"),
    ],
)
def test_each_situation_has_its_status_and_code(error: errors.OAuthError, status: int, code: str) -> None:
    assert (error.status, error.code) == (status, code)
    assert error.body() == {"error": code, "error_description": error.description}


def test_T15_a_failed_basic_authentication_is_challenged_with_basic() -> None:
    assert errors.invalid_client(realm="tokenry").headers == (("WWW-Authenticate", 'Basic realm="tokenry"'),)
    assert errors.invalid_client().headers == ()


def test_what_may_succeed_later_says_when_and_never_at_once() -> None:
    assert ("Retry-After", "7") in errors.temporarily_unavailable("no key", retry_after=7).headers
    assert ("Retry-After", "1") in errors.too_many_failures(retry_after=0).headers


def test_T17_refused_scopes_are_named() -> None:
    assert "b.write" in errors.invalid_scope(["b.write", "a.read"]).description
