"""Who is calling: a bearer token that the library's validator judges by our own list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenry.revocation.judged import JudgedToken
from tokenry.serving.bearers import judged_bearer
from tokenry_revocation.records import Actor

if TYPE_CHECKING:
    from aiohttp import web

    from tokenry.claims import TokenInfo
    from tokenry.serving.bearers import Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    A caller with a good token.

    Attributes:
        info: What the token says.
        signing_input: Its first two segments, to tell whether a rule would hit it.
    """

    info: TokenInfo
    signing_input: str = field(repr=False)

    @property
    def actor(self) -> Actor:
        """Return who it is, for the records."""
        return Actor(iss=self.info.iss, sub=self.info.sub, client_id=self.info.client_id)

    @property
    def judged(self) -> JudgedToken:
        """Return its token as a revocation list sees it."""
        info = self.info
        return JudgedToken(
            iss=info.iss,
            jti=info.jti,
            kid=info.kid,
            iat=info.iat,
            claims=info.claims,
            signing_input=self.signing_input,
        )


async def authenticate(request: web.Request, judge: Judge) -> Caller:
    """Return who sent *request*; raises what `judged_bearer` does."""
    info, token = await judged_bearer(request, judge)
    return Caller(info=info, signing_input=token.rpartition(".")[0])
