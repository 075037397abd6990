"""What a trust rule is: mandatory conditions, an audience of ours, bounded. Pure."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.foreign_tokens import foreign_key
from tests.support.platform_tokens import AWS, GITHUB, KUBERNETES, KUBERNETES_KEY, aws, github, kubernetes
from tokenry.jose.jwk import Algorithm
from tokenry_registry.realms import Refusal, RefusedObject, read_key, read_object

US = "https://issuer.example.org"
NOW = 1_800_000_000
GOOD = {
    "name": "payments",
    "issuer": KUBERNETES,
    "client_id": "payments",
    "audience": US,
    "algorithms": ["RS256"],
    "jwks": KUBERNETES_KEY.jwks,
    "conditions": {"sub": "system:serviceaccount:payments:api"},
}
KEY = "realms/services/trust/payments.json"


def read(**changes):
    members = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return read_object(read_key(KEY), json.dumps(members).encode(), environment="test", max_token_lifetime=3600)


def test_a_rule_is_read():
    rule = read()
    assert (rule.name, rule.issuer, rule.client_id, rule.audience) == ("payments", KUBERNETES, "payments", US)
    assert rule.algorithms == (Algorithm.RS256,)
    assert rule.single_use
    assert rule.enabled


@pytest.mark.parametrize("conditions", [..., {}, {"iss": KUBERNETES}, {"aud": US, "iss": KUBERNETES, "exp": 5}])
def test_X7_the_issuer_alone_never_suffices(conditions):
    with pytest.raises(RefusedObject, match="every token of the issuer"):
        read(conditions=conditions)


def test_X6_the_audience_is_ours_and_not_the_platforms():
    with pytest.raises(RefusedObject, match="audience"):
        read(audience=KUBERNETES)
    with pytest.raises(RefusedObject, match="audience"):
        read(audience=...)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ...}, {"client_id": ...}, {"name": "other"}, {"algorithms": ...}, {"algorithms": []},
        {"algorithms": ["none"]}, {"algorithms": ["HS256"]}, {"algorithms": ["RS512"]}, {"jwks": ...},
        {"jwks_uri": "https://x.example/jwks"}, {"jwks": {"keys": []}}, {"jwks": foreign_key("e").jwks},
        {"conditions": {"sub": ""}}, {"conditions": {"sub": None}}, {"conditions": {"sub": []}},
        {"conditions": {"sub": ["a", ""]}}, {"conditions": {"sub": 1.5}}, {"conditions": {"sub": {}}},
        {"conditions": {"a": {"b": {"c": {"d": {"e": "f"}}}}}}, {"conditions": {"sub": [["a"]]}},
        {"conditions": {str(n): "x" for n in range(33)}}, {"conditions": {"sub": [str(n) for n in range(65)]}},
        {"max_lifetime": 0}, {"max_lifetime": 86_401}, {"single_use": "no"}, {"enabled": 1}, {"unknown": 1},
        {"issuer": "x" * 513},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_sound_refuses_the_object(changes):
    with pytest.raises(RefusedObject) as refused:
        read(**changes)
    assert refused.value.cause in {Refusal.MALFORMED, Refusal.WRONG_NAME}


@pytest.mark.parametrize(
    "uri",
    ["http://x.example/jwks", "https://", "https://a:b@x.example/", "https://x.example/#f", "ftp://x", "https://x:y/",
     "x", "https://[::1", "https://x.example/ä", "https://x.example/a b"],
)  # fmt: skip
def test_C12_a_place_of_keys_is_an_https_url(uri):
    with pytest.raises(RefusedObject, match="jwks_uri"):
        read(jwks=..., jwks_uri=uri)


def test_C12_a_place_may_be_named_in_stead_of_keys():
    assert read(jwks=..., jwks_uri="https://keys.example/jwks").jwks_uri == "https://keys.example/jwks"


@pytest.mark.parametrize(
    ("claims", "conditions", "fits"),
    [
        (kubernetes(audience=US, now=NOW), {"sub": "system:serviceaccount:payments:api"}, True),
        (kubernetes(audience=US, now=NOW), {"kubernetes.io": {"namespace": "payments"}}, True),
        (kubernetes(audience=US, now=NOW), {"kubernetes.io": {"namespace": "shop"}}, False),
        (
            kubernetes(audience=US, now=NOW),
            {"kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "other"}}},
            False,
        ),
        (kubernetes(audience=US, now=NOW), {"kubernetes.io": "payments"}, False),
        (github(audience=US, now=NOW), {"repository_id": "74", "ref": ["refs/heads/main", "refs/heads/x"]}, True),
        (github(audience=US, now=NOW), {"repository_id": "74", "environment": "staging"}, False),
        (github(audience=US, now=NOW), {"repository_id": 74}, False),
        (github(audience=US, now=NOW), {"repository": "octo-org/octo"}, False),
        (aws(audience=US, now=NOW), {"https://sts.amazonaws.com/": {"org_id": "o-abc1234567"}}, True),
        (aws(audience=US, now=NOW), {"https://sts.amazonaws.com/": {"principal_tags": {"team": "other"}}}, False),
        ({"admin": 1}, {"admin": True}, False),
        ({"n": True}, {"n": 1}, False),
        ({"sub": ["a"]}, {"sub": "a"}, False),
        ({}, {"sub": "a"}, False),
    ],
)
def test_X7_every_condition_has_to_be_met_exactly(claims, conditions, fits):
    assert read(conditions=conditions).fits(claims) is fits


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=5), st.integers(), st.booleans()), max_size=4))
def test_no_other_claims_fit(claims):
    rule = read(conditions={"sub": "a-very-special-subject", "x": {"y": True}})
    assert not rule.fits(claims)


def test_the_issuers_of_the_platforms_are_names_that_a_rule_takes():
    for issuer in (KUBERNETES, GITHUB, AWS):
        assert read(issuer=issuer).issuer == issuer
