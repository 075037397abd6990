"""
The issuer's own token for reading a revocation list that is not open, and for its reports: it gives it to itself.

A key that was revoked while this process was not there signs tokens that the revocation service refuses, and only the
list that is behind that refusal would say so. So a token that was refused is followed by one of another published
key: there is always a standby.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from tokenry.client.access_token import AccessToken
from tokenry.errors import TokenFetchError
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import BadSignature
from tokenry_issuer import minting
from tokenry_registry.key_management import KeyManagementUnavailable

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry_issuer.keyring import Keyring

LIFETIME = 300  # seconds
RENEW_BEFORE = 60  # seconds before its end
NAME = "tokenry-issuer"  # sub and client_id; such a token has no realm, so it is never taken for a realm's client


class ListBearer:
    """Gives the reader of the list its token. Called from that reader's thread."""

    def __init__(self, scope: str | None) -> None:
        """Give tokens with *scope*, or with none, once `sign_with` has said how."""
        self._scope = scope
        self._keyring: Keyring | None = None
        self._clock: Clock | None = None
        self._issuer = ""
        self._held: tuple[AccessToken, str] | None = None
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def sign_with(self, keyring: Keyring, *, issuer: str, clock: Clock) -> None:
        """Sign by the keys of *keyring* as *issuer*."""
        self._keyring, self._issuer, self._clock = keyring, issuer, clock

    def get(self) -> AccessToken:
        """
        Return a token that is good now.

        Raises:
            TokenFetchError: There is no key yet.
        """
        keyring, clock = self._keyring, self._clock
        if keyring is None or clock is None:
            raise TokenFetchError("the issuer has no keys yet")
        with self._lock:
            now = clock.now()
            if self._held is None or self._held[0].expires_at - RENEW_BEFORE <= now:
                self._held = self._sign(keyring, now)
            return self._held[0]

    def invalidate(self, token: Any = None) -> bool:  # noqa: ANN401 -- of the port's own type
        """Take the next key: the revocation service refused what this one signed."""
        with self._lock:
            if self._held is None or (token is not None and token is not self._held[0]):
                return False
            self._refused.add(self._held[1])
            self._held = None
            return True

    def _sign(self, keyring: Keyring, now: float) -> tuple[AccessToken, str]:
        keys = keyring.signers(lifetime=LIFETIME)
        if not keys:
            raise TokenFetchError("the issuer has no keys yet")
        fresh = [key for key in keys if key.times.kid not in self._refused]
        if not fresh:  # each was refused once: it was not the keys
            self._refused.clear()
            fresh = list(keys)
        key, issued_at = fresh[0], int(now)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": NAME,
            "aud": self._issuer,
            "client_id": NAME,
            "azp": NAME,
            "exp": issued_at + LIFETIME,
            "iat": issued_at,
            "jti": minting.new_jti(secrets.token_bytes(minting.JTI_BYTES)),
        }
        if self._scope is not None:
            claims["scope"] = self._scope
        try:
            value = jws.sign({"typ": "at+jwt"}, dump_json(claims), key.private)
        except (KeyManagementUnavailable, BadSignature) as error:
            raise TokenFetchError(f"the issuer cannot sign: {error}") from None
        return AccessToken(value=value, expires_at=claims["exp"]), key.times.kid
