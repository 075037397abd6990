"""
Access tokens with gRPC: call credentials for clients, interceptors for servers.

Invariants:
    * A token is sent over channels with transport security only (gRPC refuses call credentials elsewhere).
    * A server with an interceptor is closed: a method that is not listed needs a valid token, one that does not
      exist among them. A handler never runs before its token was judged.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import grpc
import grpc.aio

from tokenry.client.sending import Origins
from tokenry.dpop import Asked, Dpop
from tokenry.errors import ConfigurationError, InvalidToken, Reason, TokenryError
from tokenry.oauth.mutual_tls import thumbprint_of_pem
from tokenry.protect import ANY_TOKEN, PUBLIC, Access, Protection, Refusal, Refused, RouteAccess, needs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from tokenry.claims import TokenInfo
    from tokenry.client.access_token import AccessToken, TokenSource
    from tokenry.protect import Judge

_AUTHORIZATION: Final = "authorization"
_CHALLENGE: Final = "www-authenticate"
_PROOF: Final = "dpop"
_token: Final[ContextVar[TokenInfo | None]] = ContextVar("tokenry_grpc_token", default=None)


# --- client ---


@runtime_checkable
class _Requestable(Protocol):
    """A source that gives a future: `ClientCredentials`."""

    def request(self) -> Future[AccessToken]: ...


class _Plugin(grpc.AuthMetadataPlugin):
    """Puts a token into the metadata of each call, without waiting in gRPC's own thread."""

    def __init__(self, source: TokenSource, origins: Origins) -> None:
        self._source, self._origins = source, origins

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """Call *callback* with the metadata, now or when a token is there."""
        try:
            if self._origins.listed is not None and not self._origins.allow(_origin(context.service_url)):
                callback((), None)
                return
            url = f"{_origin(context.service_url)}/{context.method_name}"
            if isinstance(self._source, _Requestable):
                self._source.request().add_done_callback(lambda future: _hand_over(future.result, url, callback))
                return
        except TokenryError as error:
            callback((), error)
            return
        arguments = (self._source.get, url, callback)
        threading.Thread(target=_hand_over, args=arguments, name="tokenry-grpc", daemon=True).start()


def _origin(service_url: str) -> str:
    """Return the URL of a service as `https`: whatever gRPC calls its transport security, there is one."""
    return "https" + service_url[service_url.index("://") :]


def _hand_over(take: Callable[[], AccessToken], url: str, callback: grpc.AuthMetadataPluginCallback) -> None:
    try:
        headers = take().headers("POST", url)  # as HTTP/2 carries calls
    except Exception as error:  # noqa: BLE001 -- whatever it is, the call has to end
        callback((), error)
    else:
        callback(tuple((name.lower(), value) for name, value in headers.items()), None)


def call_credentials(source: TokenSource, *, origins: Iterable[str] | None = None) -> grpc.CallCredentials:
    """
    Return credentials that send a token of *source* with each call.

    `grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), call_credentials(source))`

    Args:
        source: Where tokens come from.
        origins: Where they may go: `https://host[:port]`. None: wherever the channel leads.

    Raises:
        ConfigurationError: An origin is not of that form, or the list is empty.
    """
    return grpc.metadata_call_credentials(_Plugin(source, Origins.of(origins)), name="tokenry")


# --- server ---


def current_token() -> TokenInfo | None:
    """Return the verified token of the call that is being handled; None outside of one, or in a public one."""
    return _token.get()


class _Rules:
    """Which method needs what, and the decision."""

    def __init__(
        self,
        validator: Judge,
        scopes: Mapping[str, Iterable[str] | str],
        public: Iterable[str],
        realm: str | None,
        resource_metadata: str | None,
        dpop: Dpop | None,
    ) -> None:
        self.access: dict[str, Access] = dict.fromkeys(_methods(public), PUBLIC)
        for method in _methods(scopes):
            named = scopes[method]
            self.access[method] = needs([named] if isinstance(named, str) else named)
        self.protection = Protection(validator=validator, realm=realm, resource_metadata=resource_metadata, dpop=dpop)

    def of(self, method: str) -> Access:
        return self.access.get(method, ANY_TOKEN)


def _methods(names: Iterable[str]) -> list[str]:
    given = [names] if isinstance(names, str) else list(names)
    wrong = [name for name in given if not name.startswith("/") or name.count("/") != 2]  # noqa: PLR2004 -- /a/b
    if wrong:
        raise ConfigurationError([f"{name!r} is not a method such as /shop.Orders/Get" for name in wrong])
    return given


def _values(metadata: Iterable[tuple[str, str | bytes]] | None, name: str) -> list[str]:
    return [str(value) for key, value in metadata or () if key.lower() == name]


def _asked(details: grpc.HandlerCallDetails) -> Callable[[], Asked]:
    """Return what a proof in a call is compared with."""
    return lambda: Asked("POST", details.method, _values(details.invocation_metadata, _PROOF))


def _presented(context: Any) -> str | None:  # noqa: ANN401 -- the context of either kind of server
    """Return the thumbprint of the certificate of the caller's connection; a proxy's is never the caller's."""
    certificates = context.auth_context().get("x509_pem_cert") or ()
    for pem in certificates:
        return thumbprint_of_pem(pem.decode("ascii", "replace"))
    return None


def _is_unconfirmed(refused: Refused) -> bool:
    """Tell whether a certificate that was not looked at may make the token good."""
    cause = refused.__cause__
    return isinstance(cause, InvalidToken) and cause.reason is Reason.UNCONFIRMED


def _status(refusal: Refusal) -> grpc.StatusCode:
    codes = {403: grpc.StatusCode.PERMISSION_DENIED, 503: grpc.StatusCode.UNAVAILABLE}
    return codes.get(refusal.status, grpc.StatusCode.UNAUTHENTICATED)


def _trailer(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    return ((_CHALLENGE, refusal.challenge),) if refusal.challenge is not None else ()


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """
    Lets no call in without a valid token (for `grpc.aio`); `current_token()` then says who calls.

    Refused calls end with UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE, and the challenge of RFC 6750 in
    the trailing metadata `www-authenticate`.

    Args:
        validator: Judges the tokens; run it with `async with validator.lifespan():`.
        scopes: What a method needs, by its name: `{"/shop.Orders/Get": ("orders.read",)}`.
        public: Methods that are open: `["/grpc.health.v1.Health/Check"]`.
        realm: Protection space to name in challenges.
        resource_metadata: URL of this service's metadata to name in challenges (RFC 9728 section 5.1).
        dpop: Reads the proofs of callers whose tokens are bound to a key; without it such tokens are refused.

    Raises:
        ConfigurationError: A method's name is none.
    """

    def __init__(
        self,
        validator: Judge,
        scopes: Mapping[str, Iterable[str] | str] | None = None,
        *,
        public: Iterable[str] = (),
        realm: str | None = None,
        resource_metadata: str | None = None,
        dpop: Dpop | None = None,
    ) -> None:
        """Stand before the handlers of a server."""
        self._rules = _Rules(validator, scopes or {}, public, realm, resource_metadata, dpop)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call, or one that refuses."""
        handler = await continuation(handler_call_details)
        access = self._rules.of(handler_call_details.method)
        if access.public:
            _token.set(None)
            return handler
        values = _values(handler_call_details.invocation_metadata, _AUTHORIZATION)
        asked = _asked(handler_call_details)
        try:
            info = await self._rules.protection.aadmit(values, access, asked=asked)
        except Refused as refused:
            if _is_unconfirmed(refused) and handler is not None:
                # Only the handler's own context tells the certificate of the connection.
                return _same_kind(handler, *_alater(handler, self._rules.protection, values, access, asked))
            return _same_kind(handler, _arefuse(refused.refusal), _arefuse_stream(refused.refusal))
        _token.set(info)  # the handler runs in this very task
        return handler


class SyncServerInterceptor(grpc.ServerInterceptor):
    """
    Lets no call in without a valid token (for `grpc.server`); arguments as of `ServerInterceptor`.

    Run the validator with `with validator:`. Tokens are judged in the worker threads, so that a call that waits
    for a key keeps no other one waiting.
    """

    def __init__(
        self,
        validator: Judge,
        scopes: Mapping[str, Iterable[str] | str] | None = None,
        *,
        public: Iterable[str] = (),
        realm: str | None = None,
        resource_metadata: str | None = None,
        dpop: Dpop | None = None,
    ) -> None:
        """Stand before the handlers of a server."""
        self._rules = _Rules(validator, scopes or {}, public, realm, resource_metadata, dpop)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call, which judges its token before it runs."""
        handler = continuation(handler_call_details)
        access = self._rules.of(handler_call_details.method)
        if access.public:
            return handler
        values = _values(handler_call_details.invocation_metadata, _AUTHORIZATION)
        asked = _asked(handler_call_details)

        def admit(context: grpc.ServicerContext) -> None:
            shown = _presented(context)
            try:
                _token.set(self._rules.protection.admit(values, access, confirmation=shown, asked=asked))
            except Refused as refused:
                context.set_trailing_metadata(_trailer(refused.refusal))
                context.abort(_status(refused.refusal), str(refused))

        def unary(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 -- any message
            admit(context)
            return _behaviour(handler, context)(request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 -- any message
            admit(context)
            yield from _behaviour(handler, context)(request, context)

        return _same_kind(handler, unary, stream)


def _behaviour(handler: Any, context: grpc.ServicerContext) -> Callable[[Any, Any], Any]:  # noqa: ANN401 -- any handler
    """Return what a handler does; without a handler, say that there is none (to callers with a token only)."""
    if handler is None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    found: Callable[[Any, Any], Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return found


def _alater(
    handler: Any,  # noqa: ANN401 -- any handler
    protection: Protection,
    values: list[str],
    access: Access,
    asked: Callable[[], Asked],
) -> tuple[Any, Any]:
    """Return what handlers do that judge the token, with the certificate of the connection, before they run."""

    async def admit(context: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401 -- of grpc.aio
        try:
            info = await protection.aadmit(values, access, confirmation=_presented(context), asked=asked)
        except Refused as refused:
            await _arefuse(refused.refusal)(None, context)
            raise  # not reached: abort raises
        _token.set(info)
        return _behaviour(handler, context)

    async def unary(request: Any, context: Any) -> Any:  # noqa: ANN401 -- any message
        behaviour = await admit(context)
        if inspect.iscoroutinefunction(behaviour):
            return await behaviour(request, context)
        return await asyncio.to_thread(behaviour, request, context)

    async def stream(request: Any, context: Any) -> Any:  # noqa: ANN401 -- any message
        behaviour = await admit(context)
        if inspect.isasyncgenfunction(behaviour):
            async for message in behaviour(request, context):
                yield message
        elif inspect.iscoroutinefunction(behaviour):  # it writes by itself
            await behaviour(request, context)
        else:
            messages = iter(behaviour(request, context))
            while (message := await asyncio.to_thread(next, messages, None)) is not None:
                yield message

    return unary, stream


def _arefuse(refusal: Refusal) -> Callable[[Any, Any], Awaitable[Any]]:
    async def refuse(_request: Any, context: Any) -> Any:  # noqa: ANN401 -- any message
        await context.abort(_status(refusal), f"{refusal.status} {refusal.error or 'no token'}", _trailer(refusal))

    return refuse


def _arefuse_stream(refusal: Refusal) -> Callable[[Any, Any], Any]:
    async def refuse(_request: Any, context: Any) -> Any:  # noqa: ANN401 -- any message
        await context.abort(_status(refusal), f"{refusal.status} {refusal.error or 'no token'}", _trailer(refusal))
        yield  # makes this a stream

    return refuse


def _same_kind(handler: Any, unary: Any, stream: Any) -> grpc.RpcMethodHandler[Any, Any]:  # noqa: ANN401 -- any handler
    """Return a handler of the kind of *handler* (none: unary) that behaves as *unary* or *stream*."""
    many_requests = handler is not None and handler.request_streaming
    many_responses = handler is not None and handler.response_streaming
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[many_requests, many_responses]
    made: grpc.RpcMethodHandler[Any, Any] = make(
        stream if many_responses else unary,
        request_deserializer=getattr(handler, "request_deserializer", None),
        response_serializer=getattr(handler, "response_serializer", None),
    )
    return made


def routes(interceptor: ServerInterceptor | SyncServerInterceptor) -> list[RouteAccess]:
    """Return what the methods that *interceptor* lists ask of their callers; all others need a valid token."""
    listed = interceptor._rules.access.items()  # noqa: SLF001 -- of this very module
    found = [RouteAccess(method="rpc", path=method, access=access) for method, access in sorted(listed)]
    return [*found, RouteAccess(method="rpc", path="/*", access=ANY_TOKEN)]


__all__ = ["Dpop", "ServerInterceptor", "SyncServerInterceptor", "call_credentials", "current_token", "routes"]
