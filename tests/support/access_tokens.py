"""Access tokens, good ones and changed ones, of an issuer whose key lies here."""

from __future__ import annotations

from typing import Any, Final

from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "https://orders.example"
NOW: Final = 1_800_000_000
LIFETIME: Final = 3600
KEY: Final = PrivateKey.generate()
KEYS: Final = KeySet.of(ISSUER, [KEY.public])

ABSENT: Final = object()
"""Given as a value: leave the member out."""


def changed(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return *members* with *changes*, without those that are `ABSENT` there."""
    return {name: value for name, value in (members | changes).items() if value is not ABSENT}


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token with *changes*."""
    good = {
        "iss": ISSUER,
        "sub": "stock",
        "aud": AUDIENCE,
        "client_id": "stock",
        "azp": "stock",
        "exp": NOW + LIFETIME,
        "iat": NOW,
        "jti": "MTIzNDU2Nzg5MGFiY2RlZg",
        "scope": "orders.read orders.write",
        "realm": "/services",
    }
    return changed(good, changes)


def header(key: PrivateKey = KEY, **changes: Any) -> dict[str, Any]:
    """Return the header of a good token with *changes*."""
    return changed({"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}, changes)


def signed(header_bytes: bytes, payload: bytes, *, key: PrivateKey = KEY) -> str:
    """Return the two signed with *key*, whatever the header says."""
    signing_input = f"{b64url_encode(header_bytes)}.{b64url_encode(payload)}"
    return f"{signing_input}.{b64url_encode(key.sign(signing_input.encode()))}"


def token(*, key: PrivateKey = KEY, head: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token with changed claims, and with *head* changed in its header, signed with *key*."""
    if head is None:
        return jws.sign({"typ": "at+jwt"}, dump_json(claims(**changes)), key)
    return signed(dump_json(header(key, **head)), dump_json(claims(**changes)), key=key)
