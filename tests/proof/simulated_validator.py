"""
One validator in the simulation: the library's source, its conversation and its state file, and its validator. The
thread that drives a source is replaced by a coroutine; everything that decides is the library's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.proof.history import Result
from tests.proof.simulated_service import SKEW_SECONDS, FixedKeys
from tokenry.errors import InvalidToken, ValidatorNotReady
from tokenry.http.fetch import FetchFailed
from tokenry.http.poller import Moment, Wait
from tokenry.sources.revocations import RevocationSource
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import RevokedToken

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.proof.parts import Parts
    from tests.proof.virtual_time import SkewedClock
    from tokenry.http.fetch import Request, Response
    from tokenry.jose.jwks import KeySet
    from tokenry.revocation.lists import RevocationList
    from tokenry.sources.revocation_conversation import RevocationConversation
    from tokenry.token_validator import TokenValidator
    from tokenry.validation.snapshots import Snapshot


class SimulatedSource(RevocationSource):
    """The library's source with a conversation of the simulation's choice, whose jitter follows the seed."""

    def __init__(self, *, conversation: type[RevocationConversation], uniform: random.Random, **options: Any) -> None:
        super().__init__("https://revocation.example/revocations", **options)
        self._conversation = conversation(
            root=lambda: "https://revocation.example/revocations",
            instance=f"{options['name']}/0",
            reporter=self._reporter,
            skew=self._skew,
            max_entries=self._max_entries,
            keeper=self._state,
            uniform=uniform,
        )


class SimulatedValidator:
    """
    One validating process; `start` and `kill` as often as wanted.

    Attributes:
        name: For histories, the same for ever.
        run: Which of its lives this is.
        clock: Its clock.
        keeps: Whether it has a state folder.
    """

    def __init__(
        self,
        name: str,
        *,
        parts: Parts,
        keys: KeySet,
        issuer: str,
        others: tuple[str, ...],
        max_token_lifetime: int,
        clock: SkewedClock,
        fetch: Callable[[SimulatedValidator, Request], Awaitable[Response]],
        folder: Path | None,
        uniform: random.Random,
    ) -> None:
        self.name = name
        self.run = 0
        self.clock = clock
        self._parts = parts
        self._keys = keys
        self._fetch = fetch
        self._folder = folder
        self._uniform = uniform
        ours = TrustedIssuer(issuer=issuer, max_token_lifetime=max_token_lifetime)
        foreign = [TrustedIssuer(issuer=each, max_token_lifetime=max_token_lifetime, foreign=True) for each in others]
        self._policy = ValidationPolicy(
            issuers=(ours, *foreign),
            audience=ANY_AUDIENCE,
            list_warn_age=parts.refuse_age,
            list_refuse_age=parts.refuse_age,
        )
        self._reader: asyncio.Task[None] | None = None
        self._source: Any = None
        self._validator: TokenValidator | None = None

    @property
    def keeps(self) -> bool:
        return self._folder is not None

    @property
    def memory(self) -> str:
        """What it may remember: with a state folder, everything of all its lives."""
        return self.name if self.keeps else f"{self.name}#{self.run}"

    @property
    def running(self) -> bool:
        return self._reader is not None

    def fault(self) -> BaseException | None:
        """Return the defect that ended its reader, if one did."""
        done = self._reader is not None and self._reader.done() and not self._reader.cancelled()
        return self._reader.exception() if done and self._reader is not None else None

    def start(self) -> None:
        """Start with what is on disk."""
        self.run += 1
        self._source = SimulatedSource(
            conversation=self._parts.conversation,
            uniform=self._uniform,
            name=self.name,
            state_folder=self._folder,
            state_key="simulation",
            skew_seconds=SKEW_SECONDS,
            refuse_age_seconds=self._parts.refuse_age,
            clock=self.clock,
        )
        self._source._load_once()
        self._validator = self._parts.validator.from_sources(
            self._policy, keys=FixedKeys(self._keys, self.clock), revocations=self, clock=self.clock
        )
        self._reader = asyncio.get_running_loop().create_task(self._read(self._source._conversation))

    def kill(self) -> None:
        """End it where it is."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        state = self._source._state
        if state is not None:
            state.close()  # as the kernel does with the lock of a dead process

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self, conversation: Any) -> None:
        while True:
            started = Moment.of(self.clock)
            step = conversation.next_request(started)
            if isinstance(step, Wait):
                await asyncio.sleep(max(0.001, step.seconds))
                continue
            try:
                response = await self._fetch(self, step)
            except FetchFailed as failure:
                conversation.on_failure(failure, started=started, at=Moment.of(self.clock))
            else:
                conversation.on_response(response, started=started, at=Moment.of(self.clock))

    def snapshot(self) -> Snapshot[RevocationList] | None:
        """Return the list to judge by; the validator's own source."""
        held: Snapshot[RevocationList] | None = self._source._conversation.snapshot
        return self._parts.judged_by(held, self.clock.now(), self.clock.monotonic())

    def stop(self) -> None:
        """Nothing: the simulation ends what it started."""

    # --- judging ------------------------------------------------------------------------------------------------

    def judge(self, text: str) -> tuple[Result, int | None, float | None]:
        """Return what it says of a token, with epoch and time of the list that it judged by."""
        assert self._validator is not None
        snapshot = self.snapshot()
        epoch = None if snapshot is None else snapshot.value.epoch
        as_of = None if snapshot is None else snapshot.as_of
        try:
            self._validator.validate(text)
        except RevokedToken:
            return Result.REVOKED, epoch, as_of
        except InvalidToken:
            return Result.INVALID, epoch, as_of
        except ValidatorNotReady:
            return Result.UNAVAILABLE, epoch, as_of
        return Result.ACCEPT, epoch, as_of
