"""tokenry.metrics: what a service of another team shows of its tokens and its validator."""

import asyncio
import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.frameworks import APPLICATIONS
from tokenry import ClientCredentials, StaticTokenSource
from tokenry.errors import InsufficientScope, InvalidToken, TokenFetchError, ValidatorNotReady
from tokenry.metrics import watch_source, watch_validator
from tokenry.protect import Protection, Refused
from tokenry.testing import FakeClock, FakeIssuer


@pytest.fixture
def issuer():
    return FakeIssuer(clock=FakeClock())


@pytest.fixture
def registry():
    return CollectorRegistry()


def source_of(issuer):
    return ClientCredentials(
        "orders.read", environ=issuer.environment(), fetcher=issuer, clock=issuer.clock, pause=lambda _: None
    )


def test_a_source_shows_its_refreshes_and_when_its_token_ends(issuer, registry):
    source = watch_source(source_of(issuer), name="orders", registry=registry)

    def shown(name, **labels):
        return registry.get_sample_value(name, {"source": "orders", **labels})

    assert math.isnan(shown("tokenry_client_token_expiry_timestamp_seconds"))
    token = source.get()
    assert shown("tokenry_client_token_expiry_timestamp_seconds") == token.expires_at
    assert shown("tokenry_client_token_refresh_total", result="ok") == 1
    issuer.clients.clear()
    issuer.clock.advance(hours=2)
    with pytest.raises(TokenFetchError):
        source.get()
    assert shown("tokenry_client_token_refresh_total", result="invalid_client") == 1
    assert len(issuer.token_requests()) == 2  # looking at the metrics asks nobody


def test_several_sources_have_a_name_each(issuer, registry):
    watch_source(StaticTokenSource("secret-token"), name="fixed", registry=registry)
    watch_source(source_of(issuer), name="orders", registry=registry)
    with pytest.raises(ValueError, match="'fixed' is shown already"):
        watch_source(StaticTokenSource("x"), name="fixed", registry=registry)
    text = generate_latest(registry).decode()
    assert 'source="fixed"' in text
    assert 'source="orders"' in text
    assert "secret-token" not in text


def test_validations_are_counted_by_result(issuer, registry):
    validator = watch_validator(issuer.validator(), registry=registry)
    good = issuer.token(scope="orders.read")
    for _ in range(3):
        assert validator.validate(good, scope="orders.read").sub
    asyncio.run(validator.avalidate(good))
    with pytest.raises(InsufficientScope):
        validator.validate_waiting(good, scope="other")
    with pytest.raises(InvalidToken):
        asyncio.run(validator.avalidate(issuer.token(expired=True)))
    issuer.down = True
    issuer.clock.advance(minutes=20)
    with pytest.raises(ValidatorNotReady):
        validator.validate(good)

    def shown(result):
        return registry.get_sample_value("tokenry_validations_total", {"result": result})

    assert {name: shown(name) for name in ("ok", "insufficient_scope", "expired", "not_ready")} == {
        "ok": 4,
        "insufficient_scope": 1,
        "expired": 1,
        "not_ready": 1,
    }


def test_it_stands_wherever_a_validator_does(issuer, registry):
    validator = watch_validator(issuer.validator(), registry=registry)
    ours = Protection(validator=validator)
    assert ours.admit([f"Bearer {issuer.token('basket')}"]).sub == "basket"
    assert asyncio.run(ours.aadmit([f"Bearer {issuer.token('basket')}"])).sub == "basket"
    with pytest.raises(Refused):
        ours.admit([f"Bearer {issuer.token(claims={'cnf': {'jkt': 'A' * 43}})}"])
    assert registry.get_sample_value("tokenry_validations_total", {"result": "unconfirmed"}) == 1
    with validator as running:
        assert running.ready


@pytest.mark.parametrize("name", APPLICATIONS)
def test_each_request_of_every_framework_is_counted_once(name, issuer, registry):
    app = APPLICATIONS[name](watch_validator(issuer.validator(), registry=registry))
    tokens = [
        issuer.token(scope="orders.read"),
        issuer.token(),
        issuer.token(expired=True),
        issuer.token(header={"kid": "x"}),
    ]
    statuses = [app.call("GET", "/orders", [("Authorization", f"Bearer {token}")]).status for token in tokens]
    assert statuses == [200, 403, 401, 401]
    counted = {
        sample.labels["result"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "tokenry_validations_total" and sample.value
    }
    assert counted == {"ok": 2, "expired": 1, "unknown_key": 1}  # what the handler asks for is looked at after that


def test_the_age_of_what_is_judged_by_is_shown(issuer, registry):
    watch_validator(issuer.validator(), registry=registry)
    issuer.revoke(issuer.token())
    issuer.validator()
    assert registry.get_sample_value("tokenry_revocation_list_age_seconds") == 0
    assert registry.get_sample_value("tokenry_validator_ready") == 1
    issuer.down = True
    issuer.clock.advance(minutes=20)
    assert registry.get_sample_value("tokenry_revocation_list_age_seconds") == 1200
    assert registry.get_sample_value("tokenry_jwks_age_seconds") == 1200
    assert registry.get_sample_value("tokenry_validator_ready") == 0
    with pytest.raises(ValueError, match="Duplicated"):
        watch_validator(issuer.validator(), registry=registry)
