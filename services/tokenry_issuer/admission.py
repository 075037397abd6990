"""Attempts to authenticate, of whatever kind: delayed or refused before they are judged, and counted after."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tokenry.oauth.errors import too_many_failures
from tokenry_issuer.attempts import TooManyFailures

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenry.clock import Clock
    from tokenry_issuer.attempts import Attempts, Delay, Subject


class Admission:
    """The limits on attempts, joined to a clock: one for all ways to authenticate, so that none is a way around."""

    def __init__(
        self,
        attempts: Attempts,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Count in *attempts*; delay by *sleep*."""
        self._attempts = attempts
        self._clock = clock
        self._sleep = sleep

    async def admit(self, subject: Subject, address: str) -> float:
        """
        Return when an attempt of *subject* from *address* may be judged: the seconds that `failed` has to wait.

        Raises:
            OAuthError: 429 after too many failures, be they those of the attempts that were delayed meanwhile.
        """
        delay = self._admit(subject, address)
        if delay.before > 0:
            await self._sleep(delay.before)
            self._admit(subject, address)
        return delay.of_failure

    def _admit(self, subject: Subject, address: str) -> Delay:
        try:
            return self._attempts.admit(subject, address, now=self._clock.monotonic())
        except TooManyFailures as refused:
            raise too_many_failures(retry_after=refused.retry_after) from None

    @property
    def is_calm(self) -> bool:
        """Tell whether no attempt has to be delayed now."""
        return not self._attempts.delaying(self._clock.monotonic())

    async def failed(self, subject: Subject, address: str, *, delay: float) -> None:
        """
        Count a failure, then wait.

        Args:
            subject: Whose failure.
            address: From where.
            delay: What `admit` returned.
        """
        self._attempts.failed(subject, address, now=self._clock.monotonic())
        if delay > 0:
            await self._sleep(delay)

    def succeeds_at_once(self, subject: Subject, address: str) -> bool:
        """Count a success whose judgement is known, or tell that the attempt is to be delayed or refused."""
        now = self._clock.monotonic()
        try:
            if self._attempts.admit(subject, address, now=now).before > 0:
                return False
        except TooManyFailures:
            return False
        self._attempts.succeeded(subject, address, now=now)
        return True

    def succeeded(self, subject: Subject, address: str) -> None:
        """Count a success."""
        self._attempts.succeeded(subject, address, now=self._clock.monotonic())
