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
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from aiohttp import hdrs, web
from yarl import URL

from tokenry import certificates
from tokenry.client.sending import UNAUTHORIZED, areplacement
from tokenry.dpop import Asked, Dpop
from tokenry.errors import ConfigurationError
from tokenry.oauth.bearer import nonce_is_wanted, token_was_refused
from tokenry.oauth.mutual_tls import PresentedCertificate
from tokenry.protect import (
    PUBLIC,
    Access,
    Protection,
    Refusal,
    Refused,
    Require,
    RouteAccess,
    access_of,
    mark_of,
    marked,
    name_of,
    public,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from tokenry.claims import TokenInfo
    from tokenry.client.access_token import AccessToken, TokenSource
    from tokenry.protect import Judge

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REMEMBERED_TOKENS: Final = 8  # that this source gave lately, to know them again at another origin
_PROOF: Final = "DPoP"
_NONCE: Final = "DPoP-Nonce"
_CLOSES: Final = "__tokenry_closes__"  # marks our middleware, for those who list routes
_UNNAMED: Final = Protection(validator=cast("Any", None))  # its answers name no realm

HandlerT = TypeVar("HandlerT")

if hasattr(web, "RequestKey"):  # aiohttp 3.14
    from tokenry.claims import TokenInfo as _TokenInfo

    TOKEN: web.RequestKey[TokenInfo] = web.RequestKey("tokenry.token", _TokenInfo)
    """Key of the verified token in a request: `request[TOKEN].sub`."""
    _PROTECTION: web.RequestKey[Protection] = web.RequestKey("tokenry.protection", Protection)
else:  # pragma: no cover -- older aiohttp, where a request's keys are strings
    TOKEN = cast("Any", "tokenry.token")
    _PROTECTION = cast("Any", "tokenry.protection")


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
                request.headers.popall(_PROOF, None)
            return await handler(request)
        if not self._is_ours(request):
            return await handler(request)  # the caller brings credentials of its own
        token = await self._source.aget()
        self._attach(request, token)
        response = await handler(request)
        token.learn(str(request.url), response.headers.get(_NONCE))
        if _wants_nonce(response) and _resendable(request):
            response.release()
            self._attach(request, token)
            response = await handler(request)
        if not _refused(response) or not _resendable(request):
            return response
        other = await areplacement(self._source, token)
        if other is None:
            return response
        response.release()
        self._attach(request, other)
        return await handler(request)

    def _is_ours(self, request: ClientRequest) -> bool:
        present = request.headers.get(hdrs.AUTHORIZATION)
        return present is None or present in self._sent

    def _attach(self, request: ClientRequest, token: AccessToken) -> None:
        fields = token.headers(request.method, str(request.url))
        authorization = fields[hdrs.AUTHORIZATION]
        if authorization not in self._sent:
            self._sent.append(authorization)
        request.headers.popall(_PROOF, None)  # that of the hop before
        request.headers.update(fields)

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
    if response.status != UNAUTHORIZED:
        return False
    return token_was_refused(response.headers.getall(hdrs.WWW_AUTHENTICATE, []))


def _wants_nonce(response: ClientResponse) -> bool:
    """Tell whether the proof lacked a nonce, which the answer gives (RFC 9449 section 9)."""
    if response.status != UNAUTHORIZED or _NONCE not in response.headers:
        return False
    return nonce_is_wanted(response.headers.getall(hdrs.WWW_AUTHENTICATE, []))


def _resendable(request: ClientRequest) -> bool:
    """Tell whether the body is there in memory, so that it can be sent once more."""
    from aiohttp.payload import BytesPayload

    body: Any = request.body
    return not body or isinstance(body, bytes | BytesPayload)


# --- server ---


def _guarded(handler: HandlerT, access: Access) -> HandlerT:
    """
    Return *handler*, which runs for a caller with such access only.

    The middleware has looked at that before; but a decorator that hides our mark, or a forgotten middleware,
    must not open the handler.
    """
    if inspect.isclass(handler):
        for name in map(str.lower, hdrs.METH_ALL):
            method = handler.__dict__.get(name)
            if method is not None and mark_of(method) is None:
                setattr(handler, name, marked(_guarded(method, access), access))
        return handler
    function = cast("Callable[..., Awaitable[Any]]", handler)

    @functools.wraps(function)
    async def run(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any handler's signature
        request = _request_of(arguments)
        info = request.get(TOKEN) if request is not None else None
        if request is None or info is None:
            raise RuntimeError("@require without auth_middleware: the handler was not run")
        try:
            request.get(_PROTECTION, _UNNAMED).require(info, access)
        except Refused as refused:
            return _answer(refused.refusal)
        return await function(*arguments, **named)

    return cast("HandlerT", run)


require = Require(_guarded)


def _request_of(arguments: tuple[object, ...]) -> web.BaseRequest | None:
    """Return the request among *arguments*."""
    for argument in arguments:
        request = argument.request if isinstance(argument, web.View) else argument
        if isinstance(request, web.BaseRequest):
            return request
    return None


def auth_middleware(
    validator: Judge,
    *,
    realm: str | None = None,
    resource_metadata: str | None = None,
    certificate: Callable[[web.Request], str | None] | None = None,
    dpop: Dpop | None = None,
) -> Any:  # noqa: ANN401 -- aiohttp's own type is private
    """
    Return a server middleware that lets nobody in without a valid token, except to handlers marked `public`.

    The token is taken from the `Authorization` header only; `request[TOKEN]` then says who calls.

    Args:
        validator: Judges the tokens; run it with `app.cleanup_ctx.append(validator.aiohttp_ctx)`.
        realm: Protection space to name in challenges (RFC 9110 section 11.5).
        resource_metadata: URL of this service's metadata to name in challenges (RFC 9728 section 5.1).
        certificate: Returns the thumbprint of the caller's certificate, with which alone a token is good that is
            bound to one (RFC 8705 section 3); default: that of the TLS connection. Behind a proxy that ends TLS:
            `ProxyCertificate`.
        dpop: Reads the proofs of callers whose tokens are bound to a key; without it such tokens are refused.

    Raises:
        ConfigurationError: The URL is none.
    """
    presented = certificate or connection_certificate
    protection = Protection(validator=validator, realm=realm, resource_metadata=resource_metadata, dpop=dpop)

    admit_at_once = protection.admit_at_once
    # Else its answers are those of `_UNNAMED`.
    is_named = not (realm is None and resource_metadata is None and dpop is None)

    async def wait(
        request: web.Request, handler: Handler, access: Access, values: Sequence[str], shown: str | None
    ) -> web.StreamResponse:
        try:
            info = await protection.aadmit(values, access, confirmation=shown, asked=lambda: _asked(request))
        except Refused as refused:
            return _answer(refused.refusal)
        request[TOKEN], request[_PROTECTION] = info, protection
        return await handler(request)

    @web.middleware
    def authenticate(request: web.Request, handler: Handler) -> Coroutine[Any, Any, web.StreamResponse]:
        """Return the coroutine of the handler, where the token is judged at once: none of ours stands around it."""
        target = request.match_info.handler  # unmarked, where there is no such route
        access = access_of(target, request.method if isinstance(target, type) else None)
        if not access.public:
            try:
                values, shown = request.headers.getall(hdrs.AUTHORIZATION, ()), presented(request)
                info = admit_at_once(values, access, shown)
            except Refused as refused:
                return _refusing(refused.refusal)
            except Exception as error:  # noqa: BLE001 -- whoever awaits gets it
                return _raising(error)
            if info is None:
                return wait(request, handler, access, values, shown)
            request[TOKEN] = info
            if is_named:
                request[_PROTECTION] = protection
        answer = handler(request)
        # A middleware around us may make a task of it, which a `web.View` cannot become.
        return answer if type(answer) is CoroutineType else _awaited(answer)

    setattr(authenticate, _CLOSES, protection)
    return authenticate


def _asked(request: web.Request) -> Asked:
    return Asked(request.method, request.path, request.headers.getall(_PROOF, []))


async def _refusing(refusal: Refusal) -> web.StreamResponse:
    return _answer(refusal)


async def _raising(error: Exception) -> web.StreamResponse:
    raise error


async def _awaited(answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    return await answer


def connection_certificate(request: web.Request) -> str | None:
    """Return the thumbprint (`x5t#S256`) of the certificate that the caller's TLS connection was made with."""
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    return PresentedCertificate(der=der, chain_verified=True).thumbprint if der else None


class ProxyCertificate(certificates.ProxyCertificate):
    """
    The certificate that a proxy hands on: `auth_middleware(validator, certificate=ProxyCertificate(proxies=[…]))`.

    The arguments are those of `tokenry.certificates.ProxyCertificate`.
    """

    def __call__(self, request: web.Request) -> str | None:
        """Return the thumbprint of the certificate that the caller of *request* presented to the proxy."""
        return self.thumbprint(request.remote, request.headers.getall(self.header, []))


def _answer(refusal: Refusal) -> web.Response:
    return web.Response(status=refusal.status, headers=dict(refusal.headers), body=refusal.body or None)


def routes(app: web.Application) -> list[RouteAccess]:
    """
    Return what each route of *app* asks of its callers, for a review.

    What an application without `auth_middleware` shows is open, whatever its handlers are marked with.
    """
    closed = any(hasattr(middleware, _CLOSES) for middleware in app.middlewares)
    found = []
    for route in app.router.routes():
        methods = [route.method]
        if inspect.isclass(route.handler) and route.method == hdrs.METH_ANY:
            methods = [name for name in sorted(hdrs.METH_ALL) if hasattr(route.handler, name.lower())]
        found += [
            RouteAccess(
                method=method,
                path=route.resource.canonical if route.resource is not None else "?",
                access=access_of(route.handler, method) if closed or mark_of(route.handler) else PUBLIC,
                handler=name_of(route.handler),
            )
            for method in methods
        ]
    return found


__all__ = ["TOKEN", "BearerAuth", "Dpop", "ProxyCertificate", "auth_middleware", "public", "require", "routes"]
