from dataclasses import dataclass

import pytest

from tests.support.access_tokens import ISSUER, KEY, KEYS, NOW, claims
from tokenry.jose.jwks import KeySet
from tokenry.revocation.judged import JudgedToken
from tokenry.validation.claim_set import read_claim_set
from tokenry.validation.memory import SEEN_PER_REMEMBERED, VerifiedToken, VerifiedTokens
from tokenry.validation.policy import TrustedIssuer

TRUSTED = TrustedIssuer(issuer=ISSUER, max_token_lifetime=3600)


def verified(**changes):
    info = read_claim_set(claims(**changes), kid=KEY.kid, foreign=False)
    judged = JudgedToken(
        iss=info.iss, jti=info.jti, kid=info.kid, iat=info.iat, claims=info.claims, signing_input="a.b"
    )
    return VerifiedToken(info=info, judged=judged, issuer=TRUSTED, key=KEY.public, keys=KEYS)


GOOD = verified()


def use(memory, *tokens, times=2):
    for token in tokens:
        for _ in range(times):
            if memory.get(token) is None:
                memory.admit(token, GOOD)


def test_a_token_enters_at_its_second_sight():
    memory = VerifiedTokens(10)
    memory.admit("a", GOOD)
    assert memory.get("a") is None
    memory.admit("a", GOOD)
    assert memory.get("a") is GOOD


@pytest.mark.parametrize("limit", [2, 10, 100])
def test_it_never_holds_more_than_its_limit(limit):
    memory = VerifiedTokens(limit)
    for number in range(5 * limit):
        use(memory, f"token {number}")
        assert len(memory) <= limit
        assert len(memory._seen) + len(memory._seen_before) <= limit * SEEN_PER_REMEMBERED


def test_a_limit_of_zero_remembers_nothing():
    memory = VerifiedTokens(0)
    use(memory, "a", times=5)
    assert memory.get("a") is None
    assert len(memory._seen) + len(memory._seen_before) <= 1


def test_what_is_in_use_stays_and_what_is_not_goes():
    memory = VerifiedTokens(10)
    use(memory, "in use", "idle")
    for number in range(100):
        use(memory, f"token {number}")
        assert memory.get("in use") is GOOD
    assert memory.get("idle") is None


def test_tokens_that_are_seen_once_drive_nothing_out():
    memory = VerifiedTokens(10)
    use(memory, "resting")
    for number in range(1000):
        use(memory, f"token {number}", times=1)
    assert memory.get("resting") is GOOD
    assert len(memory) == 1


def test_a_sight_is_remembered_for_a_while_when_there_are_many():
    memory = VerifiedTokens(10)
    use(memory, "rare", times=1)
    for number in range(5 * SEEN_PER_REMEMBERED):
        use(memory, f"token {number}", times=1)
    memory.admit("rare", GOOD)
    assert memory.get("rare") is GOOD
    for number in range(10 * SEEN_PER_REMEMBERED + 1):
        use(memory, f"other {number}", times=1)
    memory.admit("token 0", GOOD)
    assert memory.get("token 0") is None


def test_what_is_forgotten_is_gone_from_both_generations():
    memory = VerifiedTokens(4)
    use(memory, "a", "b", "c")
    assert memory.get("a") is GOOD
    for token in ("a", "b", "c", "never seen"):
        memory.forget(token)
        assert memory.get(token) is None
    assert len(memory) == 0


def test_the_later_of_the_two_beginnings_counts():
    assert verified().not_before == NOW
    assert verified(nbf=NOW - 5).not_before == NOW
    assert verified(nbf=NOW + 5).not_before == NOW + 5


@dataclass
class CountingKeys:
    """Stands for a key set: counts how often it is searched."""

    found: object
    searched: int = 0

    def find(self, issuer, kid):
        self.searched += 1
        return self.found


def test_one_key_set_is_searched_once():
    token, keys = verified(), CountingKeys(KEY.public)
    for _ in range(3):
        assert token.is_verified_by(keys)
    assert keys.searched == 1


def test_a_key_set_without_the_key_is_none():
    token = verified()
    assert not token.is_verified_by(None)
    assert not token.is_verified_by(KeySet.of(ISSUER, []))
    assert not token.is_verified_by(CountingKeys(None))
    assert token.is_verified_by(KEYS)
