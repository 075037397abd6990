"""What an introspection says of a good token (RFC 7662 section 2.2), to whom. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tokenry.oauth.introspection import active_response
from tokenry.scope import InvalidScope, format_scope, scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenry.claims import TokenInfo
    from tokenry.scope import Scope

WILDCARD = "*"


def introspection(info: TokenInfo, *, narrowed_to: Sequence[str] | None) -> dict[str, Any]:
    """
    Return the answer for *info*.

    Args:
        info: What the token says.
        narrowed_to: Which of its scopes concern the caller, names or beginnings that end in `*`; None: all.
    """
    members = active_response(info)
    if narrowed_to is None:
        return members
    scope = narrowed(info.scope, to=narrowed_to)
    members["scope"] = format_scope(scope)
    if "scope" in members["claims"]:
        is_text = isinstance(members["claims"]["scope"], str)
        members["claims"]["scope"] = members["scope"] if is_text else sorted(scope)
    return members


def opaque_introspection(
    answer: Mapping[str, Any], *, narrowed_to: Sequence[str] | None, now: float
) -> dict[str, Any] | None:
    """
    Return the answer for an opaque token of which another token info says *answer*, in Plan B's shape.

    None where it says no scopes, or something else that makes it no token info.

    Args:
        answer: Members of the other's answer.
        narrowed_to: As for `introspection`.
        now: Unix seconds.
    """
    try:
        scope = scope_of(answer["scope"]) if isinstance(answer.get("scope"), list) else None
    except (InvalidScope, TypeError):
        scope = None
    expires_in = answer.get("expires_in")
    if scope is None or isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or expires_in <= 0:
        return None
    texts = {"sub": "uid", "client_id": "client_id", "realm": "realm"}
    members: dict[str, Any] = {"active": True, "token_type": "Bearer", "exp": math.floor(now + expires_in)}
    members |= {name: answer[theirs] for name, theirs in texts.items() if isinstance(answer.get(theirs), str)}
    return members | {"scope": format_scope(scope if narrowed_to is None else narrowed(scope, to=narrowed_to))}


def narrowed(scope: Scope, *, to: Iterable[str]) -> Scope:
    """Return the part of *scope* that is named in *to*, exactly or by a beginning that ends in `*`."""
    names = frozenset(to)
    beginnings = tuple(name.removesuffix(WILDCARD) for name in names if name.endswith(WILDCARD))
    return frozenset(name for name in scope if name in names or name.startswith(beginnings))
