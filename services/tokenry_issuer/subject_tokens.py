"""
Judging the tokens that are to be exchanged: as every validator does, and by a list that is nearly of this moment.

A token that has just been revoked must not live on in another that is made from it, so a list older than a few
seconds is none (the validators' own bound is a matter of minutes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenry.errors import InvalidToken, ValidatorNotReady
from tokenry.oauth.errors import invalid_request, temporarily_unavailable
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import ANY_CONFIRMATION, Validator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenry.claims import TokenInfo
    from tokenry.clock import Clock
    from tokenry.secret import Secret
    from tokenry_issuer.keyring import Keyring
    from tokenry_issuer.revocations import Revocations

MAX_LIST_AGE = 5.0  # seconds
NEXT_ANSWER = 1.5  # seconds within which a service that is well answers the reader's next request
WAITS = 30  # looks at whether it did
REMEMBERED = 2_000  # tokens; each is exchanged a few times at most


class SubjectTokens:
    """Judges subject tokens."""

    def __init__(
        self,
        *,
        issuer: str,
        max_token_lifetime: int,
        keyring: Keyring,
        revocations: Revocations,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Judge tokens of *issuer*, verified with the keys of *keyring*, by *revocations*; wait by *sleep*."""
        self._sleep = sleep
        self._keyring = keyring
        self._revocations = revocations
        self._clock = clock
        # Which audience it has to have is the client's policy; of our keys nothing but access tokens is signed, so
        # that a realm's `JWT` is as good as `at+jwt`.
        ours = TrustedIssuer(issuer=issuer, max_token_lifetime=max_token_lifetime, accept_untyped=True)
        policy = ValidationPolicy(
            issuers=(ours,), audience=ANY_AUDIENCE, list_warn_age=MAX_LIST_AGE, list_refuse_age=MAX_LIST_AGE
        )
        self._validator = Validator(policy, remembered=REMEMBERED)

    async def judge(self, token: Secret) -> TokenInfo:
        """
        Return what the subject token says, if it may be acted upon now.

        Between two answers of the revocation service the list may be a moment too old: the next one is waited for.

        A token that is bound to a certificate is that of whoever sent it to the client, who has compared it.

        Raises:
            OAuthError: `invalid_request`: it may not (RFC 8693 section 2.2.2). 503: it cannot be told.
        """
        age = await self._list_age()
        try:
            return self._validator.validate(
                token.reveal(),
                now=self._clock.now(),
                keys=self._keyring.verifying(),
                revocations=self._revocations.current(),
                list_age=MAX_LIST_AGE + 1 if age is None else age,
                confirmation=ANY_CONFIRMATION,
            )
        except InvalidToken as error:
            raise invalid_request("the subject token is not valid") from error
        except ValidatorNotReady as error:
            raise temporarily_unavailable("tokens cannot be judged now", retry_after=1) from error

    async def _list_age(self) -> float | None:
        for _ in range(WAITS):
            age = self._revocations.age()
            if age is None or not MAX_LIST_AGE < age < MAX_LIST_AGE + NEXT_ANSWER:
                return age
            await self._sleep(NEXT_ANSWER / WAITS)
        return self._revocations.age()
