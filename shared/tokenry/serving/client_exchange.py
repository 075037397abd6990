"""
Client credentials that a service cannot judge itself: it asks the issuer for a token with them, as they came.

If there is one, the caller is the client that the token names (`client_credentials`, RFC 6749 section 4.4). What is
asked, and what the answer means; who asks, how often, and for how long is remembered is the service's own business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import parse_json_object
from tokenry.oauth.form import FORM
from tokenry.secret import Secret
from tokenry.serving.addresses import UNIX_PEER

if TYPE_CHECKING:
    from tokenry.oauth.client_authentication import ClientCredential

NAME_THE_REALM: Final = "name the client's realm in the parameter realm, such as realm=/services"


class Verdict(StrEnum):
    """What the issuer makes of some credentials."""

    GOOD = "good"
    WRONG = "wrong"
    NOT_ALLOWED = "not_allowed"  # the client, or this scope for it
    NO_REALM = "no_realm"
    UNKNOWN = "unknown"  # it cannot say now, or has said something else


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    What is sent to the token endpoint.

    Attributes:
        headers: Its header fields.
        body: The form.
    """

    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show no credential."""
        return "<Exchange>"


@dataclass(frozen=True, slots=True)
class Exchanged:
    """
    What the answer means.

    Attributes:
        verdict: What the issuer makes of the credentials.
        token: The token; there exactly when they are good.
        scope: The scope that the answer names; None where it names none.
    """

    verdict: Verdict
    token: Secret | None = None
    scope: str | None = None


def exchange_of(
    credential: ClientCredential,
    *,
    authorization: str | None,
    realm: str | None,
    address: str,
    scope: str | None = None,
) -> Exchange:
    """
    Return the request for a token.

    Args:
        credential: What was presented.
        authorization: The header field as it came, where Basic was used: it is sent on as it is.
        realm: The client's realm, where it is known.
        address: The caller's address: the issuer counts failures by it, where it trusts us as a proxy.
        scope: Scope to ask for; None: the client's own.
    """
    form = {"grant_type": "client_credentials"}
    if scope is not None:
        form["scope"] = scope
    headers = {"Content-Type": FORM, "Accept": "application/json"}
    if address != UNIX_PEER:
        headers["X-Forwarded-For"] = address
    if realm is not None:
        form["realm"] = realm
    if credential.basic and authorization is not None:
        headers["Authorization"] = authorization
    else:
        form["client_id"] = credential.readings[0].client_id
        form["client_secret"] = credential.readings[0].secret.reveal()
    return Exchange(headers, urlencode(form).encode("ascii"))


def read_exchange(status: int, body: bytes) -> Exchanged:
    """Return what the answer with *status* and *body* means."""
    try:
        members = parse_json_object(body)
    except ProtocolError:
        return Exchanged(Verdict.UNKNOWN)
    token, scope, error = members.get("access_token"), members.get("scope"), members.get("error")
    if status == HTTPStatus.OK:
        if not isinstance(token, str) or not token:
            return Exchanged(Verdict.UNKNOWN)
        return Exchanged(Verdict.GOOD, Secret(token), scope if isinstance(scope, str) else None)
    if status == HTTPStatus.UNAUTHORIZED or error == "invalid_client":
        return Exchanged(Verdict.WRONG)
    if error in {"invalid_scope", "unauthorized_client"}:
        return Exchanged(Verdict.NOT_ALLOWED)
    if error in {"missing_realm", "realm_not_found"}:
        return Exchanged(Verdict.NO_REALM)
    return Exchanged(Verdict.UNKNOWN)
