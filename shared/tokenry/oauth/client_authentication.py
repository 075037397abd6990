"""
Client authentication by secret (RFC 6749 section 2.3.1) or assertion (RFC 7523 section 2.2): from header and form to
a typed credential.

Basic has two readings. The standard one decodes id and secret as form values; Plan B's clients send them as they
are. Where the two differ, both are offered, the standard one first; a failure of both is one failure.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE
from tokenry.oauth.errors import OAuthError, invalid_client, invalid_request
from tokenry.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenry.oauth.form import Form

MAX_CLIENT_ID = 255  # characters; it is a file name in the credentials' bucket
MAX_SECRET = 1024  # characters; a generated secret has 43
_MAX_BASIC = 4 * (MAX_CLIENT_ID + MAX_SECRET)  # base64 of the percent-encoded pair, with room
CHALLENGE_REALM = "tokenry"


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """One reading of a client's id and secret."""

    client_id: str
    secret: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """
    What a client proved itself with.

    Attributes:
        method: The name of the method in metadata (`client_secret_basic` or `client_secret_post`).
        readings: One reading, or two for Basic: form-decoded, then literal.
    """

    method: str
    readings: tuple[ClientSecret, ...]

    @property
    def basic(self) -> bool:
        """Tell whether the failure needs a Basic challenge (RFC 6749 section 5.2)."""
        return self.method == "client_secret_basic"

    def refusal(self) -> OAuthError:
        """Return the answer for a credential that did not match."""
        return invalid_client(realm=CHALLENGE_REALM if self.basic else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAssertion:
    """
    A JWT that a client proves itself with, as it came: nothing of it has been looked at.

    Attributes:
        client_id: The client that the form names; None where it leaves that to the assertion.
        assertion: The JWT.
    """

    client_id: str | None
    assertion: Secret

    def refusal(self) -> OAuthError:
        """Return the answer for an assertion that proves nothing."""
        return invalid_client()


def read_client_assertion(authorization: Sequence[str], form: Form) -> ClientAssertion | None:
    """
    Return the assertion of a request, or None when the client did not send one (RFC 7521 section 4.2).

    Args:
        authorization: Every value of the `Authorization` header field.
        form: The form body.

    Raises:
        OAuthError: `invalid_request`: there is another method besides, or half of this one. `invalid_client`: an
            assertion of a type that is not known here.
    """
    assertion, kind = form.one("client_assertion"), form.one("client_assertion_type")
    if assertion is None and kind is None:
        return None
    if authorization or "client_secret" in form:
        message = "use one method of client authentication, not two"
        raise invalid_request(message)
    if assertion is None or kind is None:
        message = "client_assertion and client_assertion_type belong together"
        raise invalid_request(message)
    if kind != CLIENT_ASSERTION_TYPE:
        raise invalid_client()
    return ClientAssertion(client_id=form.one("client_id"), assertion=Secret(assertion))


def read_client_credential(authorization: Sequence[str], form: Form) -> ClientCredential | None:
    """
    Return the credential of a request, or None when the client did not try to authenticate.

    A `client_id` in the form beside Basic is an identifier, not a second method, as long as it names the same client.

    Args:
        authorization: Every value of the `Authorization` header field.
        form: The form body.

    Raises:
        OAuthError: `invalid_request`: more than one method, or the header field twice. `invalid_client`: the
            header is not of the form of Basic, or a part is too long.
    """
    # 1. one method only (RFC 6749 section 2.3)
    if len(authorization) > 1:
        message = "the Authorization header was sent more than once"
        raise invalid_request(message)
    secret, client_id = form.one("client_secret"), form.one("client_id")
    if sum((bool(authorization), "client_secret" in form, "client_assertion" in form)) > 1:
        message = "use one method of client authentication, not two"
        raise invalid_request(message)
    # 2. header
    if authorization:
        credential = _basic(authorization[0])
        if client_id is not None and all(client_id != reading.client_id for reading in credential.readings):
            message = "client_id in the body names another client than the Authorization header"
            raise invalid_request(message)
        return credential
    # 3. body
    if secret is None:
        return None
    if client_id is None:
        message = "client_id is missing"
        raise invalid_request(message)
    _check_lengths(client_id, secret, challenge=None)
    return ClientCredential(method="client_secret_post", readings=(ClientSecret(client_id, Secret(secret)),))


def _basic(value: str) -> ClientCredential:
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _MAX_BASIC:
        raise invalid_client(realm=CHALLENGE_REALM)
    try:
        pair = b64decode(encoded.strip().encode("ascii"), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeError):
        raise invalid_client(realm=CHALLENGE_REALM) from None
    client_id, colon, secret = pair.partition(":")
    if not colon:
        raise invalid_client(realm=CHALLENGE_REALM)
    readings = _readings(client_id, secret)
    for reading in readings:
        _check_lengths(reading.client_id, reading.secret.reveal(), challenge=CHALLENGE_REALM)
    return ClientCredential(method="client_secret_basic", readings=readings)


def _readings(client_id: str, secret: str) -> tuple[ClientSecret, ...]:
    literal = ClientSecret(client_id, Secret(secret))
    if not any(mark in text for text in (client_id, secret) for mark in "%+"):
        return (literal,)  # both readings are this one
    try:
        decoded = ClientSecret(unquote_plus(client_id, errors="strict"), Secret(unquote_plus(secret, errors="strict")))
    except UnicodeDecodeError:
        return (literal,)
    return (decoded,) if decoded == literal else (decoded, literal)


def _check_lengths(client_id: str, secret: str, *, challenge: str | None) -> None:
    if not client_id or len(client_id) > MAX_CLIENT_ID or len(secret) > MAX_SECRET:
        raise invalid_client(realm=challenge)
