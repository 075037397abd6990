"""A key is tried, by us and by PyJWT, before it signs for anybody."""

from dataclasses import replace

import pytest

from tokenry.jose.jwk import Algorithm, BadSignature, PrivateKey
from tokenry.jose.probe import check_key


def test_a_sound_key_passes() -> None:
    key = PrivateKey.generate()
    check_key(key, key.public)


def test_halves_that_do_not_belong_together_do_not_pass() -> None:
    with pytest.raises(BadSignature):
        check_key(PrivateKey.generate(), PrivateKey.generate().public)


class Broken:
    """Signs something else than it is given."""

    algorithm = Algorithm.ES256

    def __init__(self, key: PrivateKey) -> None:
        self.kid = key.kid
        self._key = key

    def sign(self, signing_input: bytes) -> bytes:
        return self._key.sign(signing_input + b"x")


def test_a_signer_that_signs_something_else_does_not_pass() -> None:
    key = PrivateKey.generate()
    with pytest.raises(BadSignature):
        check_key(Broken(key), key.public)


def test_what_only_we_accept_does_not_pass() -> None:
    key = PrivateKey.generate()
    stranger = PrivateKey.generate().public
    # Our half verifies with the key object; the other implementation reads the members that are published.
    mixed = replace(key.public, members=stranger.members)
    with pytest.raises(BadSignature, match="another implementation"):
        check_key(key, mixed)
