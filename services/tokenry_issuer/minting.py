"""
The access token (RFC 9068), from a grant to a signed JWT. Pure: time and randomness are arguments.

Nothing of the request enters a claim but what the grant decided: no secret, no foreign token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.oauth.confirmation import JKT
from tokenry.oauth.mutual_tls import bound_to
from tokenry.scope import format_scope
from tokenry.secret import Secret
from tokenry_registry.realms import ClaimsProfile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.jose.jwk import Signer
    from tokenry_issuer.grants import Grant

JTI_BYTES = 20  # 160 random bits: no two tokens share an id, whatever the number of issuers and restarts
MIN_JTI_BYTES = 16
CLAIMS = ("iss", "sub", "aud", "client_id", "azp", "exp", "iat", "jti", "scope", "realm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """
    A signed access token.

    Attributes:
        token: The compact JWT.
        kid: Id of the key that signed it.
        jti: Its id.
        expires_at: Unix seconds.
    """

    token: Secret
    kid: str
    jti: str
    expires_at: int


def new_jti(randomness: bytes) -> str:
    """
    Return a token id of *randomness*.

    Raises:
        ValueError: There are fewer than 128 bits.
    """
    if len(randomness) < MIN_JTI_BYTES:
        raise ValueError(f"a token id has at least {8 * MIN_JTI_BYTES} random bits")
    return b64url_encode(randomness)


def build_claims(grant: Grant, *, issuer: str, now: float, jti: str) -> dict[str, Any]:
    """
    Return the claims of the token for *grant* (RFC 9068 section 2.2).

    Args:
        grant: What was decided.
        issuer: The issuer identifier, byte for byte that of the metadata.
        now: Unix time; its whole seconds are `iat`.
        jti: From `new_jti`.
    """
    issued_at = int(now)
    scope: str | list[str] = format_scope(grant.scope)
    if grant.realm.claims_profile is ClaimsProfile.PLAN_B:
        scope = sorted(grant.scope)
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": grant.subject,
        "aud": grant.audience[0] if len(grant.audience) == 1 else list(grant.audience),
        "client_id": grant.client_id,
        "azp": grant.client_id,
        "exp": issued_at + grant.lifetime,
        "iat": issued_at,
        "jti": jti,
        "scope": scope,
        "realm": grant.realm.name,
    }
    if grant.origin is not None:
        # Never later than what it was made from, also when the clock has moved on since that was decided.
        claims["exp"] = min(claims["exp"], grant.origin.expires_at)
        claims |= grant.origin.claims()
    if grant.confirmation is not None or grant.key is not None:
        certificate = {} if grant.confirmation is None else bound_to(grant.confirmation)
        claims["cnf"] = {**certificate, **({} if grant.key is None else {JKT: grant.key})}
    return claims


class ClaimsTemplate:
    """
    The claims of every token of one grant, but for the moment and the id: `build_claims`, written down once.

    Attributes:
        lifetime: Seconds.
        steady: The claims that all of them share.
    """

    __slots__ = ("_after_jti", "_before_exp", "lifetime", "steady")

    def __init__(self, grant: Grant, *, issuer: str) -> None:
        """
        Write down the claims for *grant*.

        Raises:
            ValueError: The grant has an origin: then more depends on the moment.
        """
        if grant.origin is not None:
            raise ValueError("a token that was exchanged ends with its origin: it has no template")
        claims = build_claims(grant, issuer=issuer, now=0, jti="")
        names = list(claims)
        changing = names.index("exp")
        if names[changing : changing + 3] != ["exp", "iat", "jti"]:
            raise ValueError("what changes from token to token has to stand together")
        before, after = names[:changing], names[changing + 3 :]
        self.lifetime = grant.lifetime
        self.steady = {name: claims[name] for name in (*before, *after)}
        self._before_exp = dump_json({name: claims[name] for name in before}).removesuffix(b"}")
        self._after_jti = dump_json({name: claims[name] for name in after}).removeprefix(b"{")

    def fill(self, *, issued_at: int, jti: str) -> bytes:
        """
        Return the JSON text of the claims.

        Args:
            issued_at: Unix seconds.
            jti: From `new_jti`.
        """
        changing = (self._before_exp, issued_at + self.lifetime, issued_at, jti.encode("ascii"), self._after_jti)
        return b'%b,"exp":%d,"iat":%d,"jti":"%b",%b' % changing


def sign_text(claims: bytes, *, grant: Grant, signer: Signer) -> str:
    """Return *claims*, a JSON text, as a JWT signed by *signer*, with the `typ` that the realm asks for."""
    return jws.sign({"typ": str(grant.realm.token_type)}, claims, signer)


def sign(claims: Mapping[str, Any], *, grant: Grant, signer: Signer) -> Minted:
    """Return *claims* as a JWT signed by *signer*, with the `typ` that the realm asks for (RFC 9068, 2.1)."""
    token = sign_text(dump_json(claims), grant=grant, signer=signer)
    return Minted(token=Secret(token), kid=signer.kid, jti=claims["jti"], expires_at=claims["exp"])
