"""Taking the bearer token out of a request (RFC 6750 section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.oauth.errors import invalid_request

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    in_header = _from_header(authorization[0]) if authorization else None
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
