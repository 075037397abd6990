"""
Access tokens in Django REST framework; usually imported from `tokenry.django`.

    authentication_classes = [BearerAuthentication]
    permission_classes = [has_scopes("orders.read")]

`request.user` is a `TokenUser`, `request.auth` the verified token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission

from tokenry.claims import TokenInfo
from tokenry.django import admit, protection
from tokenry.protect import ANY_TOKEN, Access, Refusal, Refused, marked, needs
from tokenry.wsgi import Running

if TYPE_CHECKING:
    from rest_framework.request import Request

_running: list[Running] = []


class RequestRefused(APIException):  # type: ignore[misc]  # DRF has no types
    """The answer of RFC 6750 section 3, as DRF's handler renders it."""

    def __init__(self, refusal: Refusal) -> None:
        """Answer with *refusal*."""
        self.status_code = refusal.status
        self.auth_header = refusal.challenge
        if refusal.retry_after is not None:
            self.wait = refusal.retry_after
        super().__init__(detail={"error": refusal.error or "no_token"}, code=refusal.error)


class TokenUser:
    """
    The caller, as `request.user`: a service, not a row in a database.

    Attributes:
        info: The verified token.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True
    pk = None

    def __init__(self, info: TokenInfo) -> None:
        """Stand for the subject of *info*."""
        self.info = info
        self.username = info.sub

    def __str__(self) -> str:
        """Show the subject."""
        return self.info.sub


class BearerAuthentication(BaseAuthentication):  # type: ignore[misc]  # DRF has no types
    """Takes the caller from a valid access token; without one, DRF's permissions decide."""

    def authenticate(self, request: Request) -> tuple[TokenUser, TokenInfo] | None:
        """Return caller and token, or None without one; raises RequestRefused for one that is not good."""
        admitted = getattr(getattr(request, "_request", None), "token", None)
        if isinstance(admitted, TokenInfo):  # by the middleware: a proof counts once
            return TokenUser(admitted), admitted
        ours = protection()
        if not _running or _running[0].validator is not ours.validator:
            _running[:] = [Running(ours.validator)]
        _running[0].ensure()
        try:
            info = admit(ours, request, ANY_TOKEN)
        except Refused as refused:
            if refused.refusal.error is None:
                return None
            raise RequestRefused(refused.refusal) from refused
        return TokenUser(info), info

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 -- DRF's signature
        """Return the challenge for a request without a token: with it, DRF answers 401 and not 403."""
        return protection().challenge()


def has_scopes(*scopes: str) -> type[BasePermission]:
    """
    Return a permission class for callers whose token has all *scopes*.

    Raises:
        ConfigurationError: None is named.
    """
    access = needs(scopes)

    class HasScopes(BasePermission):  # type: ignore[misc]  # DRF has no types
        """Lets callers through whose token has the scopes."""

        def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ANN401, ARG002 -- DRF's signature
            return _has(request, access)

    return marked(HasScopes, access)


def _has(request: Request, access: Access) -> bool:
    info = request.auth
    if not isinstance(info, TokenInfo):
        return False  # DRF then answers 401 with the challenge of `authenticate_header`
    try:
        protection().require(info, access)
    except Refused as refused:
        raise RequestRefused(refused.refusal) from refused
    return True


__all__ = ["BearerAuthentication", "RequestRefused", "TokenUser", "has_scopes"]
