"""
Client credentials at `/oauth2/revoke` (RFC 7009 section 2.1), proved by what the issuer makes of them.

This service knows no client's secret. It asks the issuer for a token with the credentials as they came: if
there is one, the caller is the client that the token names. Bounded in time and number, nothing is
remembered: a client revokes its own token once in a while, not in every request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tokenry.errors import InvalidToken
from tokenry.http.fetch import FetchFailed, Request, Response
from tokenry.oauth.errors import invalid_request, temporarily_unavailable
from tokenry.serving.client_exchange import NAME_THE_REALM, Verdict, exchange_of, read_exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.claims import TokenInfo
    from tokenry.http.fetch import Fetcher
    from tokenry.oauth.client_authentication import ClientCredential
    from tokenry.oauth.errors import OAuthError
    from tokenry.serving.bearers import Judge
    from tokenry.serving.client_exchange import Exchange

DEADLINE_SECONDS: Final = 3.0  # a password hash of the issuer, and the way there and back
MAX_LOGINS: Final = 20  # at a time: the issuer's password hashing must not be ours to exhaust
MAX_ANSWER_BYTES: Final = 64 * 1024


class ClientLogin:
    """Finds out which client some credentials belong to."""

    def __init__(self, *, token_endpoint: Callable[[], str], fetcher: Fetcher, judge: Judge) -> None:
        """
        Ask the issuer.

        Args:
            token_endpoint: Returns the URL of the issuer's token endpoint.
            fetcher: Performs the requests, in threads.
            judge: Judges the token that comes back.
        """
        self._token_endpoint = token_endpoint
        self._fetcher = fetcher
        self._judge = judge
        self._turn = asyncio.Semaphore(MAX_LOGINS)

    async def authenticate(
        self, credential: ClientCredential, *, authorization: str | None, realm: str | None, address: str
    ) -> TokenInfo:
        """
        Return what a token of the client says that *credential* belongs to.

        Args:
            credential: What was presented.
            authorization: The header field as it came, where Basic was used.
            realm: The client's realm, where the request names it.
            address: The caller's address; the issuer counts failures by it, where it trusts us as a proxy.

        Raises:
            OAuthError: 401 for wrong credentials, 400 where the realm cannot be told, 503 when the issuer
                cannot say.
        """
        exchange = exchange_of(credential, authorization=authorization, realm=realm, address=address)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._turn:
                response = await asyncio.to_thread(self._fetcher.fetch, self._request(exchange))
            token = _token(response, credential)
            return await self._judge.avalidate(token)
        except (TimeoutError, FetchFailed):
            raise _unavailable() from None
        except InvalidToken:
            raise credential.refusal() from None

    def _request(self, exchange: Exchange) -> Request:
        return Request(
            url=self._token_endpoint(),
            method="POST",
            headers=exchange.headers,
            body=exchange.body,
            deadline_seconds=DEADLINE_SECONDS,
            max_bytes=MAX_ANSWER_BYTES,
            repeatable=False,
        )


def _token(response: Response, credential: ClientCredential) -> str:
    exchanged = read_exchange(response.status, response.body)
    if exchanged.token is not None:
        return exchanged.token.reveal()
    match exchanged.verdict:
        case Verdict.WRONG:
            raise credential.refusal()
        case Verdict.NO_REALM:
            raise invalid_request(NAME_THE_REALM)
        case _:
            raise _unavailable()


def _unavailable() -> OAuthError:
    return temporarily_unavailable("the issuer cannot authenticate the client now", retry_after=2)
