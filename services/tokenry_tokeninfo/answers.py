"""
The bodies of token info, in Plan B's shape. Pure.

Consumers look at every member: `scope` is an array, `access_token` is what they sent byte for byte, `uid` and
`realm` are texts, `grant_type` is always there, and each scope is a member that is true.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenry.jose.encoding import dump_json

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo

# Consumers of Plan B panic without it, and none of them acts upon it.
GRANT_TYPE = "password"
ACCESS_TOKEN_NOT_VALID = "Access Token not valid"  # noqa: S105 -- a sentence
# A scope of such a name never becomes a member, also where the member itself is absent: its type would lie.
_RESERVED = frozenset(
    {
        "access_token",
        "uid",
        "realm",
        "scope",
        "grant_type",
        "token_type",
        "expires_in",
        "client_id",
        "iss",
        "jti",
        "aud",
    }
)

NO_TOKEN_BODY = dump_json({"error": "invalid_request", "error_description": ACCESS_TOKEN_NOT_VALID})
INVALID_TOKEN_BODY = dump_json({"error": "invalid_token", "error_description": ACCESS_TOKEN_NOT_VALID})


def token_info_body(token: str, info: TokenInfo, *, now: float) -> bytes:
    """
    Return the body for a good token.

    Args:
        token: As received.
        info: What it says.
        now: Unix seconds.
    """
    scopes = sorted(info.scope)
    members: dict[str, Any] = {
        "access_token": token,
        "uid": info.sub,
        "realm": info.realm or "",
        "scope": scopes,
        "grant_type": GRANT_TYPE,
        "token_type": "Bearer",
        "expires_in": max(0, int(info.exp - now)),
        "iss": info.iss,
    }
    if info.client_id is not None:
        members["client_id"] = info.client_id
    if info.jti is not None:
        members["jti"] = info.jti
    aud = info.claims.get("aud")
    if aud is not None:
        members["aud"] = aud
    for name in scopes:
        if name not in _RESERVED:
            members[name] = True
    return json.dumps(members, ensure_ascii=True, separators=(",", ":")).encode("ascii")
