"""
Stored forms of secrets and passwords, read strictly and bounded in cost.

=================  ===================================================================================
`$argon2id$v=19$`  Argon2id in its usual encoding (RFC 9106), for passwords that people chose
`$2a$ $2b$ $2y$`   bcrypt, for what was taken over from older systems
`sha256:`          the SHA-256 of the secret's UTF-8 bytes, as 64 lower-case hexadecimal digits or 43
                   characters of unpadded base64url: only for secrets that the platform generated itself
                   with at least 256 random bits, where a slow hash adds nothing
=================  ===================================================================================

Whoever can write a hash chooses what it costs to check it. Every parameter therefore has a ceiling: an object
above it is refused when it is read, so that no stored hash can freeze the service.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import argon2
import bcrypt

from tokenry.errors import ProtocolError

MAX_ARGON2_MEMORY_KIB = 256 * 1024  # four times what RFC 9106 recommends for constrained servers
MAX_ARGON2_PASSES = 10
MAX_ARGON2_LANES = 8
MAX_ARGON2_WORK = 1024 * 1024  # KiB times passes: about a second of one core
MAX_BCRYPT_COST = 14  # about a second of one core; each step doubles it
MIN_BCRYPT_COST = 4  # the least that the algorithm has
BCRYPT_BYTES = 72  # bcrypt reads no further: a longer secret would be equal to its own beginning

_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{16,86})"
)
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_SHA256_BASE64URL = re.compile(r"[A-Za-z0-9_-]{43}")
_SHA256 = "sha256:"


class HashKind(StrEnum):
    """How a secret is stored."""

    SHA256 = "sha256"
    BCRYPT = "bcrypt"
    ARGON2ID = "argon2id"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHash:
    """
    One stored hash, known to be well-formed and within the ceilings; made by `parse_hash`.

    Attributes:
        kind: Its algorithm.
        text: The stored text; of no use to a reader of logs and still not shown.
        microseconds: What checking it costs, roughly: only for comparing hashes and for equal work.
    """

    kind: HashKind
    text: str
    microseconds: int

    @property
    def slow(self) -> bool:
        """Tell whether checking it must stay off the event loop."""
        return self.kind is not HashKind.SHA256

    def __repr__(self) -> str:
        """Show the algorithm only."""
        return f"StoredHash({self.kind})"


def parse_hash(text: str) -> StoredHash:
    """
    Return the stored hash *text*.

    Raises:
        ProtocolError: It is of no known form, or costs more to check than the ceilings allow.
    """
    if text.startswith("$argon2id$"):
        return _argon2id(text)
    if text.startswith("$2"):
        return _bcrypt(text)
    if text.startswith(_SHA256):
        _sha256_digest(text)
        return StoredHash(kind=HashKind.SHA256, text=text, microseconds=1)
    raise ProtocolError("a hash is none of argon2id, bcrypt and sha256")


def matches(stored: StoredHash, secret: str) -> bool:
    """
    Tell whether *secret* is what was *stored*; always does the work that the hash asks for.

    A malformed hash or an odd secret is a mismatch, never an exception. Blocks for as long as the hash takes.
    """
    try:
        candidate = secret.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: no client can have been given that
        candidate, possible = b"\xff", False
    else:
        possible = True
    return _MATCHERS[stored.kind](stored.text, candidate) and possible


def decoy_like(stored: StoredHash) -> StoredHash:
    """Return a hash that nothing matches and that costs as much to check as *stored*."""
    if stored.kind is HashKind.ARGON2ID:
        head, _, digest = stored.text.rpartition("$")
        head, _, salt = head.rpartition("$")
        text = f"{head}${'A' * len(salt)}${'A' * len(digest)}"
        return StoredHash(kind=stored.kind, text=text, microseconds=stored.microseconds)
    if stored.kind is HashKind.BCRYPT:
        return StoredHash(kind=stored.kind, text=stored.text[:7] + "." * 53, microseconds=stored.microseconds)
    return NO_MATCH


def _argon2id(text: str) -> StoredHash:
    found = _ARGON2ID.fullmatch(text)
    if found is None:
        raise ProtocolError("an argon2id hash is malformed")
    memory, passes, lanes = (int(found[number]) for number in (1, 2, 3))
    bounded = (
        8 * lanes <= memory <= MAX_ARGON2_MEMORY_KIB
        and 1 <= passes <= MAX_ARGON2_PASSES
        and 1 <= lanes <= MAX_ARGON2_LANES
        and memory * passes <= MAX_ARGON2_WORK
    )
    if not bounded:
        raise ProtocolError("an argon2id hash asks for parameters outside the bounds")
    return StoredHash(kind=HashKind.ARGON2ID, text=text, microseconds=max(2, memory * passes * 7 // 10))


def _bcrypt(text: str) -> StoredHash:
    found = _BCRYPT.fullmatch(text)
    if found is None:
        raise ProtocolError("a bcrypt hash is malformed")
    cost = int(found[1])
    if not MIN_BCRYPT_COST <= cost <= MAX_BCRYPT_COST:
        raise ProtocolError(f"a bcrypt hash has a cost outside {MIN_BCRYPT_COST} to {MAX_BCRYPT_COST}")
    return StoredHash(kind=HashKind.BCRYPT, text=text, microseconds=60 << cost)


@lru_cache(maxsize=8192)
def _sha256_digest(text: str) -> bytes:
    encoded = text.removeprefix(_SHA256)
    if _SHA256_HEX.fullmatch(encoded):
        return bytes.fromhex(encoded)
    if _SHA256_BASE64URL.fullmatch(encoded):
        return base64.urlsafe_b64decode(encoded + "=")
    raise ProtocolError("a sha256 hash is neither 64 hexadecimal digits nor 43 characters of base64url")


def _matches_argon2id(text: str, candidate: bytes) -> bool:
    try:
        return argon2.low_level.verify_secret(text.encode("ascii"), candidate, argon2.low_level.Type.ID)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, ValueError):
        return False


def _matches_bcrypt(text: str, candidate: bytes) -> bool:
    try:
        # The work is done also for a secret that is too long, so that time tells nothing.
        found = bcrypt.checkpw(candidate[:BCRYPT_BYTES], text.encode("ascii"))
    except ValueError:
        return False
    # bcrypt repeats the secret with a NUL between, so that `a` and `a NUL a` are one to it.
    return found and len(candidate) <= BCRYPT_BYTES and b"\0" not in candidate


def _matches_sha256(text: str, candidate: bytes) -> bool:
    try:
        stored = _sha256_digest(text)
    except (ProtocolError, binascii.Error):
        return False
    return hmac.compare_digest(hashlib.sha256(candidate).digest(), stored)


_MATCHERS = {
    HashKind.ARGON2ID: _matches_argon2id,
    HashKind.BCRYPT: _matches_bcrypt,
    HashKind.SHA256: _matches_sha256,
}
# No secret is known whose SHA-256 is all zeros, and finding one would be the end of SHA-256.
NO_MATCH = StoredHash(kind=HashKind.SHA256, text=_SHA256 + "0" * 64, microseconds=1)
