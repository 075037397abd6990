"""The bearer token in a request (RFC 6750 section 2), and what a challenge says about it (section 3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenry.oauth.errors import invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SCHEME = "Bearer "
_BEFORE_TOKEN = len(_SCHEME)
# RFC 9110 section 11.2: name=value, the value a token or a quoted string.
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def bearer_token(authorization: Sequence[str], *, form: Sequence[str] = (), query: Sequence[str] = ()) -> str | None:
    """
    Return the bearer token as received, or None when the request carries none.

    What stands behind the scheme and one space is the token, whatever it is: the validator refuses what is none.

    Args:
        authorization: Every value of the `Authorization` header field.
        form: Every non-empty value of `access_token` in a form body, where the endpoint takes it from there.
        query: The same in the query string.

    Raises:
        OAuthError: `invalid_request`: the header field was sent twice, or the token by more than one method
            (RFC 6750 section 2).
    """
    if len(authorization) > 1:
        message = "the Authorization header was sent more than once"
        raise invalid_request(message)
    in_header = None
    if authorization:
        value = authorization[0]
        # As nearly all write it.
        in_header = value[_BEFORE_TOKEN:] or None if value.startswith(_SCHEME) else _from_header(value)
    if not form and not query:  # nearly all
        return in_header
    found = [*form, *query] if in_header is None else [in_header, *form, *query]
    if len(found) > 1:
        message = "send the access token once and in one place"
        raise invalid_request(message)
    return found[0] if found else None


def _from_header(value: str) -> str | None:
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    return token


def token_was_refused(challenges: Iterable[str]) -> bool:
    """Tell whether a 401 with *challenges* (values of `WWW-Authenticate`) was about the token itself (section 3.1)."""
    return any(map(_is_about_the_token, challenges))


def nonce_is_wanted(challenges: Iterable[str]) -> bool:
    """Tell whether a 401 with *challenges* asks for the same request with a nonce in its proof (RFC 9449 section 9)."""
    return any(_has_error(challenge, {"dpop"}, "use_dpop_nonce") for challenge in challenges)


def _is_about_the_token(challenge: str) -> bool:
    return _has_error(challenge, {"bearer", "dpop"}, "invalid_token")


def _has_error(challenge: str, schemes: set[str], error: str) -> bool:
    found = _PARAMETER.sub(" ", challenge).replace(",", " ").lower().split()
    parameters = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(challenge)}
    return not schemes.isdisjoint(found) and parameters.get("error") == error
