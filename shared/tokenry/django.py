"""
Demanding access tokens in Django, synchronous or not.

    MIDDLEWARE = ["tokenry.django.AuthMiddleware", …]
    TOKENRY_VALIDATOR = TokenValidator("https://issuer.example", audience="orders")

Further settings: `TOKENRY_PUBLIC_PATHS` (open paths: `/healthz`, `/static/*`), `TOKENRY_REALM`,
`TOKENRY_RESOURCE_METADATA`, `TOKENRY_CERTIFICATE` (a `ProxyCertificate`: the certificate that a proxy hands on;
default: that of the TLS connection), `TOKENRY_DPOP` (a `Dpop`: reads the proofs of tokens that are bound to a key). For
Django REST framework: `BearerAuthentication` and `has_scopes`, which work with and without the middleware.

Invariants:
    * Closed: what is not marked `public` needs a valid token, routes that do not exist among it.
    * What a view asks for is looked at again once Django has chosen it: a middleware between that changes the
      routes opens nothing.
    * A view with `require` does not run without a token that was checked, also when the middleware was forgotten.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.urls import Resolver404, get_resolver

from tokenry import asgi, wsgi
from tokenry.certificates import ProxyCertificate
from tokenry.dpop import Dpop
from tokenry.protect import (
    ANY_TOKEN,
    PUBLIC,
    Access,
    Protection,
    PublicPaths,
    Refusal,
    Refused,
    Require,
    RouteAccess,
    access_of,
    mark_of,
    name_of,
    public,
)
from tokenry.wsgi import Running, authorization_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.http import HttpRequest

    from tokenry.claims import TokenInfo
    from tokenry.dpop import Asked

HandlerT = TypeVar("HandlerT")
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
_REST: Final = ("BearerAuthentication", "has_scopes")


def protection() -> Protection:
    """
    Return the protection that the settings describe.

    Raises:
        ImproperlyConfigured: There is no `TOKENRY_VALIDATOR`.
    """
    validator = getattr(settings, "TOKENRY_VALIDATOR", None)
    if validator is None:
        raise ImproperlyConfigured("tokenry: set TOKENRY_VALIDATOR = TokenValidator(issuer, audience=…)")
    return Protection(
        validator=validator,
        realm=getattr(settings, "TOKENRY_REALM", None),
        resource_metadata=getattr(settings, "TOKENRY_RESOURCE_METADATA", None),
        dpop=getattr(settings, "TOKENRY_DPOP", None),
        certificate=getattr(settings, "TOKENRY_CERTIFICATE", None),
    )


def admit(ours: Protection, request: Any, access: Access) -> TokenInfo:  # noqa: ANN401 -- of Django or DRF
    """Return what the token of *request* says; raises Refused with the answer."""
    return ours.admit(authorization_values(request.META), access, **_shown(ours, request))


async def aadmit(ours: Protection, request: Any, access: Access) -> TokenInfo:  # noqa: ANN401 -- of Django or DRF
    """Do as `admit` does, for asyncio."""
    return await ours.aadmit(authorization_values(request.META), access, **_shown(ours, request))


def _shown(ours: Protection, request: Any) -> dict[str, Any]:  # noqa: ANN401 -- of Django or DRF
    """Return what the caller shows besides its token."""
    scope = getattr(request, "scope", None)  # over ASGI only
    if scope is not None:
        asked: Callable[[], Asked] = functools.partial(asgi.asked_by, scope)
        shown = asgi.presented_certificate(scope, ours.certificate)
    else:
        asked = functools.partial(wsgi.asked_by, request.META)
        shown = wsgi.presented_certificate(request.META, ours.certificate)
    return {"confirmation": shown, "asked": None if ours.dpop is None else asked}


class AuthMiddleware:
    """Lets nobody in without a valid token; `request.token` then says who calls."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Stand before the rest of the application; all settings are read here."""
        self.get_response = get_response
        self.protection = protection()
        self.public = PublicPaths(getattr(settings, "TOKENRY_PUBLIC_PATHS", ()))
        self._running = Running(self.protection.validator)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 -- a response, or a coroutine of one
        """Handle one request."""
        if self._is_async:
            return self._acall(request)
        access = self._begin(request)
        if not access.public:
            self._running.ensure()
            try:
                request.token = admit(self.protection, request, access)
            except Refused as refused:
                return _response(refused.refusal)
        return self.get_response(request)

    async def _acall(self, request: HttpRequest) -> Any:  # noqa: ANN401 -- a response
        access = self._begin(request)
        if not access.public:
            if self._running.needed:
                await sync_to_async(self._running.ensure, thread_sensitive=False)()
            try:
                request.token = await aadmit(self.protection, request, access)
            except Refused as refused:
                return _response(refused.refusal)
        return await self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        arguments: Any,  # noqa: ANN401, ARG002 -- Django's signature
        named: Any,  # noqa: ANN401, ARG002 -- Django's signature
    ) -> HttpResponse | None:
        """Look again, at the view that Django has chosen."""
        access = access_of_view(view, request.method)
        if access.public or request.path_info in self.public:
            return None
        if request.token is None:
            return _response(self.protection.no_token())
        try:
            self.protection.require(request.token, access)
        except Refused as refused:
            return _response(refused.refusal)
        return None

    def _begin(self, request: HttpRequest) -> Access:
        """Take off what is not ours, and return what the view asks for that Django is going to choose."""
        request.token = None
        request.tokenry_protection = self.protection
        if request.path_info in self.public:
            return PUBLIC
        try:
            match = get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
        except Resolver404:
            return ANY_TOKEN
        return access_of_view(match.func, request.method)


def access_of_view(view: Any, method: str | None) -> Access:  # noqa: ANN401 -- any view
    """Return what *view* asks for: a function, or one that stands for a class with methods (also of DRF)."""
    view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)
    actions = getattr(view, "actions", None) or {}
    name = actions.get((method or "").lower(), method)
    return mark_of(view) or (access_of(view_class, name) if view_class is not None else ANY_TOKEN)


def _response(refusal: Refusal) -> HttpResponse:
    return HttpResponse(refusal.body, status=refusal.status, headers=dict(refusal.headers))


def _guarded(handler: HandlerT, access: Access) -> HandlerT:
    if inspect.isclass(handler):
        for name in (*_METHODS, "list", "create", "retrieve", "update", "partial_update", "destroy"):
            method = handler.__dict__.get(name)
            if method is not None:
                setattr(handler, name, _guarded(method, access))
        return handler
    function = cast("Callable[..., Any]", handler)
    if iscoroutinefunction(function):

        @functools.wraps(function)
        async def arun(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any view's signature
            refusal = _look(arguments, access)
            return refusal if refusal is not None else await function(*arguments, **named)

        return cast("HandlerT", arun)

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any view's signature
        refusal = _look(arguments, access)
        return refusal if refusal is not None else function(*arguments, **named)

    return cast("HandlerT", run)


def _look(arguments: tuple[Any, ...], access: Access) -> HttpResponse | None:
    """Return the refusal of a request that lacks what is asked for."""
    for argument in arguments[:2]:  # the request, or self and the request
        token = getattr(argument, "token", None) or getattr(argument, "auth", None)
        if token is not None and hasattr(argument, "META"):
            ours: Protection = getattr(argument, "tokenry_protection", None) or protection()
            try:
                ours.require(token, access)
            except Refused as refused:
                return _response(refused.refusal)
            return None
    raise RuntimeError("@require without tokenry.django.AuthMiddleware: the view was not run")


require = Require(_guarded)


# --- for reviews ---


def routes(app: object = None) -> list[RouteAccess]:  # noqa: ARG001 -- Django has one set of routes a process
    """Return what each route of this process's Django asks of its callers, for a review."""
    closed = "tokenry.django.AuthMiddleware" in settings.MIDDLEWARE
    open_paths = PublicPaths(getattr(settings, "TOKENRY_PUBLIC_PATHS", ()))
    return list(_routes(get_resolver().url_patterns, "/", closed=closed, open_paths=open_paths))


def _routes(patterns: Iterable[Any], prefix: str, *, closed: bool, open_paths: PublicPaths) -> Iterable[RouteAccess]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _routes(pattern.url_patterns, path, closed=closed, open_paths=open_paths)
            continue
        view = pattern.callback
        view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)
        methods = [name.upper() for name in _METHODS if hasattr(view_class, name)] if view_class else ["*"]
        for method in [name for name in methods if name not in {"OPTIONS", "HEAD"}] or ["*"]:
            access = access_of_view(view, method)
            if path in open_paths or (access is ANY_TOKEN and not closed and not _asks_by_itself(view_class)):
                access = PUBLIC
            yield RouteAccess(method=method, path=path, access=access, handler=name_of(view_class or view))


def _asks_by_itself(view_class: Any) -> bool:  # noqa: ANN401 -- any class
    """Tell whether a view of Django REST framework has permissions of ours."""
    permissions = getattr(view_class, "permission_classes", None) or ()
    return any(mark_of(permission) is not None for permission in permissions)


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    # Django REST framework need not be there, and may be imported only once the settings are.
    if name in _REST:
        return getattr(importlib.import_module("tokenry.rest_framework"), name)
    raise AttributeError(f"module 'tokenry.django' has no attribute {name!r}")


__all__ = ["AuthMiddleware", "Dpop", "ProxyCertificate", "public", "require", "routes"]
