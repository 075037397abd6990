"""
Demanding access tokens in FastAPI: a dependency, shown in the OpenAPI document with its scopes.

Invariants:
    * `Security(bearer, scopes=[…])` on an endpoint: all of these scopes, or the endpoint does not run.
    * `FastAPI(dependencies=[Security(bearer)])`: every endpoint needs a valid token, except those marked
      `public`. (FastAPI's own pages, `/docs` and `/openapi.json`, know no dependencies.)
"""

# Without `annotations` of the future: not every FastAPI can read those of an object's `__call__` then.
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from fastapi import FastAPI, HTTPException, routing
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from tokenry.asgi import admit
from tokenry.certificates import ProxyCertificate
from tokenry.claims import TokenInfo
from tokenry.dpop import Dpop
from tokenry.protect import (
    ANY_TOKEN,
    PUBLIC,
    Access,
    Admitted,
    Judge,
    Protection,
    Refusal,
    Refused,
    RouteAccess,
    access_of,
    mark_of,
    name_of,
    needs,
    public,
)
from tokenry.starlette import MAX_DEPTH

_ATTRIBUTE: Final = "__tokenry_dependency__"
_ADMITTED: Final = "tokenry.admitted"  # in the ASGI scope, which no caller writes


class RequestRefused(HTTPException):
    """
    The answer of RFC 6750 section 3, as FastAPI's handlers render it: `{"detail": "invalid_token"}`.

    Attributes:
        refusal: Status, header fields, and the body of the other frameworks, for a handler of your own.
    """

    def __init__(self, refusal: Refusal) -> None:
        """Answer with *refusal*."""
        self.refusal = refusal
        fields = {name: value for name, value in refusal.headers if name != "Content-Type"}
        super().__init__(status_code=refusal.status, detail=refusal.error or "no_token", headers=fields)


class Bearer(SecurityBase):
    """
    Dependency that gives the verified token: `Annotated[TokenInfo, Security(bearer, scopes=["orders.read"])]`.

    Args:
        validator: Judges the tokens; run it with `FastAPI(lifespan=validator.lifespan)`.
        realm: Protection space to name in challenges (RFC 9110 section 11.5).
        resource_metadata: URL of this service's metadata to name in challenges (RFC 9728 section 5.1).
        certificate: The certificate that a proxy hands on; default: that of the TLS connection.
        dpop: Reads the proofs of callers whose tokens are bound to a key; without it such tokens are refused.
        scheme_name: Name of the scheme in the OpenAPI document.
        description: Its description there.

    Raises:
        ConfigurationError: The URL is none.
    """

    def __init__(
        self,
        validator: Judge,
        *,
        realm: str | None = None,
        resource_metadata: str | None = None,
        certificate: ProxyCertificate | None = None,
        dpop: Dpop | None = None,
        scheme_name: str = "Bearer",
        description: str | None = None,
    ) -> None:
        """Judge by *validator*."""
        self.model = HTTPBearer(bearerFormat="JWT", description=description)
        self.scheme_name = scheme_name
        self._protection = Protection(
            validator=validator,
            realm=realm,
            resource_metadata=resource_metadata,
            dpop=dpop,
            certificate=certificate,
        )
        setattr(self, _ATTRIBUTE, ANY_TOKEN)

    async def __call__(self, connection: HTTPConnection, scopes: SecurityScopes) -> TokenInfo:
        """
        Return the verified token; None, of an endpoint that is marked `public` and asks for no scopes.

        Raises:
            RequestRefused: There is none, or it lacks scopes.
        """
        return await self._admit(connection, needs(scopes.scopes) if scopes.scopes else ANY_TOKEN)

    def any_of(self, *scopes: str) -> Callable[[HTTPConnection], Awaitable[TokenInfo]]:
        """Return a dependency that asks for at least one of *scopes*: `Depends(bearer.any_of("a", "b"))`."""
        access = needs(scopes, any_of=True)

        async def one_of_them(connection: HTTPConnection) -> TokenInfo:
            return await self._admit(connection, access)

        setattr(one_of_them, _ATTRIBUTE, access)
        return one_of_them

    async def _admit(self, connection: HTTPConnection, access: Access) -> TokenInfo:
        if access is ANY_TOKEN and _endpoint_of(connection).public:
            return None  # type: ignore[return-value]  # asked for by nobody but the application as a whole
        scope = connection.scope
        held: Admitted | None = scope.get(_ADMITTED)
        try:
            if held is not None and held.protection is self._protection:
                held.protection.require(held.info, access)  # asked for again, with other scopes: a proof counts once
                return held.info
            info = await admit(self._protection, scope, access)
        except Refused as refused:
            raise RequestRefused(refused.refusal) from refused
        scope[_ADMITTED] = Admitted(info=info, protection=self._protection)
        return info


def _endpoint_of(connection: HTTPConnection) -> Access:
    """Return what the endpoint is marked with that FastAPI has chosen."""
    endpoint = getattr(connection.scope.get("route"), "endpoint", None)
    return ANY_TOKEN if endpoint is None or inspect.isclass(endpoint) else access_of(endpoint)


# --- for reviews ---


def routes(app: FastAPI) -> list[RouteAccess]:
    """Return what each route of *app* asks of its callers by our dependencies, for a review."""
    each_route = getattr(routing, "iter_route_contexts", None)  # routers are included lazily where this exists
    found: Iterable[Any] = each_route(app.routes) if each_route is not None else app.routes
    return [
        RouteAccess(
            method=method,
            path=route.path or "",
            access=_access(route),
            handler=name_of(route.endpoint) if getattr(route, "endpoint", None) is not None else "",
        )
        for route in found
        for method in sorted(getattr(route, "methods", None) or {"*"})
    ]


def _access(route: Any) -> Access:  # noqa: ANN401 -- a route of FastAPI or Starlette
    dependant = getattr(route, "dependant", None)
    asked = list(_asked(dependant, frozenset(), MAX_DEPTH)) if dependant is not None else []
    scopes = frozenset[str]().union(*(access.scope for access in asked if not access.any_of))
    if scopes:
        return Access(scope=scopes)
    some = [access for access in asked if access.any_of]
    if some:
        return some[0]
    mark = mark_of(getattr(route, "endpoint", None))
    return PUBLIC if not asked or (mark is not None and mark.public) else ANY_TOKEN


def _asked(dependant: Any, above: frozenset[str], depth: int) -> Iterable[Access]:  # noqa: ANN401 -- FastAPI's own
    for each in dependant.dependencies if depth else ():
        named = getattr(each, "own_oauth_scopes", None) or getattr(each, "security_scopes", None) or ()
        scopes = above | frozenset(named)
        access = getattr(each.call, _ATTRIBUTE, None)
        if isinstance(access, Access):
            yield access if access.any_of else Access(scope=scopes)
        yield from _asked(each, scopes, depth - 1)


__all__ = ["Bearer", "Dpop", "ProxyCertificate", "RequestRefused", "public", "routes"]
