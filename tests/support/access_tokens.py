"""Access tokens, good ones and changed ones, of an issuer whose key lies here."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """
    What it takes to make tokens of an issuer, well-formed or not, with its own signature.

    Attributes:
        issuer: The issuer identifier.
        audience: Whom good tokens are for.
        key: The issuer's signing key.
        now: When good tokens are issued, Unix seconds.
        lifetime: How long good ones live: the longest that the issuer's validators allow.
        client: Subject and client of good ones.
        jti: The id of good ones.
    """

    issuer: str
    audience: str
    key: PrivateKey
    now: int
    lifetime: int
    client: str = "stock"
    jti: str = "MTIzNDU2Nzg5MGFiY2RlZg"

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token with *changes*."""
        good = {
            "iss": self.issuer,
            "sub": self.client,
            "aud": self.audience,
            "client_id": self.client,
            "azp": self.client,
            "exp": self.now + self.lifetime,
            "iat": self.now,
            "jti": self.jti,
            "scope": "orders.read orders.write",
            "realm": "/services",
        }
        return changed(good, changes)

    def header(self, key: PrivateKey | None = None, **changes: Any) -> dict[str, Any]:
        """Return the header of a good token with *changes*."""
        return changed({"alg": "ES256", "kid": (key or self.key).kid, "typ": "at+jwt"}, changes)

    def signed(self, header_bytes: bytes, payload: bytes, *, key: PrivateKey | None = None) -> str:
        """Return the two signed with *key*, whatever the header says."""
        signing_input = f"{b64url_encode(header_bytes)}.{b64url_encode(payload)}"
        return f"{signing_input}.{b64url_encode((key or self.key).sign(signing_input.encode()))}"

    def token(self, *, key: PrivateKey | None = None, head: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return a token with changed claims, and with *head* changed in its header, signed with *key*."""
        if head is None:
            return jws.sign({"typ": "at+jwt"}, dump_json(self.claims(**changes)), key or self.key)
        return self.signed(dump_json(self.header(key, **head)), dump_json(self.claims(**changes)), key=key)


FORGE: Final = Forge(issuer=ISSUER, audience=AUDIENCE, key=KEY, now=NOW, lifetime=LIFETIME)
"""The one whose tokens most tests use."""

claims, header, signed, token = FORGE.claims, FORGE.header, FORGE.signed, FORGE.token
