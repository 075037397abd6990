"""
Token request and response (RFC 6749 sections 4.3, 4.4 and 5.1; RFC 7523 section 2.1; RFC 8693 sections 2.1 and 2.2;
RFC 8707 for `resource`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from tokenry.oauth.errors import invalid_request, invalid_scope, invalid_target
from tokenry.scope import InvalidScope, Scope, format_scope, parse_scope
from tokenry.secret import Secret

if TYPE_CHECKING:
    from tokenry.oauth.form import Form

CLIENT_CREDENTIALS = "client_credentials"
PASSWORD = "password"  # noqa: S105 -- the name of a grant type, not a password
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 -- the name of a grant type

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- RFC 8693 section 3
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"

# Parameters that this endpoint defines: in a query string they would end up in logs.
DEFINED = frozenset({
    "grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type",
    "username", "password", "resource", "audience", "assertion", "code", "refresh_token",
    "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
})  # fmt: skip
MAX_RESOURCES = 8  # audiences of one token; more is a token for everything
MAX_TARGET = 512  # characters of one resource or audience
MAX_PASSWORD = 1024  # characters; hashing more buys nobody anything


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """
    One request for a token, read but not yet allowed.

    Attributes:
        grant_type: As sent.
        scope: Requested scopes; None for the client's default scopes.
        realm: The realm parameter with its leading slash; None where the request does not name one.
        targets: Requested audiences, from `resource` or `audience`, in the order sent.
        username: Name of the service user (password grant).
        password: Their password (password grant).
        assertion: A JWT of a trusted issuer (jwt-bearer grant).
        subject_token: The access token to exchange (token exchange).
        issued_token_type: What the exchanged token is called in the answer (token exchange).
    """

    grant_type: str
    scope: Scope | None
    realm: str | None
    targets: tuple[str, ...] = ()
    username: str | None = None
    password: Secret | None = None
    assertion: Secret | None = None
    subject_token: Secret | None = None
    issued_token_type: str | None = None


def parse_token_request(form: Form, *, query: Form) -> TokenRequest:
    """
    Return the request of *form*; only `realm` may stand in the *query*.

    Raises:
        OAuthError: `invalid_request`: a parameter is missing, repeated, contradicts another, or stands in the query.
            `invalid_scope`: the scope is malformed. `invalid_target`: a resource is no absolute URI.
    """
    # 1. nothing that belongs into the body stands in the query
    if misplaced := DEFINED & query.names():
        message = f"send {', '.join(sorted(misplaced))} in the body, not in the query string"
        raise invalid_request(message)
    # 2. the grant
    grant_type = form.required("grant_type")
    username, password = _user(form) if grant_type == PASSWORD else (None, None)
    # 3. what is asked for
    return TokenRequest(
        grant_type=grant_type,
        scope=_scope(form),
        realm=_realm(form, query),
        targets=_targets(form),
        username=username,
        password=password,
        assertion=Secret(form.required("assertion")) if grant_type == JWT_BEARER else None,
        **(_exchange(form) if grant_type == TOKEN_EXCHANGE else {}),
    )


def _user(form: Form) -> tuple[str, Secret]:
    username, password = form.one("username"), form.one("password")
    if username is None or "password" not in form:
        message = "the password grant needs username and password"
        raise invalid_request(message)
    # An empty password is a wrong one, not a malformed request; one that is too long stays too long to match.
    return username, Secret((password or "")[: MAX_PASSWORD + 1])


class _Exchange(TypedDict, total=False):
    subject_token: Secret
    issued_token_type: str


def _exchange(form: Form) -> _Exchange:
    """
    Read what RFC 8693 section 2.1 adds.

    Who acts is the client that authenticates itself, so an actor token would say nothing that may be believed.
    """
    token, kind = form.required("subject_token"), form.required("subject_token_type")
    actor, actor_kind = form.one("actor_token"), form.one("actor_token_type")
    if (actor is None) != (actor_kind is None):
        message = "actor_token and actor_token_type belong together"
        raise invalid_request(message)
    if actor is not None:
        message = "actor_token is not supported: the authenticated client is the actor"
        raise invalid_request(message)
    if kind not in {ACCESS_TOKEN_TYPE, JWT_TYPE}:
        message = "subject_token_type is not supported: exchange an access token of this issuer"
        raise invalid_request(message)
    wanted = form.one("requested_token_type") or ACCESS_TOKEN_TYPE
    if wanted not in {ACCESS_TOKEN_TYPE, JWT_TYPE}:
        message = "requested_token_type is not supported: only access tokens are issued"
        raise invalid_request(message)
    return {"subject_token": Secret(token), "issued_token_type": wanted}


def _scope(form: Form) -> Scope | None:
    text = form.one("scope")
    if text is None:
        return None
    try:
        return parse_scope(text)
    except InvalidScope:
        raise invalid_scope() from None


def realm_name(text: str) -> str:
    """
    Return *text* as the name of a realm, with its leading slash.

    Raises:
        OAuthError: `invalid_request`: it is not a name of letters, digits, `-`, `_` and `.`.
    """
    name = text.removeprefix("/")
    if not name or len(name) > MAX_REALM or not set(name) <= _REALM_CHARACTERS or not name[0].isalnum():
        message = "realm is malformed: a name such as /services is expected"
        raise invalid_request(message)
    return f"/{name}"


MAX_REALM = 63  # characters: a label of a host name, since a realm can be told from the Host
_REALM_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def _realm(form: Form, query: Form) -> str | None:
    in_body, in_query = form.one("realm"), query.one("realm")
    if in_body is not None and in_query is not None:
        message = "realm was sent more than once"
        raise invalid_request(message)
    text = in_body if in_body is not None else in_query
    return None if text is None else realm_name(text)


def _targets(form: Form) -> tuple[str, ...]:
    resources, audience = form.every("resource"), form.one("audience")
    if resources and audience is not None:
        message = "send resource or audience, not both"
        raise invalid_request(message)
    if audience is not None:
        resources = (audience,)
    elif not all(map(_is_resource, resources)):
        raise invalid_target()
    if len(resources) > MAX_RESOURCES or any(len(target) > MAX_TARGET for target in resources):
        raise invalid_target()
    return tuple(dict.fromkeys(resources))


def _is_resource(text: str) -> bool:
    # RFC 8707 section 2: an absolute URI without a fragment
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path)) and "#" not in text and text.isascii()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """
    A granted token (RFC 6749 section 5.1).

    Attributes:
        access_token: The compact JWT.
        expires_in: Seconds that it lives.
        scope: What was granted.
        realm: Realm with its leading slash.
        issued_token_type: What it is, in the words of RFC 8693; only for an exchange.
        token_type: How it is used: `Bearer`, or `DPoP` where it is bound to a key (RFC 9449 section 5).
    """

    access_token: Secret
    expires_in: int
    scope: Scope
    realm: str
    issued_token_type: str | None = None
    token_type: str = "Bearer"  # noqa: S105 -- a scheme

    def to_json(self) -> bytes:
        """Return the body of the answer."""
        members: dict[str, Any] = {
            "access_token": self.access_token.reveal(),
            "token_type": self.token_type,
            "expires_in": self.expires_in,
            "scope": format_scope(self.scope),
            "realm": self.realm,
        }
        if self.issued_token_type is not None:
            members["issued_token_type"] = self.issued_token_type
        return _encode(members).encode("ascii")


_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: it costs as much as its use
