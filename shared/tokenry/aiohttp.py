"""
Access tokens with aiohttp: sending them (client middleware) and demanding them (server middleware).

Invariants:
    * A token goes to the listed origins only, looked at anew for each hop of a redirect.
    * An application with `auth_middleware` is closed: what is not marked `public` needs a valid token, routes that
      do not exist and WebSockets among it.
    * A handler with `require` does not run without a token that the middleware has checked, also when the
      middleware was forgotten.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from aiohttp import hdrs, web
from yarl import URL

from tokenry.errors import ConfigurationError, InsufficientScope, InvalidToken, TokenFetchError, ValidatorNotReady
from tokenry.oauth.bearer import bearer_token
from tokenry.oauth.errors import OAuthError, bearer_challenge, temporarily_unavailable
from tokenry.scope import NO_SCOPE, Scope, parse_scope, scope_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from tokenry.claims import TokenInfo
    from tokenry.client.access_token import TokenSource
    from tokenry.token_validator import TokenValidator

_UNAUTHORIZED: Final = 401
_REMEMBERED_TOKENS: Final = 8  # that this source gave lately, to know them again at another origin
_ATTRIBUTE: Final = "__tokenry_access__"
# RFC 9110 section 11.2: name=value, the value a token or a quoted string.
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

HandlerT = TypeVar("HandlerT")

if hasattr(web, "RequestKey"):  # aiohttp 3.14
    from tokenry.claims import TokenInfo as _TokenInfo

    TOKEN: web.RequestKey[TokenInfo] = web.RequestKey("tokenry.token", _TokenInfo)
    """Key of the verified token in a request: `request[TOKEN].sub`."""
else:  # pragma: no cover -- older aiohttp, where a request's keys are strings
    TOKEN = cast("Any", "tokenry.token")


# --- client ---


class BearerAuth:
    """
    Client middleware that sends a token: `ClientSession(middlewares=[BearerAuth(source, origins=[…])])`.

    `middlewares=` on a single call replaces those of the session, and with them this one.

    Args:
        source: Where tokens come from.
        origins: Where they may go: `https://host[:port]`. Nothing is sent to any other, not even on a redirect.

    Raises:
        ConfigurationError: No origin is named, or one is not of that form.
    """

    def __init__(self, source: TokenSource, *, origins: Iterable[str]) -> None:
        """Send tokens of *source* to *origins*."""
        self._source = source
        self._origins = frozenset(map(_origin, origins))
        if not self._origins:
            raise ConfigurationError(["BearerAuth: name the origins that tokens may be sent to"])
        self._sent: deque[str] = deque(maxlen=_REMEMBERED_TOKENS)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send *request* with a token if it goes to a listed origin."""
        if request.url.origin() not in self._origins:
            if request.headers.get(hdrs.AUTHORIZATION) in self._sent:
                del request.headers[hdrs.AUTHORIZATION]
            return await handler(request)
        if not self._is_ours(request):
            return await handler(request)  # the caller brings credentials of its own
        token = await self._source.aget()
        self._attach(request, token.authorization())
        response = await handler(request)
        if not _refused(response) or not _resendable(request):
            return response
        if not self._source.invalidate(token):
            return response
        try:
            other = await self._source.aget()
        except TokenFetchError:
            return response  # the service's answer says more than that there is no other token
        if other.value == token.value:
            return response
        response.release()
        self._attach(request, other.authorization())
        return await handler(request)

    def _is_ours(self, request: ClientRequest) -> bool:
        present = request.headers.get(hdrs.AUTHORIZATION)
        return present is None or present in self._sent

    def _attach(self, request: ClientRequest, authorization: str) -> None:
        if authorization not in self._sent:
            self._sent.append(authorization)
        request.headers[hdrs.AUTHORIZATION] = authorization

    def __repr__(self) -> str:
        """Show the origins, and no token."""
        return f"BearerAuth(origins={sorted(map(str, self._origins))})"


def _origin(text: str) -> URL:
    try:
        url = URL(text)
        origin = url.origin()
    except ValueError:
        raise ConfigurationError([f"BearerAuth: {text!r} is not an origin such as https://host:port"]) from None
    if (url != origin and url != origin / "") or origin.scheme not in {"http", "https"}:
        raise ConfigurationError([f"BearerAuth: {text!r} is not an origin such as https://host:port"])
    return origin


def _refused(response: ClientResponse) -> bool:
    """Tell whether the token was the reason of a 401 (RFC 6750 section 3.1)."""
    if response.status != _UNAUTHORIZED:
        return False
    return any(map(_is_about_the_token, response.headers.getall(hdrs.WWW_AUTHENTICATE, [])))


def _is_about_the_token(challenge: str) -> bool:
    schemes = _PARAMETER.sub(" ", challenge).replace(",", " ").lower().split()
    parameters = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(challenge)}
    return "bearer" in schemes and parameters.get("error") == "invalid_token"


def _resendable(request: ClientRequest) -> bool:
    """Tell whether the body is there in memory, so that it can be sent once more."""
    from aiohttp.payload import BytesPayload

    body: Any = request.body
    return not body or isinstance(body, bytes | BytesPayload)


# --- server ---


@dataclass(frozen=True, slots=True)
class _Access:
    """What a handler asks of its callers."""

    public: bool = False
    scope: Scope = NO_SCOPE
    any_of: bool = False


_ANY_TOKEN: Final = _Access()


def public(handler: HandlerT) -> HandlerT:
    """Let everybody call *handler* (a function, or a `web.View` class), with or without a token."""
    setattr(handler, _ATTRIBUTE, _Access(public=True))
    return handler


class _Require:
    """`@require("a", "b")`: all of them; `@require.any_of("a", "b")`: one of them."""

    def __call__(self, *scopes: str) -> Callable[[HandlerT], HandlerT]:
        """Demand a token with all *scopes* (several names in one string are several scopes)."""
        return self._mark(scopes, any_of=False)

    def any_of(self, *scopes: str) -> Callable[[HandlerT], HandlerT]:
        """Demand a token with at least one of *scopes*."""
        return self._mark(scopes, any_of=True)

    def _mark(self, scopes: tuple[str, ...], *, any_of: bool) -> Callable[[HandlerT], HandlerT]:
        if not scopes or not all(isinstance(scope, str) for scope in scopes):
            raise ConfigurationError(["@require names the scopes: @require('orders.read')"])
        scope = scope_of(name for text in scopes for name in parse_scope(text))
        if not scope:
            raise ConfigurationError(["@require names the scopes: @require('orders.read')"])

        def mark(handler: HandlerT) -> HandlerT:
            return _guarded(handler, _Access(scope=scope, any_of=any_of))

        return mark


require = _Require()


def _guarded(handler: HandlerT, access: _Access) -> HandlerT:
    """
    Return *handler*, which runs for a caller with such access only.

    The middleware has looked at that before; but a decorator that hides our mark, or a forgotten middleware,
    must not open the handler.
    """
    if inspect.isclass(handler):
        for name in map(str.lower, hdrs.METH_ALL):
            method = handler.__dict__.get(name)
            if method is not None and not hasattr(method, _ATTRIBUTE):
                setattr(handler, name, _guarded(method, access))
        setattr(handler, _ATTRIBUTE, access)
        return handler
    function = cast("Callable[..., Awaitable[Any]]", handler)

    @functools.wraps(function)
    async def run(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any handler's signature
        info = _token_of(arguments)
        if info is None:
            raise RuntimeError("@require without auth_middleware: the handler was not run")
        try:
            _demand(access, info)
        except InsufficientScope:
            return _forbidden(access, realm=None)
        return await function(*arguments, **named)

    setattr(run, _ATTRIBUTE, access)
    return cast("HandlerT", run)


def _token_of(arguments: tuple[object, ...]) -> TokenInfo | None:
    """Return the token that the middleware put into the request among *arguments*."""
    for argument in arguments:
        request = argument.request if isinstance(argument, web.View) else argument
        if isinstance(request, web.BaseRequest):
            return cast("TokenInfo | None", request.get(TOKEN))
    return None


def auth_middleware(validator: TokenValidator, *, realm: str | None = None) -> Any:  # noqa: ANN401 -- aiohttp's own type is private
    """
    Return a server middleware that lets nobody in without a valid token, except to handlers marked `public`.

    The token is taken from the `Authorization` header only; `request[TOKEN]` then says who calls.

    Args:
        validator: Judges the tokens; run it with `app.cleanup_ctx.append(validator.aiohttp_ctx)`.
        realm: Protection space to name in challenges (RFC 9110 section 11.5).
    """

    @web.middleware
    async def authenticate(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        access = _access_of(request)
        if access.public:
            return await handler(request)
        try:
            token = bearer_token(request.headers.getall(hdrs.AUTHORIZATION, []))
            if token is None:
                return _answer(401, None, bearer_challenge(realm=realm))
            info = await validator.avalidate(token)
            _demand(access, info)
        except OAuthError as malformed:
            return _answer(malformed.status, malformed.body(), bearer_challenge(realm=realm, error=malformed.code))
        except InvalidToken:
            challenge = bearer_challenge(realm=realm, error="invalid_token")
            return _answer(401, {"error": "invalid_token"}, challenge)
        except InsufficientScope:
            return _forbidden(access, realm=realm)
        except ValidatorNotReady as unready:
            error = temporarily_unavailable("tokens cannot be judged now", retry_after=unready.retry_after)
            return _answer(error.status, error.body(), None, error.headers)
        request[TOKEN] = info
        return await handler(request)

    return authenticate


def _demand(access: _Access, info: TokenInfo) -> None:
    """Raise InsufficientScope unless the token has what the handler asks for."""
    missing = access.scope - info.scope
    if missing and not (access.any_of and missing != access.scope):
        raise InsufficientScope(missing)


def _forbidden(access: _Access, *, realm: str | None) -> web.Response:
    challenge = bearer_challenge(realm=realm, error="insufficient_scope", scope=access.scope)
    return _answer(403, {"error": "insufficient_scope"}, challenge)


def _access_of(request: web.Request) -> _Access:
    """Return what the route's handler asks for; a route that does not exist asks for a token."""
    handler: Any = request.match_info.handler  # aiohttp's own, unmarked, where there is no such route
    if inspect.isclass(handler):
        method = getattr(handler, request.method.lower(), None)
        found = getattr(method, _ATTRIBUTE, None) or getattr(handler, _ATTRIBUTE, None)
    else:
        found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, _Access) else _ANY_TOKEN


def _answer(
    status: int,
    body: dict[str, str] | None,
    challenge: str | None,
    headers: Iterable[tuple[str, str]] = (),
) -> web.Response:
    fields = {"Cache-Control": "no-store", **dict(headers)}
    if challenge is not None:
        fields[hdrs.WWW_AUTHENTICATE] = challenge
    if body is None:
        return web.Response(status=status, headers=fields)
    return web.json_response(body, status=status, headers=fields)


__all__ = ["TOKEN", "BearerAuth", "auth_middleware", "public", "require"]
