"""Introspection (RFC 7662): the request, and the answer for a good token and for every other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenry.oauth.confirmation import JKT
from tokenry.scope import format_scope

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.oauth.form import Form

# RFC 7662 section 2.2: nothing more is said of a token that is not active, whatever the reason.
INACTIVE = b'{"active":false}'


def parse_introspection_request(form: Form) -> str:
    """
    Return the token that is asked about; `token_type_hint` changes nothing (RFC 7662 section 2.1).

    Raises:
        OAuthError: `invalid_request`: `token` is missing, or a parameter is repeated.
    """
    form.one("token_type_hint")
    return form.required("token")


def active_response(info: TokenInfo) -> dict[str, Any]:
    """Return the members of the answer for a good token; `claims` is there for gateways that read it."""
    members: dict[str, Any] = {
        "active": True,
        "iss": info.iss,
        "sub": info.sub,
        "aud": info.claims.get("aud"),
        "client_id": info.client_id,
        "scope": format_scope(info.scope),
        "exp": info.exp,
        "iat": info.iat,
        "jti": info.jti,
        "token_type": "DPoP" if _is_bound_to_key(info) else "Bearer",  # RFC 9449 section 6.2
        "realm": info.realm,
        "cnf": info.claims.get("cnf"),
    }
    shown = {name: value for name, value in members.items() if value is not None}
    shown["claims"] = dict(info.claims)
    return shown


def _is_bound_to_key(info: TokenInfo) -> bool:
    cnf = info.claims.get("cnf")
    return isinstance(cnf, dict) and JKT in cnf
