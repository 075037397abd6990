"""
What can be believed of a token that somebody wants revoked.

Its id, issuer, expiry and owner are taken from it only when its signature was verified: otherwise anybody
could have an entry kept for years, or revoke under another's name. It may have expired; it may be spelt with
the other ECDSA signature; everything else that is not a token of a configured issuer is refused, for it can
never match anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import Algorithm, BadSignature
from tokenry.jose.jws import split, twin
from tokenry_revocation.requests import MAX_VALUE_BYTES, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.jwks import KeySet
    from tokenry.jose.jws import UnverifiedJws
    from tokenry.secret import Secret

_ALGORITHMS = frozenset(map(str, Algorithm))
_SECONDS = range(1, 2**32)  # what four bytes hold, as the lists do


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedClaims:
    """
    What a token says about itself, under a signature that was verified; None for what it does not say
    properly.

    Attributes:
        jti: Its id.
        client_id: The client that it was issued to (`client_id`, else `azp`).
        realm: The client's realm: two realms may have clients of one name.
        iat: Unix seconds at which it was issued.
        exp: Unix seconds from which it is dead.
    """

    jti: str | None = field(repr=False)
    client_id: str | None
    realm: str | None
    iat: int | None
    exp: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentedToken:
    """
    A token of a configured issuer.

    Attributes:
        iss: The issuer that it claims; believed only together with `verified`.
        signing_input: `header.payload`, which has one spelling only.
        spellings: The token, and its twin with the other ECDSA signature: Plan B hashes the whole text.
        verified: Its claims; None when the key that it names is not at hand.
    """

    iss: str
    signing_input: str = field(repr=False)
    spellings: tuple[str, ...] = field(repr=False)
    verified: VerifiedClaims | None


def examine(token: Secret, *, issuers: Collection[str], keys: KeySet | None) -> PresentedToken:
    """
    Return what can be believed of *token*.

    Args:
        token: As it was sent.
        issuers: The configured issuers.
        keys: The keys at hand.

    Raises:
        InvalidRequest: It is malformed, of another issuer, or not signed by the key that it names. The
            message does not say which of its parts is wrong beyond that.
    """
    text = token.reveal()
    # 1. shape: canonical, so that no re-encoding is a token of its own
    try:
        jws = split(text)
        spellings = tuple(dict.fromkeys((text, twin(text))))
        claims = parse_json_object(jws.payload)
    except ProtocolError:
        raise InvalidRequest("the token is not a well-formed JWT") from None
    # 2. an algorithm that some issuer of ours could use, and an issuer of ours
    iss = claims.get("iss")
    if jws.header.get("alg") not in _ALGORITHMS or not isinstance(iss, str) or iss not in issuers:
        raise InvalidRequest("the token is not of an issuer that is configured here")
    # 3. the signature, where the key is at hand
    key = _key(jws, iss, keys)
    if key is not None:
        _verify(jws, key)
    return PresentedToken(
        iss=iss,
        signing_input=jws.signing_input.decode("ascii"),
        spellings=spellings,
        verified=None if key is None else _claims(claims),
    )


def claimed_realm(token: Secret) -> str | None:
    """Return the realm that *token* claims, unverified: where to look for its client first, and nothing more."""
    try:
        return _text(parse_json_object(split(token.reveal()).payload).get("realm"))
    except ProtocolError:
        return None


def _key(jws: UnverifiedJws, iss: str, keys: KeySet | None) -> PublicKey | None:
    kid = jws.header.get("kid")
    return keys.find(iss, kid) if keys is not None and isinstance(kid, str) else None


def _verify(jws: UnverifiedJws, key: PublicKey) -> None:
    refusal = InvalidRequest("the token was not signed by the key that it names")
    if jws.header["alg"] != key.algorithm:
        raise refusal
    try:
        key.verify(jws.signing_input, jws.signature, low_s=False)
    except BadSignature:
        raise refusal from None


def _claims(claims: dict[str, Any]) -> VerifiedClaims:
    client_id = _text(claims.get("client_id"))
    return VerifiedClaims(
        jti=_text(claims.get("jti")),
        client_id=_text(claims.get("azp")) if client_id is None else client_id,
        realm=_text(claims.get("realm")),
        iat=_seconds(claims.get("iat")),
        exp=_seconds(claims.get("exp")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value.encode("utf-8")) <= MAX_VALUE_BYTES else None


def _seconds(value: object) -> int | None:
    return value if type(value) is int and value in _SECONDS else None
