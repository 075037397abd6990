import math

import pytest

from tokenry.errors import ConfigurationError
from tokenry.jose.jwk import Algorithm
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy

TRUSTED = TrustedIssuer(issuer="https://issuer.example", max_token_lifetime=3600)
ISSUER = {"issuer": "https://issuer.example", "max_token_lifetime": 3600}
POLICY = {"issuers": (TRUSTED,), "audience": "orders"}


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": ""},
        {"issuer": "https://issuer.example "},
        {"issuer": "https://issuer.example\n"},
        {"max_token_lifetime": 0},
        {"max_token_lifetime": -1},
        {"max_token_lifetime": 3600.5},
        {"max_token_lifetime": True},
        {"max_token_lifetime": math.inf},
        {"algorithms": ()},
        {"algorithms": ("ES256",)},
        {"algorithms": (Algorithm.RS256,)},
        {"algorithms": (Algorithm.ES256, Algorithm.RS256)},
    ],
)
def test_an_issuer_that_cannot_be_trusted_so_stops_the_start(change):
    with pytest.raises(ConfigurationError) as refused:
        TrustedIssuer(**ISSUER | change)
    assert len(refused.value.faults) == 1
    assert refused.value.faults[0].startswith(next(iter(change)))


def test_the_longest_lifetime_has_no_default():
    with pytest.raises(TypeError):
        TrustedIssuer(issuer="https://issuer.example")


def test_a_foreign_issuer_may_sign_with_what_it_likes():
    assert TrustedIssuer(**ISSUER, foreign=True, algorithms=(Algorithm.RS256, Algorithm.ES384))


@pytest.mark.parametrize(
    "change",
    [
        {"issuers": ()},
        {"issuers": (TRUSTED, TRUSTED)},
        {"audience": ""},
        {"audience": ()},
        {"audience": ("orders", "")},
        {"leeway": -1},
        {"leeway": 61},
        {"leeway": math.nan},
        {"list_warn_age": 0},
        {"list_warn_age": 901},
        {"list_refuse_age": math.inf},
        {"list_refuse_age": math.nan},
        {"list_refuse_age": 0},
    ],
)
def test_a_policy_that_cannot_be_meant_stops_the_start(change):
    with pytest.raises(ConfigurationError) as refused:
        ValidationPolicy(**POLICY | change)
    assert len(refused.value.faults) == 1


def test_all_faults_are_listed_and_not_the_first():
    with pytest.raises(ConfigurationError) as refused:
        ValidationPolicy(issuers=(), audience="", leeway=-1, list_warn_age=0)
    assert len(refused.value.faults) == 4
    with pytest.raises(ConfigurationError) as refused:
        TrustedIssuer(issuer="", max_token_lifetime=0, algorithms=())
    assert len(refused.value.faults) == 3


def test_the_audience_has_no_default():
    with pytest.raises(TypeError):
        ValidationPolicy(issuers=(TRUSTED,))


def test_the_audience_is_one_name_or_several_or_none_in_so_many_words():
    assert ValidationPolicy(**POLICY).audiences == {"orders"}
    assert ValidationPolicy(**POLICY | {"audience": ("orders", "old")}).audiences == {"orders", "old"}
    assert ValidationPolicy(**POLICY | {"audience": ANY_AUDIENCE}).audiences is None
