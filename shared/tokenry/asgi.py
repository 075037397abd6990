"""
Demanding access tokens in any ASGI application: `app = AuthMiddleware(app, validator)`.

Invariants:
    * Closed: every request and every WebSocket needs a valid token, except to the paths that are named public.
    * An endpoint with `require` does not run without a token that the middleware has checked, also when the
      middleware was forgotten.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tokenry.certificates import ProxyCertificate
from tokenry.dpop import Asked, Dpop
from tokenry.oauth.mutual_tls import thumbprint_of_pem
from tokenry.protect import (
    ANY_TOKEN,
    CURRENT,
    PUBLIC,
    Access,
    Admitted,
    Door,
    Protection,
    Refusal,
    Refused,
    Require,
    demand_of_current,
    public,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from tokenry.claims import TokenInfo

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN: Final = "tokenry.token"  # noqa: S105 -- the name of a key
"""Key of the verified token in an ASGI scope."""
_POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1

HandlerT = TypeVar("HandlerT")


class AuthMiddleware(Door["Application"]):
    """
    Lets nobody in without a valid token; `scope[TOKEN]` and `current_token()` then say who calls.

    Arguments as of `tokenry.protect.Door`; run the validator with the application's lifespan:
    `lifespan=validator.lifespan`. Middleware that changes the path of a request belongs outside of this one.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        access = PUBLIC if scope["path"] in self.public else self.access(scope)
        info = None
        if not access.public:
            try:
                info = await admit(self.protection, scope, access)
            except Refused as refused:
                await send_refusal(refused.refusal, scope, receive, send)
                return
        admitted = None if info is None else Admitted(info=info, protection=self.protection)
        before = CURRENT.set(admitted)
        try:
            await self.app({**scope, TOKEN: info}, receive, send)
        finally:
            CURRENT.reset(before)

    def access(self, scope: Scope) -> Access:  # noqa: ARG002 -- for frameworks that know more
        """Return what the connection needs: any valid token, where nothing more is known."""
        return ANY_TOKEN


async def admit(protection: Protection, scope: Scope, access: Access) -> TokenInfo:
    """
    Return what the token of a connection says.

    Args:
        protection: What decides.
        scope: The connection.
        access: What is asked for.

    Raises:
        Refused: With the answer.
    """
    return await protection.aadmit(
        field_values(scope, "authorization"),
        access,
        confirmation=presented_certificate(scope, protection.certificate),
        asked=None if protection.dpop is None else lambda: asked_by(scope),
    )


def field_values(scope: Scope, name: str) -> list[str]:
    """Return all values of the header field *name* of a connection."""
    wanted = name.lower().encode("latin-1")
    return [value.decode("latin-1") for field, value in scope["headers"] if field.lower() == wanted]


def presented_certificate(scope: Scope, proxy: ProxyCertificate | None = None) -> str | None:
    """
    Return the thumbprint of the caller's certificate: what *proxy* hands on, or that of the connection.

    The TLS extension of ASGI tells it as PEM, the caller's own one first; not all servers have it.
    """
    if proxy is not None:
        client = scope.get("client")
        return proxy.thumbprint(client[0] if client else None, field_values(scope, proxy.header))
    tls = (scope.get("extensions") or {}).get("tls")
    chain = tls.get("client_cert_chain") if tls else None
    if not chain:
        return None
    first = next(iter(chain), None)
    return thumbprint_of_pem(first) if isinstance(first, str) else None


def asked_by(scope: Scope) -> Asked:
    """Return what a proof in the request is compared with."""
    return Asked(scope.get("method", "GET"), scope["path"], field_values(scope, "dpop"))  # a WebSocket begins as a GET


def current_token() -> TokenInfo | None:
    """Return the verified token of the request that is being handled; None outside of one, or in a public one."""
    admitted = CURRENT.get()
    return admitted.info if admitted is not None else None


async def send_refusal(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with *refusal*; a WebSocket is closed where the server cannot send an answer instead."""
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # the connect message
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
            return
        prefix = "websocket."
    fields = [*refusal.headers, ("Content-Length", str(len(refusal.body)))]
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    await send({"type": f"{prefix}http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": refusal.body})


class _RefusalAnswer:
    """A refusal as an ASGI application, which the frameworks take for a response."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_refusal(self.refusal, scope, receive, send)


def guarded(handler: HandlerT, access: Access, *, answer: Callable[[Refusal], Any] = _RefusalAnswer) -> HandlerT:
    """Return *handler* (a function, synchronous or not, or a class with methods) behind a second look."""
    if inspect.isclass(handler):
        for name in ("get", "head", "post", "put", "patch", "delete", "options", "on_connect"):
            method = handler.__dict__.get(name)
            if method is not None:
                setattr(handler, name, guarded(method, access, answer=answer))
        return handler
    function = cast("Callable[..., Any]", handler)
    if not inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any handler's signature
            try:
                demand_of_current(access)
            except Refused as refused:
                return answer(refused.refusal)
            return function(*arguments, **named)

        return cast("HandlerT", run)

    @functools.wraps(function)
    async def arun(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any handler's signature
        try:
            demand_of_current(access)
        except Refused as refused:
            return answer(refused.refusal)
        return await function(*arguments, **named)

    return cast("HandlerT", arun)


def _guarded_application(handler: HandlerT, access: Access) -> HandlerT:
    """Return an ASGI application behind a second look."""
    application = cast("Application", handler)

    @functools.wraps(application)
    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            demand_of_current(access)
        except Refused as refused:
            await send_refusal(refused.refusal, scope, receive, send)
            return
        await application(scope, receive, send)

    return cast("HandlerT", run)


require = Require(_guarded_application)
"""`@require("orders.read")` before an ASGI application, such as one that is mounted below a path."""

__all__ = ["TOKEN", "AuthMiddleware", "Dpop", "ProxyCertificate", "current_token", "public", "require"]
