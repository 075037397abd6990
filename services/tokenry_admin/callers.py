"""Who is calling and whether they may: a bearer token that the library's validator judges, and its scopes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenry.oauth.errors import bearer_challenge
from tokenry.serving.bearers import judged_bearer
from tokenry.serving.problem import Problem

if TYPE_CHECKING:
    from aiohttp import web

    from tokenry.claims import TokenInfo
    from tokenry.serving.bearers import Judge

READ: Final = "registry.read"
ADMIN: Final = "registry.admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    A caller with a good token.

    Attributes:
        info: What the token says.
        token: The token, for asking another service in the caller's name.
    """

    info: TokenInfo
    token: str = field(repr=False)

    @property
    def actor(self) -> dict[str, Any]:
        """Return who it is, for the records."""
        return {"iss": self.info.iss, "sub": self.info.sub, "client_id": self.info.client_id}

    @property
    def name(self) -> str:
        """Return what its requests are counted under."""
        return f"{self.info.realm or ''} {self.info.client_id or ''} {self.info.sub}"


async def authenticate(request: web.Request, judge: Judge) -> Caller:
    """Return who sent *request*; raises what `judged_bearer` does."""
    info, token = await judged_bearer(request, judge)
    return Caller(info=info, token=token)


def authorize(caller: Caller, *, write: bool) -> None:
    """
    Refuse a *caller* without the scope; who may write may read.

    Raises:
        Problem: 403 with the challenge that names the scope (RFC 6750 section 3.1).
    """
    scopes = caller.info.scope
    if ADMIN in scopes or (READ in scopes and not write):
        return
    needed = ADMIN if write else READ
    challenge = bearer_challenge(error="insufficient_scope", scope=[needed])
    raise Problem(403, f"this needs the scope {needed}", headers=[("WWW-Authenticate", challenge)])
