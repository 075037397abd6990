"""
Binding tokens to a key of their client (DPoP, RFC 9449 section 5): for clients that ask for it in their object.

A client that does not ask for it gets bearer tokens, whatever it sends. Nonces (section 8) are not asked for: proofs
are good for a minute, once in each process, and a stolen one is of no use without the client's secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.oauth.dpop import BadProof, MemoryFull, SeenProofs, read_proof, target
from tokenry.oauth.errors import OAuthError, temporarily_unavailable
from tokenry_registry.realms import ProofOfKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenry.clock import Clock
    from tokenry_registry.realms import Client


class ProofReader:
    """
    Reads the proofs in token requests.

    Args:
        endpoints: The URLs of the token endpoint.
        clock: Where the time comes from.
        seen: Which proofs were used.
    """

    def __init__(self, endpoints: Iterable[str], *, clock: Clock, seen: SeenProofs | None = None) -> None:
        """Remember no proof yet."""
        self._endpoints = frozenset(map(target, endpoints))
        self._clock = clock
        self._seen = seen or SeenProofs()

    def key_of(self, client: Client, proofs: Sequence[str]) -> str | None:
        """
        Return the thumbprint of the key that a token of *client* is bound to, or None.

        Args:
            client: Authenticated.
            proofs: Every value of the request's header field `DPoP`.

        Raises:
            OAuthError: `invalid_dpop_proof`: there is none where one is demanded, or it is not good, or was used.
        """
        if client.dpop is None or (not proofs and client.dpop is ProofOfKey.OPTIONAL):
            return None
        if not proofs:
            raise _refused("tokens of this client are bound to a key: send a DPoP proof")
        now = self._clock.now()
        try:
            proof = read_proof(proofs, method="POST", is_target=self._endpoints.__contains__, now=now)
            self._seen.use(proof, now=now)
        except BadProof as error:
            raise _refused("the DPoP proof is not valid, or was used before") from error
        except MemoryFull as error:
            raise temporarily_unavailable("proofs cannot be remembered now", retry_after=1) from error
        return proof.jkt


def _refused(description: str) -> OAuthError:
    return OAuthError("invalid_dpop_proof", description)
