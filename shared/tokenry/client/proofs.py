"""The key of a source of tokens, and the proofs that it signs: one for each request (DPoP, RFC 9449)."""

from __future__ import annotations

from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final

from tokenry.jose.jwk import PrivateKey
from tokenry.oauth.dpop import make_proof

if TYPE_CHECKING:
    from tokenry.clock import Clock

_JTI_BYTES: Final = 16


class ProofKey:
    """
    A key that stays in this process.

    Args:
        clock: Where the time comes from.
        key: The key; default: a new one.
    """

    def __init__(self, clock: Clock, key: PrivateKey | None = None) -> None:
        """Make a key where none is given."""
        self._clock = clock
        self._key = key or PrivateKey.generate()

    @property
    def jkt(self) -> str:
        """Thumbprint of the key, as the tokens name it."""
        return self._key.kid

    def prove(self, method: str, url: str, *, token: str | None = None) -> str:
        """
        Return a proof for one request (RFC 9449 section 4.2).

        Raises:
            ProtocolError: The URL is not one of HTTP.
        """
        jti = token_urlsafe(_JTI_BYTES)
        return make_proof(self._key, method=method, url=url, now=self._clock.now(), jti=jti, token=token)

    def __repr__(self) -> str:
        """Name the key, and nothing of its secret."""
        return f"ProofKey(jkt={self.jkt!r})"
