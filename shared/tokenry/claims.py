"""What a validated access token says (RFC 9068 section 2.2). Only the validator makes these."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class TokenInfo:
    """
    The verified content of one access token: its signature, times, audience and revocation were checked.

    Attributes:
        iss: Issuer identifier.
        sub: Subject: the client id, or the name of the service user.
        client_id: The client that the token was issued to (`client_id`, else `azp`); None where unknown.
        aud: Audiences; empty only where the validator's owner chose to check none.
        scope: Granted scopes.
        exp: Unix seconds from which the token is dead.
        iat: Unix seconds at which it was issued.
        jti: Token id; None for an issuer that gives none (Plan B).
        realm: Realm with its leading slash; None where the issuer has none.
        kid: Id of the key that signed it.
        claims: All claims, read-only, for what has no field here.
    """

    iss: str
    sub: str
    client_id: str | None
    aud: tuple[str, ...]
    scope: Scope
    exp: int
    iat: int
    jti: str | None
    realm: str | None
    kid: str
    claims: Mapping[str, Any]

    def __init__(
        self,
        *,
        iss: str,
        sub: str,
        client_id: str | None,
        aud: tuple[str, ...],
        scope: Scope,
        exp: int,
        iat: int,
        jti: str | None,
        realm: str | None,
        kid: str,
        claims: Mapping[str, Any],
    ) -> None:
        """Take what was verified. Written out: what a frozen dataclass makes by itself takes half as long again."""
        _set_iss(self, iss)
        _set_sub(self, sub)
        _set_client_id(self, client_id)
        _set_aud(self, aud)
        _set_scope(self, scope)
        _set_exp(self, exp)
        _set_iat(self, iat)
        _set_jti(self, jti)
        _set_realm(self, realm)
        _set_kid(self, kid)
        _set_claims(self, claims)

    def __repr__(self) -> str:
        """Name the token without what it carries: claims may be confidential."""
        return f"TokenInfo(iss={self.iss!r}, jti={self.jti!r})"


(
    _set_iss,
    _set_sub,
    _set_client_id,
    _set_aud,
    _set_scope,
    _set_exp,
    _set_iat,
    _set_jti,
    _set_realm,
    _set_kid,
    _set_claims,
) = (
    getattr(TokenInfo, each.name).__set__ for each in fields(TokenInfo)
)  # as `object.__setattr__` does, without looking the name up
