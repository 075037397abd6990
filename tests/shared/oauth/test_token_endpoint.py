"""Token requests and responses (RFC 6749 sections 4.3, 4.4, 5.1; RFC 8707)."""

import json

import pytest

from tokenry.oauth.errors import OAuthError
from tokenry.oauth.form import Form, parse_query
from tokenry.oauth.token_endpoint import DEFINED, MAX_PASSWORD, TokenResponse, parse_token_request
from tokenry.secret import Secret

GRANT = ("grant_type", "client_credentials")
NOTHING = Form()


def refused(*pairs: tuple[str, str], query: str = "") -> str:
    with pytest.raises(OAuthError) as error:
        parse_token_request(Form(pairs), query=parse_query(query))
    return error.value.code


def test_a_request_is_read_into_typed_values() -> None:
    request = parse_token_request(Form([GRANT, ("scope", "b a"), ("realm", "services")]), query=NOTHING)
    assert request.scope == {"a", "b"}
    assert request.realm == "/services"


def test_T02_unknown_parameters_are_ignored() -> None:
    assert parse_token_request(Form([GRANT, ("foo", "1"), ("foo", "2")]), query=parse_query("bar=1")).scope is None


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_D58_a_defined_parameter_in_the_query_is_refused(name: str) -> None:
    assert refused(GRANT, query=f"{name}=x") == "invalid_request"


@pytest.mark.parametrize("name", ["grant_type", "scope", "realm", "audience"])
def test_T04_a_defined_parameter_sent_twice_is_invalid_request(name: str) -> None:
    assert refused(GRANT, (name, "x"), (name, "x")) == "invalid_request"


def test_T05_a_missing_grant_type_is_invalid_request() -> None:
    assert refused(("scope", "a")) == "invalid_request"
    assert refused(("grant_type", "")) == "invalid_request"


def test_the_realm_may_stand_in_the_query_with_or_without_its_slash() -> None:
    for query in ("realm=/services", "realm=services", "realm=%2Fservices"):
        assert parse_token_request(Form([GRANT]), query=parse_query(query)).realm == "/services"


def test_a_realm_in_body_and_query_counts_as_twice() -> None:
    assert refused(GRANT, ("realm", "a"), query="realm=a") == "invalid_request"


@pytest.mark.parametrize("realm", ["../admin", "/services\0", "/", "a/b", "//a", ".", "-a", "x" * 64, "ä"])
def test_D55_a_realm_that_is_no_name_is_invalid_request(realm: str) -> None:
    assert refused(GRANT, ("realm", realm)) == "invalid_request"


@pytest.mark.parametrize("scope", ['a b"c', "a  b", " a", "a\\b", "ä", "a\tb"])
def test_D54_a_malformed_scope_is_invalid_scope(scope: str) -> None:
    assert refused(GRANT, ("scope", scope)) == "invalid_scope"


def test_D54_an_empty_scope_asks_for_the_defaults() -> None:
    assert parse_token_request(Form([GRANT, ("scope", "")]), query=NOTHING).scope is None


def test_the_password_grant_needs_user_and_password() -> None:
    grant = ("grant_type", "password")
    assert refused(grant, ("username", "u")) == "invalid_request"
    assert refused(grant, ("password", "p")) == "invalid_request"


def test_D57_an_empty_password_is_read_as_a_wrong_one() -> None:
    form = Form([("grant_type", "password"), ("username", "u"), ("password", "")])
    assert parse_token_request(form, query=NOTHING).password == Secret("")


def test_D53_a_password_that_is_too_long_stays_too_long() -> None:
    form = Form([("grant_type", "password"), ("username", "u"), ("password", "p" * 10_000)])
    password = parse_token_request(form, query=NOTHING).password
    assert password is not None
    assert len(password.reveal()) == MAX_PASSWORD + 1


def test_resources_may_repeat_and_keep_their_order() -> None:
    form = Form([GRANT, ("resource", "https://b"), ("resource", "https://a"), ("resource", "https://b")])
    assert parse_token_request(form, query=NOTHING).targets == ("https://b", "https://a")


@pytest.mark.parametrize("resource", ["orders", "https://a#b", "https://", "//a", "https://[", "https://ä"])
def test_T18_a_resource_that_is_no_absolute_uri_is_invalid_target(resource: str) -> None:
    assert refused(GRANT, ("resource", resource)) == "invalid_target"


def test_too_many_or_too_long_targets_are_invalid_target() -> None:
    assert refused(GRANT, *(("resource", f"https://{n}") for n in range(9))) == "invalid_target"
    assert refused(GRANT, ("audience", "a" * 513)) == "invalid_target"


def test_resource_and_audience_together_are_invalid_request() -> None:
    assert refused(GRANT, ("resource", "https://a"), ("audience", "a")) == "invalid_request"


def test_T09_the_response_has_its_members_with_the_scope_sorted() -> None:
    response = TokenResponse(
        access_token=Secret("a.b.c"), expires_in=3600, scope=frozenset({"b", "a"}), realm="/services"
    )
    assert json.loads(response.to_json()) == {
        "access_token": "a.b.c",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "a b",
        "realm": "/services",
    }
    assert "a.b.c" not in repr(response)
