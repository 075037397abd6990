"""The issuer's own token for a list that is not open, also when the key that it would sign with was revoked."""

import pytest

from tests.services.issuer.support import ISSUER_URL, NOW, running
from tokenry.errors import TokenFetchError
from tokenry.revocation.lists import RevocationList
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_issuer.list_bearer import LIFETIME, ListBearer

SCOPE = "revocation.read"


@pytest.fixture
async def issuer():
    async with running() as around:
        yield around


def bearer_of(issuer):
    bearer = ListBearer(SCOPE)
    bearer.sign_with(issuer.issuer.keyring, issuer=ISSUER_URL, clock=issuer.clock)
    return bearer


def judged(issuer, token):
    trusted = TrustedIssuer(issuer=ISSUER_URL, max_token_lifetime=LIFETIME)
    validator = Validator(ValidationPolicy(issuers=(trusted,), audience=ISSUER_URL))
    return validator.validate(
        token.value, now=issuer.clock.now(), keys=issuer.issuer.keyring.verifying(), revocations=RevocationList.empty(),
        list_age=0, scope=frozenset({SCOPE}),
    )  # fmt: skip


async def test_it_is_a_good_token_with_that_scope_alone_and_of_no_realm(issuer):
    info = judged(issuer, bearer_of(issuer).get())
    assert (info.sub, info.client_id, info.scope, info.realm) == ("tokenry-issuer", "tokenry-issuer", {SCOPE}, None)


async def test_it_is_kept_and_renewed_before_its_end(issuer):
    bearer = bearer_of(issuer)
    first = bearer.get()
    issuer.clock.advance(LIFETIME - 61)
    assert bearer.get() is first
    issuer.clock.advance(2)
    second = bearer.get()
    assert second.value != first.value
    assert second.expires_at > NOW + LIFETIME


async def test_a_refused_token_is_followed_by_one_of_another_published_key(issuer):
    bearer = bearer_of(issuer)
    kids = [judged(issuer, bearer.get()).kid]
    for _ in range(2):
        held = bearer.get()
        assert bearer.invalidate(held)
        assert not bearer.invalidate(held)  # once only
        kids.append(judged(issuer, bearer.get()).kid)
    assert kids[0] != kids[1]
    assert kids[2] == kids[0]  # when none was taken, it was not the key


async def test_before_there_are_keys_there_is_no_token():
    async with running(load=False) as issuer:
        with pytest.raises(TokenFetchError):
            bearer_of(issuer).get()
    with pytest.raises(TokenFetchError):
        ListBearer(SCOPE).get()
