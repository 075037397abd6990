"""
Signing keys as they are stored: `keys/<kid>.json`.

    {"version": 1, "kid": "…", "use": "token", "public_jwk": {…}, "publish_at": 1, "activate_at": 2,
    "retire_at": 3,
     "sealed": {"method": "local", "data_key": "…", "nonce": "…", "ciphertext": "…"}}

With `"kms_key_id": "…"` in the place of `sealed` the private half is in a key management service and never leaves it.

A key comes into force only if its private half opens, belongs to its public half, bears the thumbprint that
it is named after (RFC 7638), and has signed and verified a probe; one of a key management service proves itself
once that service answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import BadSignature, PrivateKey, PublicKey, thumbprint
from tokenry.jose.probe import check_key
from tokenry.jose.remote import RemoteKey
from tokenry.jose.sealing import Sealed, UnsealingFailed
from tokenry_registry.fields import Fields
from tokenry_registry.key_schedule import KeyTimes
from tokenry_registry.realms import Refusal, RefusedObject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.jose.jwk import Signer
    from tokenry.jose.sealing import EnvelopeKey
    from tokenry_registry.key_management import KeyManagement

KEYS_PREFIX = "keys/"
FORMAT_VERSION = 1


class KeyUse(StrEnum):
    """What a key may sign; one key has one use."""

    TOKEN = "token"  # noqa: S105 -- the name of a use
    LIST = "list"
    INTROSPECTION = "introspection"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """
    A key that works.

    Attributes:
        times: When it does what.
        private: Signs.
        public: What is published.
        remote: Whether signing waits for a key management service.
    """

    times: KeyTimes
    private: Signer
    public: PublicKey
    remote: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKey:
    """
    The public half of a key of another role, which this service cannot open and only publishes.

    Attributes:
        use: What the key signs.
        times: When it does what.
        public: What is published.
    """

    use: KeyUse
    times: KeyTimes
    public: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """
    A key as it is stored, private half still sealed.

    Attributes:
        kid: Key id.
        use: What it may sign.
        times: When it does what.
        public_jwk: The public half as stored.
        sealed: The private half; None where a key management service holds it.
        kms_key_id: Its id there; None where it is sealed.
    """

    kid: str
    use: KeyUse
    times: KeyTimes
    public_jwk: Mapping[str, Any]
    sealed: Sealed | None = None
    kms_key_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse a key whose private half is in two places, or in none."""
        if (self.sealed is None) == (self.kms_key_id is None):
            raise ValueError("a key has either sealed or kms_key_id")

    def to_json(self) -> bytes:
        """Return the object as `read_stored_key` reads it."""
        members: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "kid": self.kid,
            "use": str(self.use),
            "public_jwk": dict(self.public_jwk),
            "publish_at": self.times.publish_at,
            "activate_at": self.times.activate_at,
            "retire_at": self.times.retire_at,
        }
        if self.sealed is not None:
            members["sealed"] = self.sealed.to_dict()
        else:
            members["kms_key_id"] = self.kms_key_id
        return json.dumps(members, indent=2).encode("utf-8") + b"\n"


def read_key_name(key: str) -> str:
    """
    Return the kid that the object at *key* must have.

    Raises:
        RefusedObject: The layout has no such place.
    """
    name = key.removeprefix(KEYS_PREFIX).removesuffix(".json")
    if key != f"{KEYS_PREFIX}{name}.json" or "/" in name or not name:
        raise RefusedObject(Refusal.UNKNOWN_KEY, "the layout has no place for this key")
    return name


def read_stored_key(body: bytes, *, kid: str) -> StoredKey:
    """
    Return the stored key that *body* describes.

    Raises:
        RefusedObject: It is malformed, or names another key than its place does.
    """
    try:
        fields = Fields(parse_json_object(body))
        fields.integer("version", at_least=FORMAT_VERSION, at_most=FORMAT_VERSION)
        use = KeyUse(fields.choice("use", among=set(KeyUse), default=""))
        named = fields.text("kid")
        sealed = fields.optional_object("sealed")
        stored = StoredKey(
            kid=named,
            use=use,
            times=_times(fields, kid=named),
            public_jwk=_object(fields, "public_jwk"),
            sealed=None if sealed is None else Sealed.from_dict(sealed),
            kms_key_id=fields.optional_text("kms_key_id"),
        )
        fields.finish()
    except (ProtocolError, UnsealingFailed, ValueError) as error:
        raise RefusedObject(Refusal.MALFORMED, f"a key object is malformed: {error}") from None
    if stored.kid != kid:
        raise RefusedObject(Refusal.WRONG_NAME, "the object names another key than its place does")
    return stored


def published_key(stored: StoredKey) -> PublishedKey:
    """
    Return the public half of *stored*.

    Raises:
        RefusedObject: It is no key, or not the one that it is named after.
    """
    try:
        public = PublicKey.from_jwk({**stored.public_jwk, "kid": stored.kid})
        named_after = thumbprint(stored.public_jwk)
    except (ProtocolError, ValueError):
        raise RefusedObject(Refusal.MALFORMED, "the public half of a key is malformed") from None
    if stored.kid != named_after:
        raise RefusedObject(Refusal.MALFORMED, "kid is not the thumbprint of the key")
    return PublishedKey(use=stored.use, times=stored.times, public=public)


def open_key(stored: StoredKey, *, envelope: EnvelopeKey) -> SigningKey:
    """
    Return the key, unsealed and proven to work.

    Raises:
        RefusedObject: It does not open, its halves do not belong together, or it does not sign.
    """
    if stored.sealed is None:
        raise RefusedObject(Refusal.MALFORMED, "the private half of a key is in a key management service")
    try:
        plain = envelope.open(stored.sealed, kid=stored.kid, use=stored.use)
        private = PrivateKey.from_pkcs8_der(plain)
        public = PublicKey.from_jwk({**stored.public_jwk, "kid": stored.kid})
        _check_halves(stored, private)
        check_key(private, public)
    except UnsealingFailed:
        raise RefusedObject(Refusal.MALFORMED, "a key does not open: is it sealed with another envelope key?") from None
    except (ProtocolError, BadSignature, ValueError):
        raise RefusedObject(Refusal.MALFORMED, "the halves of a key do not belong together") from None
    return SigningKey(times=stored.times, private=private, public=public)


def remote_key(stored: StoredKey, *, management: KeyManagement) -> SigningKey:
    """
    Return the key, signing through *management*, which is not asked yet: it still has to prove itself.

    Raises:
        RefusedObject: It is held elsewhere, or its public half is not the one that it is named after.
    """
    key_id = stored.kms_key_id
    if key_id is None:
        raise RefusedObject(Refusal.MALFORMED, "the private half of a key is in no key management service")
    public = published_key(stored).public
    private = RemoteKey(public, lambda message: management.sign(key_id, message))
    return SigningKey(times=stored.times, private=private, public=public, remote=True)


def _check_halves(stored: StoredKey, private: PrivateKey) -> None:
    if not stored.kid == private.kid == thumbprint(stored.public_jwk):
        raise ProtocolError("kid is not the thumbprint of the key")


def _times(fields: Fields, *, kid: str) -> KeyTimes:
    return KeyTimes(
        kid=kid,
        publish_at=fields.integer("publish_at"),
        activate_at=fields.integer("activate_at"),
        retire_at=fields.integer("retire_at"),
    )


def _object(fields: Fields, name: str) -> Mapping[str, Any]:
    value = fields.optional_object(name)
    if value is None:
        raise ProtocolError(f"{name} is missing")
    return value
