"""
Whatever we accept, two independent implementations accept too: PyJWT and joserfc.

The other way round does not hold: both are more lenient in places, which is why they are not what decides.
"""

import time

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt as jose_jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from tests.support.access_tokens import ABSENT, AUDIENCE, ISSUER, KEY, KEYS, LIFETIME, token
from tests.support.hostile_tokens import HOSTILE
from tokenry.errors import InvalidToken
from tokenry.revocation.lists import RevocationList
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator

# PyJWT takes the time from the machine, so here we do too, and keep away from every boundary.
NOW = int(time.time())
POLICY = ValidationPolicy(issuers=(TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME),), audience=AUDIENCE)
JWK = KEY.public.to_jwk()
PYJWT_KEY = jwt.PyJWK(JWK)
JOSERFC_KEY = ECKey.import_key(JWK)
# Header members that nobody knows are ignored (RFC 7515 section 4), which joserfc has to be told.
HEADERS = JWSRegistry(algorithms=["ES256"], strict_check_header=False)
CLAIMS = jose_jwt.JWTClaimsRegistry(
    now=NOW,
    leeway=5,
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    exp={"essential": True},
    iat={"essential": True},
    sub={"essential": True},
)


def accepted_by_us(compact):
    validator = Validator(POLICY)
    try:
        return validator.validate(compact, now=NOW, keys=KEYS, revocations=RevocationList.empty(), list_age=0)
    except InvalidToken:
        return None


def accepted_by_pyjwt(compact):
    return jwt.decode(
        compact,
        PYJWT_KEY,
        algorithms=["ES256"],
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=5,
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )


def accepted_by_joserfc(compact):
    decoded = jose_jwt.decode(compact, JOSERFC_KEY, registry=HEADERS)
    CLAIMS.validate(decoded.claims)
    return decoded.claims


def minted(**changes):
    return token(**{"iat": NOW - 60, "exp": NOW + 1800} | changes)


def check(compact):
    info = accepted_by_us(compact)
    if info is not None:
        assert accepted_by_pyjwt(compact) == info.claims
        assert accepted_by_joserfc(compact) == info.claims
    return info


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["x", AUDIENCE]},
        {"scope": ["a", "b"]},
        {"scope": ABSENT},
        {"nbf": NOW - 60},
        {"jti": ABSENT},
        {"sub": "ü\U0001f600"},
        {"head": {"typ": "application/at+jwt"}},
        {"nested": {"a": [1, 2.5, None, True]}},
    ],
)
def test_the_three_accept_a_good_token_and_read_the_same(changes):
    assert check(minted(**changes)) is not None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.sampled_from([NOW - 60, NOW + 600, NOW + 1800, ISSUER, AUDIENCE, "/services", "a b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    ["iss", "sub", "aud", "client_id", "azp", "exp", "iat", "nbf", "jti", "scope", "realm", "other"]
)
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "cty", "x5t", "b64", "zip", "enc", "other"])


@given(changes=st.dictionaries(NAMES, JSON | st.just(ABSENT), max_size=3))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_no_claim_is_accepted_by_us_alone(changes):
    check(minted(**changes))


@given(changes=st.dictionaries(HEADER_NAMES, JSON | st.just(ABSENT), max_size=2))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_no_header_is_accepted_by_us_alone(changes):
    check(minted(head=changes))


@given(st.data())
@settings(max_examples=150, derandomize=True, deadline=None)
def test_no_change_of_the_text_is_accepted_by_us_alone(data):
    compact = minted()
    position = data.draw(st.integers(0, len(compact) - 1))
    check(compact[:position] + data.draw(st.text(max_size=2)) + compact[position + 1 :])


@pytest.mark.parametrize("compact", [compact for compact, _ in HOSTILE.values()], ids=HOSTILE.keys())
def test_no_hostile_token_is_accepted_by_us(compact):
    assert check(compact) is None
