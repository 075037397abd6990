"""
The bodies of token info, in Plan B's shape. Pure.

Consumers look at every member: `scope` is an array, `access_token` is what they sent byte for byte, `uid` and
`realm` are texts, `grant_type` is always there, and each scope is a member that is true.
"""

from __future__ import annotations

import math
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _json
from typing import TYPE_CHECKING

from tokenry.jose.encoding import dump_json
from tokenry.oauth.errors import bearer_challenge

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.scope import Scope

DOTS_OF_A_JWS = 2  # a token with another number of them is opaque
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
INVALID_TOKEN_CHALLENGE = bearer_challenge(error="invalid_token", description=ACCESS_TOKEN_NOT_VALID)
TOKEN_REFUSED = "token refused"  # noqa: S105 -- an event of the log
INVALID_TOKEN_BODY = dump_json({"error": "invalid_token", "error_description": ACCESS_TOKEN_NOT_VALID})


def token_info_parts(token: str, info: TokenInfo) -> tuple[bytes, bytes]:
    """
    Return what stands before and after the seconds of `expires_in` in the body for a good token.

    Args:
        token: As received, and accepted: base64url and dots, which stand in JSON as they are.
        info: What it says.
    """
    scope, members = _scope_parts(info.scope)
    before = (
        f'{{"access_token":"{token}","uid":{_json(info.sub)},"realm":{_json(info.realm or "")},'
        f'"scope":{scope},"grant_type":"{GRANT_TYPE}","token_type":"Bearer","expires_in":'
    )
    after = [f',"iss":{_json(info.iss)}']
    if info.client_id is not None:
        after.append(f'"client_id":{_json(info.client_id)}')
    if info.jti is not None:
        after.append(f'"jti":{_json(info.jti)}')
    aud = info.claims.get("aud")
    if aud is not None:
        after.append(f'"aud":{_json(aud) if type(aud) is str else "[" + ",".join(map(_json, aud)) + "]"}')
    return before.encode("ascii"), f"{','.join(after)}{members}}}".encode("ascii")


@lru_cache(maxsize=1024)  # the sets of scopes in use are few, and only those of good tokens come here
def _scope_parts(scope: Scope) -> tuple[str, str]:
    """Return the array of *scope*, and a member for each of them, behind a comma."""
    names = sorted(scope)
    members = "".join(f",{_json(name)}:true" for name in names if name not in _RESERVED)
    return f"[{','.join(map(_json, names))}]", members


def token_info_body(token: str, info: TokenInfo, *, now: float) -> bytes:
    """
    Return the body for a good token.

    Args:
        token: As received, and accepted.
        info: What it says.
        now: Unix seconds.
    """
    before, after = token_info_parts(token, info)
    return b"%b%d%b" % (before, seconds_left(info, now=now), after)


def seconds_left(info: TokenInfo, *, now: float) -> int:
    """Return the whole seconds that the token lives on at *now* (Unix seconds)."""
    return max(0, info.exp - math.ceil(now))
