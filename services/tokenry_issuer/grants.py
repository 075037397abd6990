"""
Who may have which token: pure decisions over a request that was read and a client that was authenticated.

The steps of `decide`, in order (RFC 6749 sections 4.3, 4.4 and 5.2; RFC 8707 section 2):

1. the grant type is known and on in the realm, else `unsupported_grant_type`;
2. the client may use it, else `unauthorized_client`;
3. every scope belongs to the client, and for the password grant to the user too, else `invalid_scope`;
4. every target is allowed for the client, else `invalid_target`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenry.oauth.errors import (
    invalid_request,
    invalid_scope,
    invalid_target,
    missing_realm,
    realm_not_found,
    unauthorized_client,
    unsupported_grant_type,
)
from tokenry.oauth.token_endpoint import PASSWORD
from tokenry_issuer.exchange import exchanged_audience, exchanged_scope, trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenry.claims import TokenInfo
    from tokenry.oauth.token_endpoint import TokenRequest
    from tokenry.scope import Scope
    from tokenry_issuer.exchange import Origin
    from tokenry_registry.realms import Client, Realm, User


MAX_HOST = 253 + len(":65535")  # characters of a host name (RFC 1035 section 2.3.4) and a port


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    What a token will say, decided and not yet written down.

    Attributes:
        grant_type: The grant that it was asked for with.
        realm: The realm that it belongs to.
        client_id: The client that asked.
        subject: The client id, or the user name for the password grant.
        scope: Granted scopes.
        audience: One or several audiences.
        lifetime: Seconds that it lives.
        confirmation: Thumbprint of the certificate that it is bound to; None: whoever bears it may use it.
        origin: What it was exchanged from; None: it is the first of its chain.
        key: Thumbprint of the client's key that it is bound to (DPoP); None: of none.
    """

    grant_type: str
    realm: Realm
    client_id: str
    subject: str
    scope: Scope
    audience: tuple[str, ...]
    lifetime: int
    confirmation: str | None = None
    origin: Origin | None = None
    key: str | None = None


def choose_realm(parameter: str | None, *, host: str | None, realms: Iterable[str]) -> str:
    """
    Return the realm of a request, with its leading slash.

    1. the parameter, where there is one; 2. a label of the host name, or a hyphen-separated end of one, that
    equals a realm's name: the longest wins, among equals the one further left; 3. the only realm.

    Args:
        parameter: The realm parameter with its leading slash.
        host: The `Host` header field as received.
        realms: All realms, with their leading slashes.

    Raises:
        OAuthError: `realm_not_found`: the parameter names none. `missing_realm`: it cannot be told.
    """
    known = list(realms)
    if parameter is not None:
        if parameter not in known:
            raise realm_not_found()
        return parameter
    by_label = {name.removeprefix("/").lower(): name for name in sorted(known, reverse=True)}
    found = [end for end in _ends_of_labels(host or "") if end in by_label]
    if found:
        return by_label[max(found, key=len)]
    if len(known) == 1:
        return known[0]
    raise missing_realm()


def _ends_of_labels(host: str) -> Iterable[str]:
    # An IPv6 address has no labels, and what is longer than a host name can be would only cost time.
    if host.startswith("[") or len(host) > MAX_HOST:
        return
    for label in host.partition(":")[0].lower().split("."):
        words = label.split("-")
        for start in range(len(words)):
            yield "-".join(words[start:])


def check_grant_type(grant_type: str, *, realm: Realm) -> None:
    """
    Refuse a grant type that is unknown, or off in the *realm* (step 1).

    Raises:
        OAuthError: `unsupported_grant_type`.
    """
    if grant_type not in realm.grant_types:
        raise unsupported_grant_type()


def check_client_grant(grant_type: str, *, client: Client) -> None:
    """
    Refuse a grant that the *client* was not given (step 2).

    Raises:
        OAuthError: `unauthorized_client`.
    """
    if grant_type not in client.grant_types:
        raise unauthorized_client()


def decide(
    request: TokenRequest,
    *,
    realm: Realm,
    client: Client,
    user: User | None,
    issuer: str,
    confirmation: str | None = None,
) -> Grant:
    """
    Return what *client* is granted.

    Args:
        request: The request as read.
        realm: The realm of the request.
        client: Authenticated.
        user: Authenticated, for the password grant; None otherwise.
        issuer: The issuer identifier.
        confirmation: From `bind`.

    Raises:
        OAuthError: With the first step that failed.
    """
    check_grant_type(request.grant_type, realm=realm)
    check_client_grant(request.grant_type, client=client)
    if (request.grant_type == PASSWORD) is not (user is not None):
        message = "the password grant has a user, and only it"
        raise ValueError(message)
    return Grant(
        grant_type=request.grant_type,
        realm=realm,
        client_id=client.client_id,
        subject=client.client_id if user is None else user.username,
        scope=_scope(request.scope, realm=realm, client=client, user=user),
        audience=_audience(request.targets, default=realm.audience or issuer, client=client),
        lifetime=min(realm.token_lifetime, client.token_lifetime or realm.token_lifetime),
        confirmation=confirmation,
    )


def decide_exchange(
    request: TokenRequest,
    *,
    realm: Realm,
    client: Client,
    subject: TokenInfo,
    now: float,
    confirmation: str | None = None,
) -> Grant:
    """
    Return what *client* is granted in exchange for the token *subject* (RFC 8693).

    Args:
        request: The request as read.
        realm: The realm of the request.
        client: Authenticated.
        subject: What the subject token says: it was judged.
        now: Unix seconds.
        confirmation: From `bind`.

    Raises:
        OAuthError: With the first step that failed.
    """
    check_grant_type(request.grant_type, realm=realm)
    check_client_grant(request.grant_type, client=client)
    origin = trace(subject, policy=client.exchange, client_id=client.client_id, realm=realm.name)
    return Grant(
        grant_type=request.grant_type,
        realm=realm,
        client_id=client.client_id,
        subject=subject.sub,
        scope=exchanged_scope(request.scope, subject=subject.scope, allowed=client.scopes),
        audience=exchanged_audience(request, allowed=client.audiences),
        lifetime=min(
            realm.token_lifetime, client.token_lifetime or realm.token_lifetime, max(1, subject.exp - int(now))
        ),
        confirmation=confirmation,
        origin=origin,
    )


def bind(client: Client, *, thumbprint: str | None, by_certificate: bool) -> str | None:
    """
    Return the thumbprint that a token of *client* is bound to, or None (RFC 8705 section 3).

    Args:
        client: Authenticated.
        thumbprint: That of the certificate of the connection, if there is one.
        by_certificate: Whether it was authenticated by that certificate.

    Raises:
        OAuthError: `invalid_request`: its tokens are to be bound, and there is no certificate.
    """
    if client.certificate_bound is False or (client.certificate_bound is None and not by_certificate):
        return None
    if thumbprint is None:
        message = "tokens of this client are bound to a certificate: present one"
        raise invalid_request(message)
    return thumbprint


def default_scope(*, realm: Realm, client: Client) -> Scope:
    """Return the client's default scopes, else those of the realm that the client has."""
    if client.default_scopes is not None:
        return client.default_scopes
    return realm.default_scopes & client.scopes


def _scope(requested: Scope | None, *, realm: Realm, client: Client, user: User | None) -> Scope:
    scope = default_scope(realm=realm, client=client) if requested is None else requested
    allowed = client.scopes if user is None else client.scopes & user.scopes
    if refused := scope - allowed:
        raise invalid_scope(refused)
    return scope


def _audience(targets: tuple[str, ...], *, default: str, client: Client) -> tuple[str, ...]:
    if not targets:
        return (default,)
    if not client.audiences.union({default}).issuperset(targets):
        raise invalid_target()
    return targets
