"""
Introspection answers as signed JWTs (RFC 9701).

The keys are this service's own. They are never in the issuer's JWK Set, whose keys can make access tokens, but in a set
of their own at `/oauth2/introspect/keys`; and `typ` keeps an answer from being taken for a token (RFC 8725
section 3.11).

A key is stored as the issuer stores its own, sealed for the use `introspection`:

    {"version": 1, "kid": "…", "use": "introspection", "public_jwk": {…}, "publish_at": 1, "activate_at": 2,
     "retire_at": 3, "sealed": {"method": "local", "data_key": "…", "nonce": "…", "ciphertext": "…"}}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.jose.jwk import BadSignature, PrivateKey, PublicKey
from tokenry.jose.jwks import KeySet
from tokenry.jose.probe import check_key
from tokenry.jose.sealing import EnvelopeKey, Sealed, UnsealingFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenry.secret import Secret

MEDIA_TYPE: Final = "application/token-introspection+jwt"
TYP: Final = "token-introspection+jwt"  # RFC 9701 section 5
USE: Final = "introspection"
FORMAT_VERSION: Final = 1
MAX_KEYS: Final = 10  # the one that signs, the next, and those whose answers may still be around
_TIMES: Final = ("publish_at", "activate_at", "retire_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """
    A key that signs answers.

    Attributes:
        private: Signs.
        publish_at: Unix seconds from which it is published.
        activate_at: Unix seconds from which it signs, until a newer one does.
        retire_at: Unix seconds from which it is no longer published.
    """

    private: PrivateKey
    publish_at: int
    activate_at: int
    retire_at: int


def read_answer_keys(documents: Secret, *, envelope_key: Secret) -> tuple[AnswerKey, ...]:
    """
    Return the keys of *documents*: one sealed key as a JSON object, or `{"keys": [...]}` with several.

    Raises:
        ValueError: They are malformed, do not open, or are for another use.
    """
    try:
        envelope = EnvelopeKey.from_text(envelope_key.reveal())
        keys = tuple(_read_key(each, envelope) for each in _documents(documents))
    except UnsealingFailed:
        raise ValueError("a key does not open: is it sealed with another envelope key, or for another use?") from None
    except BadSignature:
        raise ValueError("the halves of a key do not belong together") from None
    except ProtocolError as error:
        raise ValueError(f"not the sealed keys of introspection answers: {error}") from None
    if len({key.private.kid for key in keys}) != len(keys):
        raise ValueError("a key is there twice")
    return keys


def _documents(text: Secret) -> list[object]:
    whole = parse_json_object(text.reveal().encode())
    members = whole["keys"] if set(whole) == {"keys"} else [whole]
    if not isinstance(members, list) or not 0 < len(members) <= MAX_KEYS:
        raise ProtocolError(f"write between one and {MAX_KEYS} keys")
    return members


def _read_key(members: object, envelope: EnvelopeKey) -> AnswerKey:
    names = {"version", "kid", "use", "public_jwk", "sealed", *_TIMES}
    if not isinstance(members, dict) or set(members) != names:
        raise ProtocolError(f"a key has the members {', '.join(sorted(names))}")
    if members["version"] != FORMAT_VERSION or members["use"] != USE:
        raise ProtocolError(f"a key has the version {FORMAT_VERSION} and the use {USE}")
    times = [members[name] for name in _TIMES]
    if any(type(time) is not int for time in times) or times != sorted(times):
        raise ProtocolError("publish_at, activate_at and retire_at are whole seconds in that order")
    kid, sealed, jwk = members["kid"], members["sealed"], members["public_jwk"]
    if not isinstance(kid, str) or not isinstance(sealed, dict) or not isinstance(jwk, dict):
        raise ProtocolError("kid is a text; sealed and public_jwk are objects")
    private = PrivateKey.from_pkcs8_der(envelope.open(Sealed.from_dict(sealed), kid=kid, use=USE))
    if private.kid != kid:
        raise ProtocolError("kid is not the thumbprint of the key")
    check_key(private, PublicKey.from_jwk({**jwk, "kid": kid}))
    return AnswerKey(private=private, publish_at=times[0], activate_at=times[1], retire_at=times[2])


class AnswerSigner:
    """Signs the answers to introspections."""

    def __init__(self, keys: Sequence[AnswerKey], *, issuer: str) -> None:
        """Sign as *issuer*, the authorization server that the answers stand for, with the newest of *keys*."""
        self._keys = tuple(keys)
        self._issuer = issuer

    def sign(self, answer: Mapping[str, Any], *, caller: str, now: float) -> str | None:
        """
        Return *answer* as a JWT for *caller* (RFC 9701 section 5); None while no key may sign.

        All that is said of the token is inside `token_introspection`: with `sub` or `exp` outside, the answer
        could pass for a token of that subject.

        Args:
            answer: Members of the answer in its plain form.
            caller: Client id of the one who asked: the only audience.
            now: Unix seconds.
        """
        signing = [key for key in self._keys if key.activate_at <= now < key.retire_at]
        if not signing:
            return None
        key = max(signing, key=lambda each: each.activate_at)
        claims = {"iss": self._issuer, "aud": caller, "iat": int(now), "token_introspection": dict(answer)}
        return jws.sign({"typ": TYP}, dump_json(claims), key.private)

    def jwks(self, *, now: float) -> bytes:
        """Return the JWK Set that answers are verified with at *now*."""
        published = [key.private.public for key in self._keys if key.publish_at <= now < key.retire_at]
        return KeySet.of(self._issuer, published).to_jwks() if published else b'{"keys":[]}'


def accepts_jwt(accept: Iterable[str]) -> bool:
    """Tell whether the `Accept` fields of a request name the signed form (RFC 9110 section 12.5.1)."""
    for item in ",".join(accept).split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        if media_type == MEDIA_TYPE and not any(part in _REFUSED for part in parameters):
            return True
    return False


_REFUSED = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})
