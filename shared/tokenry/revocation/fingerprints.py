"""
Keyed fingerprints of tokens, ids, keys and claim values: lists never carry what they name.

Invariants:
    * A fingerprint's input can be read in one way only (every part carries its length), so no two different
      sets of names and values share one.
    * Strings are taken as received; nothing is normalised here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from tokenry.errors import ConfigurationError
from tokenry.revocation.entries import FINGERPRINT_BYTES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenry.secret import Secret

LIST_SALT_BYTES: Final = 32  # as long as the hash that it keys
_LIST_SALT_PURPOSE: Final = b"tokenry list salt 1"


def fingerprint(kind: Kind, pairs: Iterable[tuple[str, str]], *, salt: bytes) -> bytes:
    """
    Return the first 16 bytes of HMAC-SHA-256 under *salt* over *kind* and *pairs*.

    Args:
        kind: What is named: `jti`, `token`, `key` or `claims`.
        pairs: Names and values in any order; they are hashed in the byte order of the names.
        salt: The key, as the list carries it.
    """
    fields = [field for pair in sorted(pairs) for field in map(_field, pair)]  # code points sort as UTF-8 does
    return _keyed(salt, b"".join((kind.value.encode("ascii"), b"\x00", *fields)))


def jti_fingerprint(iss: str, jti: str, *, salt: bytes) -> bytes:
    """Return the fingerprint of the token with id *jti* of issuer *iss*."""
    return _keyed(salt, _before_jti(iss) + _field(jti))


@lru_cache(maxsize=64)  # trusted issuers are few
def _before_jti(iss: str) -> bytes:
    return b"jti\x00\x00\x00\x00\x03iss" + _field(iss) + b"\x00\x00\x00\x03jti"


def token_fingerprint(signing_input: str, *, salt: bytes) -> bytes:
    """
    Return the fingerprint of the token whose first two segments are *signing_input*.

    The signature is left out: it has several spellings, the signing input has one.
    """
    return _keyed(salt, b"token\x00\x00\x00\x00\x05token" + _field(signing_input))


@lru_cache(maxsize=256)  # keys are few, and every token of one asks the same
def key_fingerprint(iss: str, kid: str, *, salt: bytes) -> bytes:
    """Return the fingerprint of the key *kid* of issuer *iss*."""
    return fingerprint(Kind.KEY, (("iss", iss), ("kid", kid)), salt=salt)


def claims_fingerprint(pairs: Iterable[tuple[str, str]], *, salt: bytes) -> bytes:
    """Return the fingerprint of a claims rule."""
    fields = [_field(name) + _field(value) for name, value in sorted(pairs)]
    return _keyed(salt, b"claims\x00" + b"".join(fields))


def _field(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")  # a lone surrogate must not raise here
    return len(data).to_bytes(4, "big") + data


def _keyed(salt: bytes, message: bytes) -> bytes:
    """Return the first 16 bytes of HMAC-SHA-256 (RFC 2104), its two keyed blocks hashed once for each salt."""
    inner, outer = _states(salt)
    inner, outer = inner.copy(), outer.copy()
    inner.update(message)
    outer.update(inner.digest())
    return outer.digest()[:FINGERPRINT_BYTES]


@lru_cache(maxsize=64)  # a list has one salt, two during a change
def _states(salt: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Return SHA-256 after the inner and after the outer block of HMAC: half of the work of a short message."""
    key = salt if len(salt) <= _BLOCK_BYTES else hashlib.sha256(salt).digest()
    padded = key.ljust(_BLOCK_BYTES, b"\x00")
    return (hashlib.sha256(padded.translate(_INNER_PAD)), hashlib.sha256(padded.translate(_OUTER_PAD)))


_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))


def plan_b_hash(text: str, *, salt: str) -> str:
    """
    Return Plan B's hash of *text*: base64url with padding of SHA-256 over salt and text.

    Args:
        text: The raw token, or the claim values joined by `|` in the order of their names.
        salt: The salt that every Plan B validator was configured with.
    """
    return base64.urlsafe_b64encode(plan_b_digest(text, salt=salt)).decode("ascii")


def plan_b_digest(text: str, *, salt: str) -> bytes:
    """Return the 32 bytes that `plan_b_hash` spells."""
    return hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).digest()


def derive_list_salt(hashing_salt: Secret) -> tuple[str, bytes]:
    """
    Return the id and the bytes of the list's own salt.

    Every replica derives the same one from the configured *hashing_salt*, and publishing it does not reveal
    that one: it is a one-way function of it. (Whoever guesses the hashing salt can confirm the guess, so it
    has to be random.)

    Raises:
        ConfigurationError: *hashing_salt* is empty.
    """
    if not hashing_salt:
        raise ConfigurationError(["the hashing salt is empty: give a random one, the same to every replica"])
    key = hashing_salt.reveal().encode("utf-8", "surrogatepass")
    salt = hmac.digest(key, _LIST_SALT_PURPOSE, "sha256")
    identity = hashlib.sha256(salt).digest()[:9]
    return base64.urlsafe_b64encode(identity).decode("ascii"), salt
