"""
Demanding access tokens in Starlette.

Two ways:

* `AuthMiddleware`: closed by default, with `@require` and `@public` on endpoints.
* `BearerBackend` for Starlette's own `AuthenticationMiddleware`, whose `@requires` goes on working. There an
  endpoint without `@requires` is open, and `@requires` answers 403 without a challenge to who has no token.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.responses import Response
from starlette.routing import Match

from tokenry import asgi
from tokenry.asgi import current_token
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

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence

    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

    from tokenry.claims import TokenInfo
    from tokenry.protect import Judge

MAX_DEPTH: Final = 20  # of mounted applications; more is a loop


class AuthMiddleware(asgi.AuthMiddleware):
    """
    Lets nobody in without a valid token, except to endpoints marked `public` and to public paths.

    `Middleware(AuthMiddleware, validator=validator)`; endpoints take the token from `token_of(request)`.
    The arguments are those of `tokenry.asgi.AuthMiddleware`.
    """

    def access(self, scope: MutableMapping[str, Any]) -> Access:
        """Return what the endpoint asks for that the router is going to choose; without one, a token."""
        application = scope.get("app")
        endpoint = _endpoint(getattr(application, "routes", ()), scope, MAX_DEPTH)
        return ANY_TOKEN if endpoint is None else access_of(endpoint, scope.get("method"))


def _endpoint(routes: Sequence[Any], scope: MutableMapping[str, Any], depth: int) -> object | None:
    """Return the endpoint of the first of *routes* that matches wholly, as Starlette's router looks for it."""
    for route in routes:
        match, child = route.matches(scope)
        if match is not Match.FULL:
            continue
        endpoint: object | None = getattr(route, "endpoint", None)
        if endpoint is not None:
            return endpoint
        return _endpoint(getattr(route, "routes", None) or (), {**scope, **child}, depth - 1) if depth else None
    return None


def token_of(connection: HTTPConnection) -> TokenInfo:
    """
    Return the verified token of a request or WebSocket that `AuthMiddleware` let in.

    Raises:
        RuntimeError: It has none: the endpoint is public, or the middleware is missing.
    """
    info: TokenInfo | None = connection.scope.get(asgi.TOKEN)
    if info is None:
        raise RuntimeError("there is no verified token: a public endpoint, or no tokenry.starlette.AuthMiddleware")
    return info


def _response(refusal: Refusal) -> Response:
    return Response(refusal.body, status_code=refusal.status, headers=dict(refusal.headers))


def _guarded(handler: Any, access: Access) -> Any:  # noqa: ANN401 -- the same type
    return asgi.guarded(handler, access, answer=_response)


require = Require(_guarded)


# --- Starlette's own authentication ---


class BearerUser(BaseUser):
    """
    The caller, as `request.user`.

    Attributes:
        info: The verified token.
    """

    def __init__(self, info: TokenInfo) -> None:
        """Stand for the subject of *info*."""
        self.info = info

    @property
    def is_authenticated(self) -> bool:
        """Always: there is none without a valid token."""
        return True

    @property
    def display_name(self) -> str:
        """The subject."""
        return self.info.sub

    @property
    def identity(self) -> str:
        """The subject."""
        return self.info.sub


class TokenRefused(AuthenticationError):
    """
    The token was refused.

    Attributes:
        refusal: The answer, for `on_error`.
    """

    def __init__(self, refusal: Refusal) -> None:
        """Refuse with *refusal*."""
        self.refusal = refusal
        super().__init__(refusal.error)


class BearerBackend(AuthenticationBackend):
    """
    For Starlette's `AuthenticationMiddleware(backend=BearerBackend(validator), on_error=on_error)`.

    Args:
        validator: Judges the tokens.
        realm: Protection space to name in challenges.
        resource_metadata: URL of this service's metadata to name in challenges (RFC 9728 section 5.1).
        certificate: The certificate that a proxy hands on; default: that of the TLS connection.
        dpop: Reads the proofs of callers whose tokens are bound to a key; without it such tokens are refused.
    """

    def __init__(
        self,
        validator: Judge,
        *,
        realm: str | None = None,
        resource_metadata: str | None = None,
        certificate: ProxyCertificate | None = None,
        dpop: Dpop | None = None,
    ) -> None:
        """Judge by *validator*."""
        self._protection = Protection(
            validator=validator,
            realm=realm,
            resource_metadata=resource_metadata,
            dpop=dpop,
            certificate=certificate,
        )

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return scopes and caller, or None for a connection without a token; raises TokenRefused."""
        try:
            info = await asgi.admit(self._protection, conn.scope, ANY_TOKEN)
        except Refused as refused:
            if refused.refusal.error is None:
                return None
            raise TokenRefused(refused.refusal) from refused
        return AuthCredentials(sorted(info.scope)), BearerUser(info)


def on_error(conn: HTTPConnection, error: AuthenticationError) -> Response:  # noqa: ARG001 -- Starlette's signature
    """Answer a refused token as RFC 6750 section 3 says."""
    if isinstance(error, TokenRefused):
        return _response(error.refusal)
    return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})


# --- for reviews ---


def routes(app: Starlette) -> list[RouteAccess]:
    """Return what each route of *app* asks of its callers, for a review."""
    middleware: list[Any] = list(app.user_middleware)
    ours = [each for each in middleware if inspect.isclass(each.cls) and issubclass(each.cls, AuthMiddleware)]
    open_paths = PublicPaths(ours[0].kwargs.get("public", ())) if ours else PublicPaths()
    return list(_routes(app.routes, "", closed=bool(ours), open_paths=open_paths, depth=MAX_DEPTH))


def _routes(
    routes: Iterable[Any], prefix: str, *, closed: bool, open_paths: PublicPaths, depth: int
) -> Iterable[RouteAccess]:
    for route in routes:
        path = prefix + getattr(route, "path", "")
        endpoint = getattr(route, "endpoint", None)
        below = getattr(route, "routes", None) or ()
        if endpoint is None and below and depth:
            yield from _routes(below, path, closed=closed, open_paths=open_paths, depth=depth - 1)
            continue
        methods: Iterable[str] = sorted(getattr(route, "methods", None) or {"*"})
        for method in methods:
            yield RouteAccess(
                method=method,
                path=path if endpoint is not None else f"{path}/*",
                access=_listed(endpoint, method, closed=closed, is_open=path in open_paths),
                handler=name_of(endpoint if endpoint is not None else getattr(route, "app", route)),
            )


def _listed(endpoint: object, method: str, *, closed: bool, is_open: bool) -> Access:
    if is_open:
        return PUBLIC
    return access_of(endpoint, method) if closed or mark_of(endpoint) else PUBLIC


__all__ = [
    "AuthMiddleware",
    "BearerBackend",
    "BearerUser",
    "Dpop",
    "ProxyCertificate",
    "current_token",
    "on_error",
    "public",
    "require",
    "routes",
    "token_of",
]
