"""Introspection and revocation messages (RFC 7662, RFC 7009)."""

import pytest

from tokenry.claims import TokenInfo
from tokenry.oauth.errors import OAuthError
from tokenry.oauth.form import Form
from tokenry.oauth.introspection import INACTIVE, active_response, parse_introspection_request
from tokenry.oauth.revocation import parse_revocation_request

INFO = TokenInfo(
    iss="https://issuer.example",
    sub="orders",
    client_id="orders",
    aud=("https://issuer.example",),
    scope=frozenset({"b", "a"}),
    exp=1_800_003_600,
    iat=1_800_000_000,
    jti="id-1",
    realm="/services",
    kid="k",
    claims={"sub": "orders", "aud": "https://issuer.example", "cnf": {"x5t#S256": "x"}},
)


def test_I09_a_good_token_is_answered_with_what_it_says() -> None:
    assert active_response(INFO) == {
        "active": True,
        "iss": "https://issuer.example",
        "sub": "orders",
        "aud": "https://issuer.example",
        "client_id": "orders",
        "scope": "a b",
        "exp": 1_800_003_600,
        "iat": 1_800_000_000,
        "jti": "id-1",
        "token_type": "Bearer",
        "realm": "/services",
        "cnf": {"x5t#S256": "x"},
        "claims": dict(INFO.claims),
    }


def test_I06_every_other_token_gets_the_same_bytes() -> None:
    assert INACTIVE == b'{"active":false}'


def test_I08_a_token_type_hint_changes_nothing() -> None:
    assert parse_introspection_request(Form([("token", "x"), ("token_type_hint", "refresh_token")])) == "x"
    assert parse_revocation_request(Form([("token", "x"), ("token_type_hint", "bogus")])).reveal() == "x"  # R4


@pytest.mark.parametrize("form", [Form(), Form([("token", "")]), Form([("token", "a"), ("token", "b")])])
def test_D66_a_token_that_is_missing_or_repeated_is_invalid_request(form: Form) -> None:
    for parse in (parse_introspection_request, parse_revocation_request):  # R5
        with pytest.raises(OAuthError) as refused:
            parse(form)
        assert refused.value.code == "invalid_request"


def test_a_token_to_revoke_is_in_no_repr() -> None:
    assert "a.b.c" not in repr(parse_revocation_request(Form([("token", "a.b.c")])))
