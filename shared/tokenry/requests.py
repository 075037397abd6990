"""
Access tokens with requests: `session.auth = BearerAuth(source, origins=[…])`.

Invariants:
    * A token goes to the listed origins only, looked at anew for each hop of a redirect.
    * A refused token is replaced once, and only where the body can be sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

from requests.auth import AuthBase
from requests.sessions import SessionRedirectMixin

from tokenry.client.sending import UNAUTHORIZED, Origins, replacement
from tokenry.oauth.bearer import nonce_is_wanted, token_was_refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from requests import PreparedRequest, Response

    from tokenry.client.access_token import AccessToken, TokenSource

_AUTHORIZATION: Final = "Authorization"
_PROOF: Final = "DPoP"
_NONCE: Final = "DPoP-Nonce"


class BearerAuth(AuthBase):
    """
    Sends a token with each request, and another one if the service refuses it as invalid.

    A request that has an `Authorization` header already is left alone; note that requests puts one there
    itself where `~/.netrc` knows the host and no `auth` is set.

    Args:
        source: Where tokens come from.
        origins: Where they may go: `https://host[:port]`. None: wherever the program itself sends a request to,
            encrypted or on this machine, and to no other origin that a redirect names.

    Raises:
        ConfigurationError: An origin is not of that form, or the list is empty.
    """

    def __init__(self, source: TokenSource, *, origins: Iterable[str] | None = None) -> None:
        """Send tokens of *source* to *origins*."""
        self._source = source
        self._origins = Origins.of(origins)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Put a token into *request* if it goes where tokens may go."""
        if _AUTHORIZATION in request.headers or not self._origins.allow(request.url or ""):
            return request
        token = self._source.get()
        request.headers.update(token.headers(request.method or "GET", request.url or ""))
        # Its published types do not know what a hook is.
        request.register_hook("response", _Answered(self._source, self._origins, token))  # type: ignore[no-untyped-call]
        return request

    def __repr__(self) -> str:
        """Show the origins, and no token."""
        return f"BearerAuth(origins={self._origins!r})"


class _Answered:
    """What happens with the answers to one request, those after redirects among them."""

    def __init__(self, source: TokenSource, origins: Origins, token: AccessToken) -> None:
        self._source, self._origins, self._token = source, origins, token
        self._replaced = self._proved_again = False

    def __call__(self, response: Response, **how: Any) -> Response:  # noqa: ANN401 -- those of `Session.send`
        if response.request.headers.get(_AUTHORIZATION) != self._token.authorization():
            return response  # a hop to which the token did not go
        if response.is_redirect:
            self._take_off(response)
            return response
        nonce = response.headers.get(_NONCE)
        self._token.learn(response.url, nonce)
        wanted = nonce is not None and response.status_code == UNAUTHORIZED and not self._proved_again
        if wanted and nonce_is_wanted([response.headers.get("WWW-Authenticate", "")]) and _resendable(response.request):
            self._proved_again = True
            return self._again(response, self._token, how)
        if not self._replaced and _refused(response) and _resendable(response.request):
            other = replacement(self._source, self._token)
            if other is not None:
                self._replaced, self._token = True, other
                return self._again(response, other, how)
        return response

    def _take_off(self, response: Response) -> None:
        """Let the redirect, which requests makes out of this request, go without the token where it has to."""
        here = response.url
        there = urljoin(here, response.headers["location"])
        headers = response.request.headers
        if not self._origins.allow_hop(here, to=there):
            del headers[_AUTHORIZATION]
            headers.pop(_PROOF, None)
        elif _PROOF in headers:
            request = response.request.copy()
            SessionRedirectMixin().rebuild_method(request, response)
            headers.update(self._token.headers(request.method or "GET", there))

    def _again(self, response: Response, other: AccessToken, how: dict[str, Any]) -> Response:
        _ = response.content  # so that the connection can be used again
        response.close()
        request = response.request.copy()
        request.headers.update(other.headers(request.method or "GET", request.url or ""))
        # As requests' own HTTPDigestAuth does it.
        again: Response = response.connection.send(request, **how)
        again.history.append(response)
        again.request = request
        return again


def _refused(response: Response) -> bool:
    if response.status_code != UNAUTHORIZED:
        return False
    return token_was_refused([response.headers.get("WWW-Authenticate", "")])


def _resendable(request: PreparedRequest) -> bool:
    return request.body is None or isinstance(request.body, bytes | str)


__all__ = ["BearerAuth"]
