"""
Demanding access tokens in Flask: `init_app(app, validator)`, `@require("orders.read")`, `@public`.

Invariants:
    * Closed: what is not marked `public` needs a valid token, static files and routes that do not exist among it.
    * It is looked at before anything else that the application does before a request.
    * A view with `require` does not run without a token that was checked, also when `init_app` was forgotten.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from flask import Response, current_app, g, has_app_context, request

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
from tokenry.wsgi import Running, admit, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flask import Flask

    from tokenry.claims import TokenInfo
    from tokenry.protect import Judge

_EXTENSION: Final = "tokenry"
HandlerT = TypeVar("HandlerT")


class _Extension:
    """What `init_app` leaves in `app.extensions`."""

    def __init__(self, protection: Protection, public_paths: PublicPaths) -> None:
        self.protection = protection
        self.public = public_paths
        self.running = Running(protection.validator)


def init_app(
    app: Flask,
    validator: Judge,
    *,
    public: Iterable[str] = (),
    realm: str | None = None,
    resource_metadata: str | None = None,
    certificate: ProxyCertificate | None = None,
    dpop: Dpop | None = None,
) -> None:
    """
    Let nobody into *app* without a valid token; `g.token` then says who calls.

    Args:
        app: The application.
        validator: Judges the tokens; started by the first request of each process.
        public: Paths that are open besides the views marked `public`: `/healthz`, or `/static/*`.
        realm: Protection space to name in challenges (RFC 9110 section 11.5).
        resource_metadata: URL of this service's metadata to name in challenges (RFC 9728 section 5.1).
        certificate: The certificate that a proxy hands on; default: that of the TLS connection, where the server tells
            it. Without one, a token that is bound to a certificate is refused.
        dpop: Reads the proofs of callers whose tokens are bound to a key; without it such tokens are refused.

    Raises:
        ConfigurationError: A path or the URL is not usable.
    """
    protection = Protection(
        validator=validator, realm=realm, resource_metadata=resource_metadata, dpop=dpop, certificate=certificate
    )
    app.extensions[_EXTENSION] = _Extension(protection, PublicPaths(public))
    # Before those that are there already: none of them may answer a caller whom we have not looked at.
    app.before_request_funcs.setdefault(None, []).insert(0, _authenticate)


def _authenticate() -> Response | None:
    ours: _Extension = current_app.extensions[_EXTENSION]
    g.pop("token", None)
    access = _access_of_view(current_app.view_functions.get(request.endpoint or ""), request.method)
    if access.public or path_of(request.environ) in ours.public:
        return None
    ours.running.ensure()
    try:
        g.token = admit(ours.protection, request.environ, access)
    except Refused as refused:
        return _response(refused.refusal)
    return None


def _access_of_view(view: Any, method: str) -> Access:  # noqa: ANN401 -- any view
    """Return what *view* asks for: a function, or one that stands for a class with methods."""
    if view is None:
        return ANY_TOKEN
    view_class = getattr(view, "view_class", None)
    return mark_of(view) or (access_of(view_class, method) if view_class is not None else ANY_TOKEN)


def _response(refusal: Refusal) -> Response:
    return Response(refusal.body, status=refusal.status, headers=list(refusal.headers))


def _guarded(handler: HandlerT, access: Access) -> HandlerT:
    if inspect.isclass(handler):
        for name in ("get", "head", "post", "put", "patch", "delete", "options", "dispatch_request"):
            method = handler.__dict__.get(name)
            if method is not None:
                setattr(handler, name, _guarded(method, access))
        return handler
    function = cast("Callable[..., Any]", handler)

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- any view's signature
        token: TokenInfo | None = g.get("token") if has_app_context() else None
        if token is None:
            raise RuntimeError("@require without tokenry.flask.init_app: the view was not run")
        try:
            current_app.extensions[_EXTENSION].protection.require(token, access)
        except Refused as refused:
            return _response(refused.refusal)
        return current_app.ensure_sync(function)(*arguments, **named)

    return cast("HandlerT", run)


require = Require(_guarded)


def routes(app: Flask) -> list[RouteAccess]:
    """Return what each route of *app* asks of its callers, for a review."""
    ours: _Extension | None = app.extensions.get(_EXTENSION)
    found = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        for method in sorted((rule.methods or {"*"}) - {"HEAD", "OPTIONS"}):
            access = _access_of_view(view, method)
            if (access is ANY_TOKEN) if ours is None else (rule.rule in ours.public):
                access = PUBLIC
            shown = getattr(view, "view_class", view)
            found.append(RouteAccess(method=method, path=rule.rule, access=access, handler=name_of(shown)))
    return found


__all__ = ["Dpop", "ProxyCertificate", "init_app", "public", "require", "routes"]
