"""
Decisions over token requests, remembered for as long as the same request would be decided alike.

A service asks for its next token with the same bytes as for its last one. What they decide (who asks, by which secret,
for which scopes and audience) follows from the bytes, from the credentials in force and from the time; so it is not
worked out again within a minute.

Invariants:
    * Only granted requests are remembered, by a keyed hash of all that was sent: no secret is kept, and nobody without
      one can put anything here.
    * A decision is used with the very credentials that it was made by: with their next version all are forgotten.
    * It ends with the first secret of its client that does, and when a slow check of the secret is due again.
    * Limits on failures, the revocation list and the keys are not remembered: whoever uses a decision asks them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry.oauth.token_endpoint import TokenResponse
from tokenry.revocation.judged import JudgedToken
from tokenry.secret import Secret
from tokenry.serving.access_log import RepeatedRecord
from tokenry_issuer.minting import ClaimsTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenry_issuer.authentication import SecretProof
    from tokenry_issuer.grants import Grant
    from tokenry_issuer.registry import Registry

MAX_DECISIONS: Final = 10_000  # some 25 MB; the oldest goes first
REMEMBER_SECONDS: Final = 60.0
MAX_REQUEST_BYTES: Final = 4096  # of what is hashed; a request for a token has some 300
KEY_BYTES: Final = 32

_BEFORE_TOKEN: Final = b'{"access_token":"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    A granted request, up to the moment and the id of its token.

    Attributes:
        grant: What was decided.
        proof: The secret that proved the client.
        claims: The claims of its tokens.
        judged: What revocations judge of them.
        record: The audit record of their issue; lacks the caller's address and what is the token's own.
        after_token: The body of the answer behind the token.
        until: Monotonic seconds.
    """

    grant: Grant
    proof: SecretProof
    claims: ClaimsTemplate
    judged: JudgedToken
    record: RepeatedRecord
    after_token: bytes
    until: float

    def body(self, token: str) -> bytes:
        """Return the body of the answer with *token* (RFC 6749 section 5.1)."""
        return b"%b%b%b" % (_BEFORE_TOKEN, token.encode("ascii"), self.after_token)


def decision(
    grant: Grant,
    *,
    issuer: str,
    proof: SecretProof,
    response: TokenResponse,
    record: Mapping[str, object],
    monotonic: float,
) -> Decision:
    """
    Return what is to be remembered.

    Args:
        grant: What was decided.
        issuer: The issuer identifier.
        proof: The secret that proved the client.
        response: The answer.
        record: The members of its audit record that the next one will share.
        monotonic: Monotonic seconds.

    Raises:
        ValueError: Its tokens depend on more than the moment: they are exchanged.
    """
    claims = ClaimsTemplate(grant, issuer=issuer)
    body = TokenResponse(
        access_token=Secret(""),
        expires_in=response.expires_in,
        scope=response.scope,
        realm=response.realm,
        token_type=response.token_type,
    ).to_json()
    return Decision(
        grant=grant,
        proof=proof,
        claims=claims,
        # A fresh random id cannot have been revoked; rules, and keys, can.
        judged=JudgedToken(iss=issuer, jti=None, kid="", iat=0, claims=claims.steady, signing_input=""),
        record=RepeatedRecord("token_issued", record),
        after_token=body.removeprefix(_BEFORE_TOKEN),
        until=min(monotonic + REMEMBER_SECONDS, proof.check_at),
    )


class Decisions:
    """The decisions of one process."""

    def __init__(self, key: bytes, *, max_decisions: int = MAX_DECISIONS) -> None:
        """
        Remember none yet.

        Args:
            key: `KEY_BYTES` random bytes of this process.
            max_decisions: How many are kept at most.
        """
        self._hash = hashlib.blake2b(key=key, digest_size=32)
        self._max = max_decisions
        self._registry: Registry | None = None
        self._decisions: dict[bytes, Decision] = {}

    def __len__(self) -> int:
        return len(self._decisions)

    def identity(self, authorization: Sequence[str], host: str | None, body: bytes) -> bytes | None:
        """
        Return what a request is recognised by when it comes again, or None for one that is not remembered.

        Args:
            authorization: Every `Authorization` header field.
            host: The `Host` header field: it may tell the realm.
            body: The form.
        """
        if len(authorization) > 1:
            return None
        fields = f"{authorization[0] if authorization else ''}\n{host or ''}\n"
        # No field has a line end in it, so nothing can be moved from one part into another.
        if len(fields) + len(body) > MAX_REQUEST_BYTES or fields.count("\n") != 2:  # noqa: PLR2004 -- those above
            return None
        keyed = self._hash.copy()
        keyed.update(fields.encode("utf-8", "surrogatepass"))
        keyed.update(body)
        return keyed.digest()

    def keep(self, identity: bytes, decided: Decision, *, registry: Registry) -> None:
        """Remember what was *decided* by *registry*."""
        if registry is not self._registry:
            self._decisions.clear()
            self._registry = registry
        self._decisions.pop(identity, None)
        self._decisions[identity] = decided
        if len(self._decisions) > self._max:
            del self._decisions[next(iter(self._decisions))]

    def get(self, identity: bytes, *, registry: Registry | None, now: float, monotonic: float) -> Decision | None:
        """
        Return what was decided over the same request, if it would be decided alike now.

        Args:
            identity: Of the request.
            registry: The credentials in force.
            now: Unix seconds.
            monotonic: Monotonic seconds.
        """
        if registry is not self._registry:
            self._decisions.clear()
            self._registry = None  # the former credentials may go
            return None
        decided = self._decisions.get(identity)
        if decided is None:
            return None
        if monotonic >= decided.until or not decided.proof.holds(now):
            del self._decisions[identity]
            return None
        return decided
