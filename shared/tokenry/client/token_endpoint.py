"""The client's half of the token endpoint: the request as bytes, and what the answer means (RFC 6749 section 4)."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlencode

from tokenry.errors import ProtocolError
from tokenry.http.backoff import parse_retry_after
from tokenry.http.fetch import Request
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.scope import InvalidScope, Scope, format_scope, parse_scope

if TYPE_CHECKING:
    from tokenry.client.credentials import ClientAssertion, ClientKey, ClientSecrets
    from tokenry.http.fetch import Response
    from tokenry.secret import Secret

MAX_ANSWER_BYTES: Final = 64 * 1024
ASSERTION_SECONDS: Final = 60  # that an assertion lives: time for a slow network, and for clocks that differ
_OK: Final = 200
_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ERROR_CODE = re.compile(r"[a-z_]{1,50}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")  # what may stand in a header, and no space


class Refused(ProtocolError):
    """
    The answer has no token.

    Attributes:
        error: The RFC 6749 code, or None where the answer had none.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds that the issuer asked for.
    """

    def __init__(self, message: str, *, error: str | None, retryable: bool, retry_after: float | None = None) -> None:
        """Refuse with *message*."""
        self.error = error
        self.retryable = retryable
        self.retry_after = retry_after
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    What to ask for.

    Attributes:
        grant_type: `client_credentials` or `password`.
        scope: Wanted scopes; none: the client's default ones.
        realm: Realm, where the issuer has several.
        audience: Wanted audience, where it is not the default one.
    """

    grant_type: str
    scope: Scope
    realm: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """
    A token as answered.

    Attributes:
        value: The token.
        lifetime: Seconds that it lives.
        scope: Granted scopes.
    """

    value: Secret
    lifetime: float
    scope: Scope


def token_request(url: str, grant: Grant, secrets: ClientSecrets, *, deadline_seconds: float) -> Request:
    """Return the request for a token (RFC 6749 sections 4.3.2 and 4.4.2)."""
    form = {"grant_type": grant.grant_type}
    optional = {
        "scope": format_scope(grant.scope) or None,
        "realm": grant.realm,
        "audience": grant.audience,
        "username": secrets.username,
        "password": secrets.password.reveal() if secrets.password is not None else None,
    }
    form |= {name: value for name, value in optional.items() if value is not None}
    return _post(url, form, {"Authorization": basic_credentials(secrets)}, deadline_seconds)


def signed_token_request(
    url: str, grant: Grant, identity: ClientKey, *, audience: str, now: float, jti: str, deadline_seconds: float
) -> Request:
    """
    Return the request for a token, with an assertion in place of a secret (RFC 7523 section 2.2).

    Args:
        url: The token endpoint.
        grant: What to ask for.
        identity: Whose token it is to be, and the key that proves it.
        audience: The issuer identifier: the assertion is good for nobody else.
        now: Unix seconds.
        jti: An id that was not used before; the assertion is good once.
        deadline_seconds: Budget of the exchange.
    """
    from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE

    form = {
        "grant_type": grant.grant_type,
        "client_assertion_type": CLIENT_ASSERTION_TYPE,
        "client_assertion": client_assertion(identity, audience=audience, now=now, jti=jti),
    }
    optional = {"scope": format_scope(grant.scope) or None, "realm": grant.realm, "audience": grant.audience}
    form |= {name: value for name, value in optional.items() if value is not None}
    # One that died on the way may have been read: its assertion would count as a replay.
    return replace(_post(url, form, {}, deadline_seconds), repeatable=False)


def vouched_token_request(url: str, grant: Grant, identity: ClientAssertion, *, deadline_seconds: float) -> Request:
    """Return the request for a token, with what the platform says of the client in place of a secret (RFC 7523)."""
    from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE

    form = {
        "grant_type": grant.grant_type,
        "client_assertion_type": CLIENT_ASSERTION_TYPE,
        "client_assertion": identity.assertion.reveal(),
    }
    optional = {
        "client_id": identity.client_id,
        "scope": format_scope(grant.scope) or None,
        "realm": grant.realm,
        "audience": grant.audience,
    }
    form |= {name: value for name, value in optional.items() if value is not None}
    return replace(_post(url, form, {}, deadline_seconds), repeatable=False)  # it may be good once


def client_assertion(identity: ClientKey, *, audience: str, now: float, jti: str) -> str:
    """Return the assertion by which *identity* proves itself to *audience* (RFC 7523 section 3)."""
    from tokenry.jose import jws  # only who signs loads the cryptography
    from tokenry.oauth.assertions import CLIENT_AUTHENTICATION_TYP

    issued_at = int(now)
    claims = {
        "iss": identity.client_id,
        "sub": identity.client_id,
        "aud": audience,
        "iat": issued_at,
        "exp": issued_at + ASSERTION_SECONDS,
        "jti": jti,
    }
    return jws.sign({"typ": CLIENT_AUTHENTICATION_TYP}, dump_json(claims), identity.key)


def _post(url: str, form: dict[str, str], headers: dict[str, str], deadline_seconds: float) -> Request:
    return Request(
        url=url,
        method="POST",
        headers={**headers, "Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        body=urlencode(form).encode(),
        deadline_seconds=deadline_seconds,
        max_bytes=MAX_ANSWER_BYTES,
    )


def read_token_response(response: Response, *, wanted: Scope, bound: bool = False) -> Issued:
    """
    Return the token of *response*; *bound* says that a proof was sent, and the token has to be bound to its key.

    Raises:
        Refused: The issuer refused, or its answer is not one of RFC 6749 section 5.1.
    """
    if response.status != _OK:
        raise _refusal(response)
    try:
        members = parse_json_object(response.body)
    except ProtocolError:
        raise _malformed("is no JSON object") from None
    return Issued(value=_value(members, bound=bound), lifetime=_lifetime(members), scope=_scope(members, wanted))


def basic_credentials(secrets: ClientSecrets) -> str:
    """Return the value of an `Authorization` header that authenticates a client (RFC 6749 section 2.3.1)."""
    # Both parts are form-encoded before they are joined.
    pair = f"{quote_plus(secrets.client_id)}:{quote_plus(secrets.client_secret.reveal())}"
    return "Basic " + b64encode(pair.encode()).decode()


def _refusal(response: Response) -> Refused:
    code: Any = None
    try:
        code = parse_json_object(response.body).get("error")
    except ProtocolError:
        code = None
    error = code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None
    said = f"said {error}" if error else f"answered with status {response.status}"
    return Refused(
        f"the issuer {said}",
        error=error,
        retryable=response.status in _RETRYABLE,
        retry_after=parse_retry_after(response.headers.get("retry-after")),
    )


def _value(members: dict[str, Any], *, bound: bool) -> Secret:
    from tokenry.secret import Secret

    value, kind = members.get("access_token"), members.get("token_type")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise _malformed("has no access_token that could be sent")
    expected = "DPoP" if bound else "Bearer"
    if not isinstance(kind, str) or kind.lower() != expected.lower():
        # Of a client that the issuer binds no tokens for: its token would go without the protection that was asked for.
        raise _malformed(f"is not of token_type {expected}")
    return Secret(value)


def _lifetime(members: dict[str, Any]) -> float:
    seconds = members.get("expires_in")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise _malformed("has no expires_in")
    if not isfinite(seconds) or not 0 < seconds < 10**9:
        raise _malformed("has an expires_in that is no lifetime")
    return float(seconds)


def _scope(members: dict[str, Any], wanted: Scope) -> Scope:
    text = members.get("scope")
    if text is None:
        return wanted  # RFC 6749 section 5.1: identical to the one requested
    try:
        return parse_scope(text) if isinstance(text, str) else wanted
    except InvalidScope:
        raise _malformed("has a malformed scope") from None


def _malformed(what: str) -> Refused:
    return Refused(f"the issuer's answer {what}", error=None, retryable=True)
