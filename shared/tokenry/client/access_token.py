"""An access token in the hands of a client, for whom it is opaque (RFC 6749 section 1.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tokenry.scope import NO_SCOPE

if TYPE_CHECKING:
    from tokenry.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """
    A token to send.

    Attributes:
        value: The token; only to be put into an `Authorization` header.
        expires_at: Unix seconds from which it is dead; infinite where nobody said.
        scope: Granted scopes, as far as known.
        prover: Has the key that the token is bound to, and makes a proof for each request; None for a bearer token.
    """

    value: str = field(repr=False)
    expires_at: float
    scope: Scope = NO_SCOPE
    prover: Prover | None = field(default=None, repr=False, compare=False)

    def authorization(self) -> str:
        """Return the value of the `Authorization` header (RFC 6750 section 2.1, RFC 9449 section 7.1)."""
        return f"Bearer {self.value}" if self.prover is None else f"DPoP {self.value}"

    def headers(self, method: str, url: str) -> dict[str, str]:
        """
        Return the header fields for one request: `Authorization`, and `DPoP` for a token that is bound to a key.

        Args:
            method: HTTP method.
            url: The request's URL.

        Raises:
            ProtocolError: The token is bound to a key, and the URL is not one of HTTP.
        """
        fields = {"Authorization": self.authorization()}
        if self.prover is not None:
            fields["DPoP"] = self.prover.prove(method, url, token=self.value)
        return fields

    def learn(self, url: str, nonce: str | None) -> None:
        """Remember the `DPoP-Nonce` of an answer from *url*, if there is one, for the next proof."""
        if self.prover is not None and nonce is not None:
            self.prover.learn(url, nonce)


class Prover(Protocol):
    """Who has the key that tokens are bound to (RFC 9449)."""

    def prove(self, method: str, url: str, *, token: str | None = None) -> str:
        """Return a proof for one request, which is good once."""
        ...

    def learn(self, url: str, nonce: str) -> None:
        """Put *nonce* into the next proofs for the server of *url* (RFC 9449 section 8)."""
        ...


class TokenSource(Protocol):
    """Where a client takes its tokens from. Whoever needs one asks at each use, and keeps none."""

    def get(self) -> AccessToken:
        """
        Return a token that is good now; waits only when there is none (for threads).

        Raises:
            TokenFetchError: None could be had.
        """
        ...

    async def aget(self) -> AccessToken:
        """Do as `get` does, for asyncio."""
        ...

    def invalidate(self, token: AccessToken | str | None = None) -> bool:
        """
        Drop *token*, or whichever is held, because a service refused it.

        Returns:
            Whether the next `get` may give another one.
        """
        ...
