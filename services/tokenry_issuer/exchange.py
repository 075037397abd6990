"""
Token exchange (RFC 8693): a service swaps the token that it received for one aimed at the next service. Pure.

The new token speaks for the same subject and can only do less: its scope is within both the old token's and the
client's, its audience is one that the client may call, it ends no later, and it remembers where it comes from:

* `act` says who acts, and inside of it who acted before (section 4.1);
* `root_iat` and `root_jti` are those of the first token of the chain, and `via_jti` the ids between, so that a
  revocation of any of them hits what was made from it.

What a client may exchange is in its own object (`exchange_policy`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenry.oauth.errors import invalid_request, invalid_scope, invalid_target, unauthorized_client
from tokenry_registry.exchange_policy import MAX_DEPTH

if TYPE_CHECKING:
    from tokenry.claims import TokenInfo
    from tokenry.oauth.token_endpoint import TokenRequest
    from tokenry.scope import Scope
    from tokenry_registry.exchange_policy import ExchangePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """
    Where an exchanged token comes from.

    Attributes:
        act: Who acts, and who acted before.
        root_iat: Unix seconds at which the first token of the chain was issued.
        root_jti: Its id.
        via_jti: The ids of the tokens between the first and this one, in order.
        expires_at: Unix seconds at which the token ends that it was made from.
    """

    act: dict[str, Any] = field(repr=False)
    root_iat: int
    root_jti: str
    via_jti: tuple[str, ...]
    expires_at: int

    def claims(self) -> dict[str, Any]:
        """Return what the token says of it."""
        claims: dict[str, Any] = {"act": self.act, "root_iat": self.root_iat, "root_jti": self.root_jti}
        return claims | ({"via_jti": list(self.via_jti)} if self.via_jti else {})


def trace(subject: TokenInfo, *, policy: ExchangePolicy | None, client_id: str, realm: str) -> Origin:
    """
    Return where a token comes from that the client *client_id* of *realm* exchanges for *subject*.

    Raises:
        OAuthError: `unauthorized_client`: the client may exchange none. `invalid_request`: not this one (RFC 8693
            section 2.2.2).
    """
    if policy is None:
        raise unauthorized_client()
    if subject.realm != realm or subject.jti is None:
        raise _not_this_one("it is of another realm")
    if policy.subject_audiences.isdisjoint(subject.aud):
        raise _not_this_one("it was not issued for this client")
    if policy.subject_clients is not None and subject.client_id not in policy.subject_clients:
        raise _not_this_one("its client's tokens are not exchanged here")
    before = subject.claims.get("act")
    if _depth(before) >= policy.max_depth:
        raise _not_this_one("it has been exchanged too often")
    root_iat, root_jti = subject.claims.get("root_iat", subject.iat), subject.claims.get("root_jti")
    via = tuple(subject.claims.get("via_jti", ()))
    return Origin(
        act={"sub": client_id} if before is None else {"sub": client_id, "act": before},
        root_iat=min(subject.iat, root_iat),
        root_jti=root_jti or subject.jti,
        via_jti=via if root_jti is None else (*via, subject.jti),
        expires_at=subject.exp,
    )


def exchanged_scope(requested: Scope | None, *, subject: Scope, allowed: Scope) -> Scope:
    """
    Return the scope of the new token: what was *requested*, else all that is within both.

    Raises:
        OAuthError: `invalid_scope`: something is beyond the subject token's scope or the client's.
    """
    within = subject & allowed
    if requested is not None and (refused := requested - within):
        raise invalid_scope(refused)
    return within if requested is None else requested


def exchanged_audience(request: TokenRequest, *, allowed: frozenset[str]) -> tuple[str, ...]:
    """
    Return the audience of the new token, which the request has to name: it is aimed at somebody.

    Raises:
        OAuthError: `invalid_target`: none is named, or one that is not *allowed*.
    """
    if not request.targets or not allowed.issuperset(request.targets):
        raise invalid_target()
    return request.targets


def _depth(act: Any) -> int:  # noqa: ANN401 -- any JSON value
    depth = 0
    while act is not None:
        if not isinstance(act, dict) or depth >= MAX_DEPTH:
            raise _not_this_one("it has been exchanged too often")
        act, depth = act.get("act"), depth + 1
    return depth


def _not_this_one(why: str) -> Exception:
    return invalid_request(f"this subject token cannot be exchanged by this client: {why}")
