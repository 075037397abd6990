"""Who is calling: a bearer token that the library's validator judges by our own list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.errors import bearer_challenge
from tokenry.revocation.judged import JudgedToken
from tokenry.serving.application import authorization_values
from tokenry.serving.problem import Problem
from tokenry_revocation.records import Actor

if TYPE_CHECKING:
    from aiohttp import web

    from tokenry.claims import TokenInfo


class Judge(Protocol):
    """What tells good tokens from bad ones; `tokenry.TokenValidator` is one."""

    async def avalidate(self, token: str) -> TokenInfo:
        """
        Return what *token* says.

        Raises:
            InvalidToken: It must not be acted upon.
            ValidatorNotReady: It cannot be judged now.
        """
        ...


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
    """
    Return who sent *request*.

    Raises:
        Problem: 401 without an error code: it carries no bearer token (RFC 6750 section 3.1).
        OAuthError: 400: it carries more than one.
        InvalidToken: The token must not be acted upon.
        ValidatorNotReady: It cannot be judged now.
    """
    token = bearer_token(authorization_values(request))
    if token is None:
        challenge = ("WWW-Authenticate", bearer_challenge())
        raise Problem(401, "send an access token as Authorization: Bearer …", headers=[challenge])
    info = await judge.avalidate(token)
    return Caller(info=info, signing_input=token.rpartition(".")[0])
