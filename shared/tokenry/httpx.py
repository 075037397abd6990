"""
Access tokens with httpx2 or httpx: `Client(auth=BearerAuth(source, origins=[…]))`, synchronous or not.

Invariants:
    * A token goes to the listed origins only. After a redirect to another host or port httpx itself takes the
      header off (it keeps it from `http` to `https` of the same host).
    * A token that is bound to a key (DPoP) is not good for where a redirect leads: httpx repeats the proof of the
      first request, which the service then refuses.
    * A refused token is replaced once, and only where the request can be sent again.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from tokenry.client.sending import UNAUTHORIZED, Origins, areplacement, replacement
from tokenry.oauth.bearer import nonce_is_wanted, token_was_refused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable
    from types import ModuleType

    import httpx
    import httpx2

    from tokenry.client.access_token import AccessToken, TokenSource

    class _Auth(httpx.Auth, httpx2.Auth):  # type: ignore[misc]
        """Both, for type checkers."""


_AUTHORIZATION: Final = "Authorization"
_NONCE: Final = "DPoP-Nonce"


def _installed() -> tuple[ModuleType, ...]:
    """Return httpx2 and httpx, as far as they are there: an `Auth` of one is none for the other."""
    found = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError as missing:
            if missing.name != name:
                raise
    if not found:
        raise ModuleNotFoundError("tokenry.httpx needs httpx2 (or httpx)", name="httpx2")
    return tuple(found)


_MODULES: Final = _installed()
_NOT_IN_MEMORY: Final[tuple[type[Exception], ...]] = tuple(module.RequestNotRead for module in _MODULES)

if not TYPE_CHECKING:
    _Auth = type("_Auth", tuple(module.Auth for module in _MODULES), {})


class BearerAuth(_Auth):
    """
    Sends a token with each request, and another one if the service refuses it as invalid.

    A request that has an `Authorization` header already is left alone.

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

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:  # noqa: ANN401 -- of either httpx
        """Send *request* with a token (for `Client`)."""
        if not self._is_ours(request):
            yield request
            return
        token = self._source.get()
        response = yield _with(request, token)
        if _wants_nonce(response, token) and _resendable(request):
            response = yield _with(request, token)
        if _refused(response, token) and _resendable(request):
            other = replacement(self._source, token)
            if other is not None:
                yield _with(request, other)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:  # noqa: ANN401 -- of either httpx
        """Send *request* with a token (for `AsyncClient`)."""
        if not self._is_ours(request):
            yield request
            return
        token = await self._source.aget()
        response = yield _with(request, token)
        if _wants_nonce(response, token) and _resendable(request):
            response = yield _with(request, token)
        if _refused(response, token) and _resendable(request):
            other = await areplacement(self._source, token)
            if other is not None:
                yield _with(request, other)

    def _is_ours(self, request: Any) -> bool:  # noqa: ANN401 -- of either httpx
        return _AUTHORIZATION not in request.headers and self._origins.allow(str(request.url))

    def __repr__(self) -> str:
        """Show the origins, and no token."""
        return f"BearerAuth(origins={self._origins!r})"


def _with(request: Any, token: AccessToken) -> Any:  # noqa: ANN401 -- of either httpx
    request.headers.update(token.headers(request.method, str(request.url)))
    return request


def _refused(response: Any, token: AccessToken) -> bool:  # noqa: ANN401 -- of either httpx
    """Tell whether *token* was the reason of a 401, and not one that another origin sent after a redirect."""
    if response.status_code != UNAUTHORIZED:
        return False
    if response.request.headers.get(_AUTHORIZATION) != token.authorization():
        return False
    return token_was_refused(response.headers.get_list("WWW-Authenticate"))


def _wants_nonce(response: Any, token: AccessToken) -> bool:  # noqa: ANN401 -- of either httpx
    """Take the nonce of an answer, and tell whether the proof lacked it (RFC 9449 section 9)."""
    if response.request.headers.get(_AUTHORIZATION) != token.authorization():
        return False
    nonce = response.headers.get(_NONCE)
    token.learn(str(response.request.url), nonce)
    wanted = nonce is not None and response.status_code == UNAUTHORIZED
    return wanted and nonce_is_wanted(response.headers.get_list("WWW-Authenticate"))


def _resendable(request: Any) -> bool:  # noqa: ANN401 -- of either httpx
    """Tell whether the body is there in memory, so that it can be sent once more."""
    try:
        request.content  # noqa: B018 -- raises where it is a stream
    except _NOT_IN_MEMORY:
        return False
    return True


__all__ = ["BearerAuth"]
