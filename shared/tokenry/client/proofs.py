"""The key of a source of tokens, and the proofs that it signs: one for each request (DPoP, RFC 9449)."""

from __future__ import annotations

import re
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final

from tokenry.jose.jwk import PrivateKey
from tokenry.oauth.dpop import make_proof, origin_of

if TYPE_CHECKING:
    from tokenry.clock import Clock

MAX_SERVERS: Final = 64  # whose nonces are remembered
_JTI_BYTES: Final = 16
_NONCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")  # RFC 9449 section 8.1


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
        self._nonces: dict[str, str] = {}
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
        return make_proof(
            self._key,
            method=method,
            url=url,
            now=self._clock.now(),
            jti=token_urlsafe(_JTI_BYTES),
            token=token,
            nonce=self._nonces.get(origin_of(url)),
        )

    def learn(self, url: str, nonce: str) -> None:
        """Put *nonce* into the next proofs for the server of *url*; what cannot be one is left out."""
        if not _NONCE.fullmatch(nonce):
            return
        origin = origin_of(url)
        if origin not in self._nonces and len(self._nonces) >= MAX_SERVERS:
            self._nonces.clear()  # they are given again with the next refusal
        self._nonces[origin] = nonce

    def __repr__(self) -> str:
        """Name the key, and nothing of its secret."""
        return f"ProofKey(jkt={self.jkt!r})"
