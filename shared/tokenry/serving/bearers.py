"""Who sent a request: a bearer token that the library's validator judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.errors import bearer_challenge
from tokenry.serving.application import authorization_values
from tokenry.serving.problem import Problem

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


async def judged_bearer(request: web.Request, judge: Judge) -> tuple[TokenInfo, str]:
    """
    Return what the token says that *request* carries, and the token.

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
    return await judge.avalidate(token), token
