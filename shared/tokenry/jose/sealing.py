"""
Private keys at rest: sealed with AES-256-GCM under a key of their own, which an envelope key wraps.

Invariants:

* What was sealed for one `kid` and one `use` opens for no other: both are associated data of both
encryptions, so an
  object that is renamed, or a list key put where token keys lie, does not open.
* Nothing about why something does not open is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_decode, b64url_encode, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES = 32  # AES-256
NONCE_BYTES = 12  # NIST SP 800-38D section 5.2.1.1: the length that needs no hashing
LOCAL = "local"

_MEMBERS = ("method", "data_key", "nonce", "ciphertext")


class UnsealingFailed(TokenryError):
    """It was not sealed by this envelope key for this `kid` and `use`, or it was changed since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """
    A secret at rest.

    Attributes:
        method: Who can unwrap `data_key`: `local`, an envelope key in a file; `kms`, a key management
            service.
        data_key: The wrapped key that seals `ciphertext`; wrapped locally: nonce, then ciphertext and tag.
        nonce: The nonce of `ciphertext`.
        ciphertext: The secret under the data key, then the tag.
    """

    method: str
    data_key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> Sealed:
        """
        Return what the JSON object *members* says.

        Raises:
            ProtocolError: It does not have exactly the four members, as text, the last three in base64url.
        """
        if set(members) != set(_MEMBERS) or not all(isinstance(value, str) for value in members.values()):
            raise ProtocolError(f"a sealed secret has the members {', '.join(_MEMBERS)}, each a string")
        return cls(method=members["method"], **{name: b64url_decode(members[name]) for name in _MEMBERS[1:]})

    def to_dict(self) -> dict[str, str]:
        """Return the JSON object, with bytes in base64url."""
        return {
            "method": self.method,
            "data_key": b64url_encode(self.data_key),
            "nonce": b64url_encode(self.nonce),
            "ciphertext": b64url_encode(self.ciphertext),
        }


class EnvelopeKey:
    """A 256-bit key in memory that wraps the keys which seal; never printed, cannot be pickled."""

    __slots__ = ("_key",)

    def __init__(self, key_bytes: bytes) -> None:
        """
        Take the key.

        Raises:
            ProtocolError: It does not have 32 bytes.
        """
        if len(key_bytes) != KEY_BYTES:
            raise ProtocolError(f"an envelope key has {KEY_BYTES} bytes, not {len(key_bytes)}")
        self._key = key_bytes

    @classmethod
    def generate(cls) -> EnvelopeKey:
        """Return a new key."""
        return cls(_new_key())

    @classmethod
    def from_bytes(cls, key_bytes: bytes) -> EnvelopeKey:
        """
        Return the key that *key_bytes* is.

        Raises:
            ProtocolError: It does not have 32 bytes.
        """
        return cls(key_bytes)

    @classmethod
    def from_text(cls, text: str) -> EnvelopeKey:
        """
        Return the key of a file: its base64url form, white space around it allowed.

        Raises:
            ProtocolError: It is not the base64url of 32 bytes.
        """
        return cls(b64url_decode(text.strip()))

    def to_bytes(self) -> bytes:
        """Return the secret itself: only to be stored where nobody else reads."""
        return self._key

    def to_text(self) -> str:
        """Return the secret itself in base64url, as `from_text` reads it."""
        return b64url_encode(self._key)

    def seal(self, plaintext: bytes, *, kid: str, use: str) -> Sealed:
        """Return *plaintext* sealed so that it opens for *kid* and *use* only."""
        data_key, bound = _new_key(), _associated_data(kid, use)
        wrapping_nonce, nonce = _new_nonce(), _new_nonce()
        return Sealed(
            method=LOCAL,
            data_key=wrapping_nonce + AESGCM(self._key).encrypt(wrapping_nonce, data_key, bound),
            nonce=nonce,
            ciphertext=AESGCM(data_key).encrypt(nonce, plaintext, bound),
        )

    def open(self, sealed: Sealed, *, kid: str, use: str) -> bytes:
        """
        Return the secret that was sealed for *kid* and *use*.

        Raises:
            UnsealingFailed: It was sealed under another key, for another *kid* or *use*, or changed.
        """
        if sealed.method != LOCAL:
            raise UnsealingFailed("the secret was not sealed with an envelope key of a file")
        bound = _associated_data(kid, use)
        try:
            data_key = _decrypt(self._key, sealed.data_key[:NONCE_BYTES], sealed.data_key[NONCE_BYTES:], bound)
            return _decrypt(data_key, sealed.nonce, sealed.ciphertext, bound)
        except (InvalidTag, ValueError):
            message = "the secret does not open with this envelope key for this kid and use"
            raise UnsealingFailed(message) from None

    def __repr__(self) -> str:
        """Show nothing."""
        return "EnvelopeKey(…)"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a pickle is a copy in the clear."""
        message = "an envelope key cannot be pickled: pass the place it is read from instead"
        raise TypeError(message)


def _associated_data(kid: str, use: str) -> bytes:
    """Return *kid* and *use* such that no other pair gives the same bytes."""
    return dump_json({"kid": kid, "use": use})


def _decrypt(key: bytes, nonce: bytes, ciphertext: bytes, bound: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise ValueError("a nonce of another length")
    return AESGCM(key).decrypt(nonce, ciphertext, bound)


def _new_key() -> bytes:
    """Draw a key from the operating system's generator."""
    return AESGCM.generate_key(bit_length=8 * KEY_BYTES)


def _new_nonce() -> bytes:
    """Draw a nonce from the same generator: 2^32 under one key are safe, and no key here sees thousands."""
    return _new_key()[:NONCE_BYTES]
