"""The revocation request of a client for its own token (RFC 7009 section 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.secret import Secret

if TYPE_CHECKING:
    from tokenry.oauth.form import Form


def parse_revocation_request(form: Form) -> Secret:
    """
    Return the token to revoke; an unknown `token_type_hint` is ignored (RFC 7009 section 2.1).

    Raises:
        OAuthError: `invalid_request`: `token` is missing, or a parameter is repeated.
    """
    form.one("token_type_hint")
    return Secret(form.required("token"))
