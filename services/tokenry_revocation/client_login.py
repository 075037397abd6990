"""
Client credentials at `/oauth2/revoke` (RFC 7009 section 2.1), proved by what the issuer makes of them.

This service knows no client's secret. It asks the issuer for a token with the credentials as they came: if
there is one, the caller is the client that the token names. Bounded in time and number, nothing is
remembered: a client revokes its own token once in a while, not in every request.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tokenry.errors import InvalidToken, ProtocolError
from tokenry.http.fetch import FetchFailed, Request, Response
from tokenry.jose.encoding import parse_json_object
from tokenry.oauth.errors import invalid_request, temporarily_unavailable
from tokenry.oauth.form import FORM

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.claims import TokenInfo
    from tokenry.http.fetch import Fetcher
    from tokenry.oauth.client_authentication import ClientCredential
    from tokenry.oauth.errors import OAuthError
    from tokenry_revocation.callers import Judge

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
        request = self._request(credential, authorization, realm, address)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._turn:
                response = await asyncio.to_thread(self._fetcher.fetch, request)
            token = _token(response, credential)
            return await self._judge.avalidate(token)
        except (TimeoutError, FetchFailed, ProtocolError):
            raise _unavailable() from None
        except InvalidToken:
            raise credential.refusal() from None

    def _request(
        self, credential: ClientCredential, authorization: str | None, realm: str | None, address: str
    ) -> Request:
        form = {"grant_type": "client_credentials"}
        headers = {"Content-Type": FORM, "Accept": "application/json", "X-Forwarded-For": address}
        if realm is not None:
            form["realm"] = realm
        if credential.basic and authorization is not None:
            headers["Authorization"] = authorization
        else:
            form["client_id"] = credential.readings[0].client_id
            form["client_secret"] = credential.readings[0].secret.reveal()
        return Request(
            url=self._token_endpoint(),
            method="POST",
            headers=headers,
            body=urlencode(form).encode("ascii"),
            deadline_seconds=DEADLINE_SECONDS,
            max_bytes=MAX_ANSWER_BYTES,
            repeatable=False,
        )


def _token(response: Response, credential: ClientCredential) -> str:
    members = parse_json_object(response.body)
    token, error = members.get("access_token"), members.get("error")
    if response.status == HTTPStatus.OK and isinstance(token, str):
        return token
    if error == "invalid_client":
        raise credential.refusal()
    if error in {"missing_realm", "realm_not_found"}:
        raise invalid_request("name the client's realm in the parameter realm, such as realm=/services")
    raise _unavailable()


def _unavailable() -> OAuthError:
    return temporarily_unavailable("the issuer cannot authenticate the client now", retry_after=2)
