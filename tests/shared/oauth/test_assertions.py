"""JWT assertions (RFC 7523 as tightened): every step can fail, and says which it was."""

import hmac
import json

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.foreign_tokens import foreign_key
from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import Algorithm
from tokenry.jose.jwks import KeySet
from tokenry.oauth.assertions import (
    CLIENT_AUTHENTICATION_TYP,
    LEEWAY,
    MAX_ASSERTION_BYTES,
    AssertionFault,
    AssertionRules,
    BadAssertion,
    read_assertion,
    verify_assertion,
)

US = "https://issuer.example.org"
NOW = 1_800_000_000
KEY, OTHER = foreign_key("orders-1"), foreign_key("stranger")
ALL = (Algorithm.ES256, Algorithm.ES384, Algorithm.RS256)


def keys(*pairs, issuer="orders", algorithms=ALL):
    return KeySet.parse(json.dumps({"keys": [key.jwk for key in pairs]}).encode(), issuer=issuer, algorithms=algorithms)


def rules(**changes):
    return AssertionRules(
        **{
            "issuer": "orders",
            "subject": "orders",
            "keys": keys(KEY),
            "audiences": frozenset({US}),
            "max_ahead": 300,
            "types": frozenset({CLIENT_AUTHENTICATION_TYP}),
            **changes,
        }
    )


def claims(**changes):
    good = {"iss": "orders", "sub": "orders", "aud": US, "exp": NOW + 60, "iat": NOW, "jti": "id-1", **changes}
    return {name: value for name, value in good.items() if value is not ...}


def verify(token, given_rules=None, *, now=NOW):
    return verify_assertion(read_assertion(token), given_rules or rules(), now=now)


def fault(token, given_rules=None, *, now=NOW):
    with pytest.raises(BadAssertion) as refused:
        verify(token, given_rules, now=now)
    return refused.value.fault


def test_a_good_assertion_says_who_it_is_and_until_when_it_has_to_be_remembered():
    verified = verify(KEY.sign(claims(), typ=CLIENT_AUTHENTICATION_TYP))
    assert (verified.iss, verified.sub, verified.audience) == ("orders", "orders", US)
    assert (verified.jti, verified.kid, verified.expires_at) == ("id-1", "orders-1", NOW + 60)


@pytest.mark.parametrize(
    "typ", ["client-authentication+jwt", "application/client-authentication+jwt", "JWT", "Client-Authentication+JWT"]
)
def test_C08_the_type_is_accepted_in_its_spellings(typ):
    verify(KEY.sign(claims(), typ=typ))


def test_C08_no_type_at_all_is_accepted():
    verify(KEY.sign(claims(), typ=None))


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "dpop+jwt", "token-introspection+jwt", "logout+jwt"])
def test_an_access_token_or_anything_else_is_no_assertion(typ):
    assert fault(KEY.sign(claims(), typ=typ)) is AssertionFault.WRONG_TYPE


@pytest.mark.parametrize("name", ["iss", "sub"])
@pytest.mark.parametrize("value", [..., "", 5, None, ["orders"], "x" * 513, "a\nb"])
def test_C05_without_issuer_or_subject_it_is_malformed(name, value):
    with pytest.raises(BadAssertion) as refused:
        # PyJWT refuses to sign some of these; the bytes are what counts.
        read_assertion(_by_hand(claims(**{name: value})))
    assert refused.value.fault is AssertionFault.MALFORMED


def _by_hand(members, header=None):
    header = header or {"alg": "ES256", "kid": KEY.kid}
    parts = [b64url_encode(json.dumps(each).encode()) for each in (header, members)]
    return ".".join([*parts, b64url_encode(bytes(64))])


def test_C05_issuer_and_subject_are_the_client():
    assert fault(KEY.sign(claims(iss="other")), rules(keys=keys(KEY))) is AssertionFault.WRONG_ISSUER
    assert fault(KEY.sign(claims(sub="other"))) is AssertionFault.WRONG_SUBJECT


@pytest.mark.parametrize(
    "aud",
    [
        f"{US}/oauth2/token", f"{US}/", US.upper(), US.replace("https", "http"), [US, "other"], ["other", US], [US, US],
        [], "", ..., None, 5, [[US]], {US: US},
    ],
)  # fmt: skip
def test_C06_the_audience_is_exactly_the_issuer(aud):
    token = KEY.sign(claims(aud=aud)) if not isinstance(aud, dict | int) else _signed(claims(aud=aud))
    assert fault(token) is AssertionFault.WRONG_AUDIENCE


def _signed(members, **header):
    """Sign what PyJWT would refuse to sign."""
    algorithm = jwt.get_algorithm_by_name("ES256")
    head = {"alg": "ES256", "kid": KEY.kid, **header}
    signing_input = ".".join(b64url_encode(json.dumps(each).encode()) for each in (head, members))
    return f"{signing_input}.{b64url_encode(algorithm.sign(signing_input.encode(), KEY.private))}"


def test_C07_a_list_of_the_issuer_alone_is_the_issuer():
    assert verify(KEY.sign(claims(aud=[US]))).audience == US


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": ...}, AssertionFault.NO_EXPIRY),
        ({"exp": NOW}, AssertionFault.EXPIRED),
        ({"exp": NOW - 1}, AssertionFault.EXPIRED),
        ({"exp": NOW + 301}, AssertionFault.TOO_LONG),
        ({"exp": 253_402_300_799}, AssertionFault.TOO_LONG),
        ({"nbf": NOW + LEEWAY + 1}, AssertionFault.NOT_YET_VALID),
        ({"iat": NOW + LEEWAY + 1}, AssertionFault.NOT_YET_VALID),
        ({"exp": str(NOW + 60)}, AssertionFault.MALFORMED),
        ({"exp": True}, AssertionFault.MALFORMED),
        ({"exp": None}, AssertionFault.MALFORMED),
        ({"exp": -1}, AssertionFault.MALFORMED),
        ({"iat": "now"}, AssertionFault.MALFORMED),
        ({"nbf": [NOW]}, AssertionFault.MALFORMED),
        ({"jti": ...}, AssertionFault.NO_ID),
        ({"jti": ""}, AssertionFault.MALFORMED),
        ({"jti": 7}, AssertionFault.MALFORMED),
        ({"jti": "x" * 257}, AssertionFault.MALFORMED),
    ],
)
def test_C09_times_and_id(changes, expected):
    assert fault(_signed(claims(**changes))) is expected


@pytest.mark.parametrize("changes", [{"exp": NOW + 300}, {"exp": NOW + 0.5}, {"iat": NOW + LEEWAY}, {"iat": ...}])
def test_C09_the_bounds_themselves_are_good(changes):
    verify(_signed(claims(**changes)))


def test_C09_a_clock_that_is_no_number_accepts_nothing():
    assert fault(KEY.sign(claims()), now=float("nan")) is AssertionFault.EXPIRED


def test_where_a_lifetime_is_bounded_it_is_counted_from_iat():
    token = KEY.sign(claims(iat=NOW - 3600))
    assert fault(token, rules(max_lifetime=3600)) is AssertionFault.TOO_LONG
    verify(token, rules(max_lifetime=3660))


def test_C11_another_key_under_the_same_name_does_not_verify():
    assert fault(OTHER.sign(claims(), kid=KEY.kid)) is AssertionFault.BAD_SIGNATURE


def test_C11_a_key_that_is_not_registered_is_unknown():
    assert fault(OTHER.sign(claims())) is AssertionFault.UNKNOWN_KEY


def test_C11_hmac_over_the_public_key_and_none_are_refused():
    signing_input = _by_hand(claims(), {"alg": "HS256", "kid": KEY.kid}).rpartition(".")[0]
    mac = hmac.digest(json.dumps(KEY.jwk).encode(), signing_input.encode(), "sha256")
    assert fault(f"{signing_input}.{b64url_encode(mac)}") is AssertionFault.WRONG_ALGORITHM
    none = _by_hand(claims(), {"alg": "none", "kid": KEY.kid})
    assert fault(none) is AssertionFault.WRONG_ALGORITHM
    assert fault(none.rpartition(".")[0] + ".") is AssertionFault.WRONG_ALGORITHM


def test_C11_a_key_that_the_assertion_brings_along_is_not_used():
    token = OTHER.sign(claims(), kid="mine", jwk=OTHER.jwk, jku="https://evil.example/jwks")
    assert fault(token) is AssertionFault.UNKNOWN_KEY


def test_without_a_kid_the_only_key_is_meant_and_one_of_several_is_not_guessed():
    token = _signed(claims(), kid=KEY.kid)
    bare = _without_kid(claims())
    verify(bare)
    verify(token, rules(keys=keys(KEY, OTHER)))
    assert fault(bare, rules(keys=keys(KEY, OTHER))) is AssertionFault.UNKNOWN_KEY


def _without_kid(members):
    return jwt.encode(members, KEY.private, algorithm="ES256")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256"])
def test_X8_each_algorithm_is_accepted_where_it_is_configured_and_nowhere_else(algorithm):
    key = foreign_key(f"k-{algorithm}", algorithm)
    token = key.sign(claims())
    verify(token, rules(keys=keys(key), algorithms=(Algorithm(algorithm),)))
    others = tuple(each for each in ALL if each != algorithm)
    assert fault(token, rules(keys=keys(key), algorithms=others)) is AssertionFault.WRONG_ALGORITHM


def test_the_algorithm_is_the_keys_own():
    rsa = foreign_key("k-RS256", "RS256")
    token = jwt.encode(claims(), KEY.private, algorithm="ES256", headers={"kid": rsa.kid})
    assert fault(token, rules(keys=keys(rsa), algorithms=ALL)) is AssertionFault.WRONG_ALGORITHM


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + "=",
        lambda token: token + ".x",
        lambda token: token.rpartition(".")[0],
        lambda token: token + "ä",
        lambda token: "." + token,
        lambda token: token.replace(".", "", 1),
        lambda _: "",
        lambda _: "x" * (MAX_ASSERTION_BYTES + 1),
    ],
)
def test_what_is_no_jwt_is_malformed(change):
    with pytest.raises(BadAssertion) as refused:
        read_assertion(change(KEY.sign(claims())))
    assert refused.value.fault is AssertionFault.MALFORMED


def test_a_critical_extension_or_a_duplicate_claim_is_malformed():
    for token in (_signed(claims(), crit=["x"], x=1), _signed(claims(), b64=False)):
        with pytest.raises(BadAssertion):
            read_assertion(token)
    payload = json.dumps(claims())[:-1] + ', "sub": "admin"}'
    head, _, signature = KEY.sign(claims()).split(".")
    with pytest.raises(BadAssertion):
        read_assertion(f"{head}.{b64url_encode(payload.encode())}.{signature}")


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=63))
def test_no_other_bytes_pass(position, letter):
    token = KEY.sign(claims())
    position %= len(token)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:position] + alphabet[letter] + token[position + 1 :]
    if other == token:
        return
    with pytest.raises(BadAssertion):
        verify(other)


def test_neither_text_nor_repr_repeats_the_assertion():
    token = KEY.sign(claims(jti="very-secret-id"))
    for shown in (repr(read_assertion(token)), repr(verify(token))):
        assert token.split(".")[2] not in shown
        assert "claims" not in shown
