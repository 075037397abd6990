"""What to do about the issuer's refusals (RFC 6749 section 5.2, and Plan B's): for errors and for `tokenry doctor`."""

from __future__ import annotations

from typing import Final

ADVICE: Final = {
    "invalid_client": "check client id and secret: was one rotated and not brought here (tokenry credentials sync)?",
    "invalid_dpop_proof": "check this machine's clock, and whether the client object demands dpop=True",
    "invalid_grant": "renew user.json: its user or password is wrong",
    "invalid_scope": "ask for scopes that the client has, or have them added to it",
    "invalid_target": "ask for an audience that the client may ask for",
    "missing_realm": "set TOKENRY_REALM: the issuer has several",
    "realm_not_found": "check TOKENRY_REALM",
    "unauthorized_client": "the client may not use this grant: add it to its grant_types",
    "unsupported_grant_type": "the realm does not allow this grant: use client_credentials",
}
"""By error code; docs/library/errors.md has more about each."""


def advice_on(error: str | None) -> str | None:
    """Return what to do about *error*, if something is."""
    return ADVICE.get(error or "")
