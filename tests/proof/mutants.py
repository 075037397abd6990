"""
Platforms with one defect each. The checker is believed only as long as it finds every one of them.

Each is a real defect that a system of this kind has had, or might have tomorrow, and each is made by replacing one
part of `Parts`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tests.proof.parts import PRODUCT, REFUSE_SECONDS, Parts
from tests.proof.simulation import LIFETIME
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.lists import RevocationList
from tokenry.sources.revocation_conversation import RevocationConversation
from tokenry.token_validator import TokenValidator
from tokenry.validation.memory import VerifiedToken
from tokenry.validation.snapshots import Snapshot
from tokenry.validation.validator import Validator
from tokenry_revocation.acceptance import Acceptance, Outcome
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.cassandra_schema import StoreDescription
from tokenry_revocation.feed import Feed
from tokenry_revocation.handlers import Revocations
from tokenry_revocation.ports import Batch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.proof.parts import SnapshotOfList
    from tokenry.http.fetch import Response
    from tokenry.http.poller import Moment
    from tokenry.jose.jwks import KeySet
    from tokenry.revocation.rules import Hit
    from tokenry_revocation.presented_token import PresentedToken
    from tokenry_revocation.records import Record
    from tokenry_revocation.requests import TokenTarget

# --- the store ------------------------------------------------------------------------------------------------------


class BucketOfTheOwnClock(CassandraStore):
    """Reads the bucket that its own wall clock names, and no other."""

    async def _read_from(self, since: int, *, now: int | None) -> Any:
        current = self._bucket(int(self._clock.now() * 1000))
        return await self._read_buckets([current], since=max(0, since))

    async def pages(self) -> AsyncGenerator[Batch, None]:
        current = self._bucket(int(self._clock.now() * 1000))
        async for batch in super().pages():
            here = tuple(each for each in batch.records if self._bucket(each.position) == current)
            yield replace(batch, records=here)


class PlacedByTheOwnClock(CassandraStore):
    """Stamps a row, and so places it, by the writer's own wall clock; one service is 90 s slow."""

    async def _in_time(self, write: Any) -> int:
        stamp = int(self._clock.now() * 1000)
        await write(stamp)
        return stamp


class NoOverlap(CassandraStore):
    """Reads on from exactly where it was; a write that took its time lies below."""

    @property
    def overlap(self) -> int:
        return 0


class LateIsGoodEnough(NoOverlap):
    """Reads on without overlap, and acknowledges however late the store confirmed."""


class PositionOfAWrongMiddle(CassandraStore):
    """Takes the middle of clocks that disagree for the time (found in this very product by the simulation)."""

    async def read(self, after: int | None) -> Batch:
        now = self._store_clock.now_ms()
        batch = await super().read(after)
        return replace(batch, position=max(now, batch.position))


class ForgottenEarly(StoreDescription):
    """Rows live for half as long as a token."""

    @property
    def ttl_seconds(self) -> int:
        return LIFETIME // 2


# --- the service ----------------------------------------------------------------------------------------------------


class AcknowledgesTheUnknown(Acceptance):
    """Answers 201 although the store did not confirm."""

    async def _write(self, record: Record, known: bool) -> Outcome:
        try:
            return await super()._write(record, known)
        except StoreUnavailable:
            return Outcome(record=record, created=True)


class PublishesFirst(Acceptance):
    """Publishes what the store may never have heard of: half in force, and gone with the process."""

    async def _write(self, record: Record, known: bool) -> Outcome:
        self._feed.add(record)
        return await super()._write(record, known)


class CompleteUpToTheEnd(Feed):
    """Takes the time at the end of a read for the moment up to which it is complete."""

    def _succeeded(self, began: Any) -> None:
        super()._succeeded(type(began)(self._clock.now(), self._clock.monotonic()))


class NoMargin(Feed):
    """Calls a list complete up to its own wall clock, without the bound on the skew."""

    @property
    def as_of(self) -> float:
        return super().as_of + 2 * self._skew


class FreshThoughUnread(Feed):
    """Goes on calling its list fresh while the store does not answer."""

    def _failed(self, fault: str, *, error: str = "") -> None:
        super()._failed(fault, error=error)
        if self._last_read is not None:
            self._last_read = type(self._last_read)(self._clock.now(), self._clock.monotonic())


class PublishesOnlyTheLastRead(Feed):
    """Replaces what it publishes by what it reads, every few seconds: no union."""

    _reads = 0

    async def _take(self, *, sweep: bool, now: float) -> None:
        self._reads += 1
        if self._publication is not None and self._reads % 10 == 0:
            sweep, self._publication = True, None
            await self._begin()
        await super()._take(sweep=sweep, now=now)


class CursorWithoutOverlap(Feed):
    """Gives readers cursors that take the read position for the end of all news."""

    async def _begin(self) -> None:
        await super()._begin()
        if self._publication is not None:
            self._publication._overlap = 0


class RevokesTheSpelling(Revocations):
    """Revokes a token's text, not the token."""

    async def _examine(self, target: TokenTarget) -> PresentedToken:
        return replace(await super()._examine(target), signing_input=target.token.reveal())


# --- the reader -----------------------------------------------------------------------------------------------------


class Replaces(RevocationConversation):
    """Takes each answer for the whole list: no union."""

    def _take(self, response: Response, started: Moment, at: Moment) -> None:
        self._held = None
        super()._take(response, started, at)


class TakesAnyEpoch(RevocationConversation):
    """Takes whatever list it is given, also that of an earlier store."""

    def _take(self, response: Response, started: Moment, at: Moment) -> None:
        if self._held is not None and f"epoch={self._held.epoch}," not in response.headers.get("tokenry-list", ""):
            self._held = self.snapshot = None
        super()._take(response, started, at)


class GoesBack(RevocationConversation):
    """Believes the last answer about the time, also an older one."""

    def _is_lagging(self, stamp: Any) -> bool:
        return False


class FreshOnArrival(RevocationConversation):
    """Counts a list's age from its arrival, not from the moment up to which it is complete."""

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:
        super().on_response(response, started=started, at=at)
        if self.snapshot is not None and response.status == 200:
            self.snapshot = replace(self.snapshot, as_of=at.now, age_at_request=0.0, requested_at=at.monotonic)


class RemembersTheCursorOnly(RevocationConversation):
    """Reads on after a restart, and has forgotten what it had read."""

    def resume(self, held: RevocationList, *, cursor: str, snapshot: Snapshot[RevocationList] | None) -> None:
        empty = RevocationList.of((), salts=held.salts, epoch=held.epoch, max_token_lifetime=held.max_token_lifetime)
        kept = None if snapshot is None else replace(snapshot, value=empty)
        super().resume(empty, cursor=cursor, snapshot=kept)


# --- the validator --------------------------------------------------------------------------------------------------


def ready_at_once(snapshot: SnapshotOfList, now: float, monotonic: float) -> SnapshotOfList:
    """Judge by an empty list until the first one is there."""
    if snapshot is not None:
        return snapshot
    return Snapshot(value=RevocationList(epoch=0), as_of=now, age_at_request=0.0, requested_at=monotonic)


class _ShiftedList:
    """A list whose cut-offs are off by some seconds."""

    def __init__(self, held: RevocationList, seconds: int) -> None:
        self._held = held
        self._seconds = seconds
        self.epoch, self.max_token_lifetime = held.epoch, held.max_token_lifetime

    def hits(self, token: JudgedToken, *, now: float) -> Hit | None:
        shifted = JudgedToken(
            iss=token.iss,
            jti=token.jti,
            kid=token.kid,
            iat=token.iat,
            claims=token.claims,
            signing_input=token.signing_input,
        )
        shifted.issued_at = token.issued_at + self._seconds
        return self._held.hits(shifted, now=now)


def _shifted(snapshot: SnapshotOfList, seconds: int) -> SnapshotOfList:
    return None if snapshot is None else replace(snapshot, value=_ShiftedList(snapshot.value, seconds))  # type: ignore[arg-type]


def cutoff_inclusive(snapshot: SnapshotOfList, now: float, monotonic: float) -> SnapshotOfList:
    """Hit `iat <= cut-off`: one second too many."""
    return _shifted(snapshot, -1)


def cutoff_one_less(snapshot: SnapshotOfList, now: float, monotonic: float) -> SnapshotOfList:
    """Hit `iat < cut-off - 1`: the last second escapes."""
    return _shifted(snapshot, 1)


def without_rules(snapshot: SnapshotOfList, now: float, monotonic: float) -> SnapshotOfList:
    """Look up tokens and ids only."""
    if snapshot is None:
        return None
    return replace(snapshot, value=RevocationList(
        epoch=snapshot.value.epoch, salts=snapshot.value.salts, block=snapshot.value.block,
        max_token_lifetime=snapshot.value.max_token_lifetime,
    ))  # fmt: skip


class _BySpelling(Validator):
    def _verify(self, token: str, keys: KeySet | None) -> VerifiedToken:
        verified = super()._verify(token, keys)
        info = verified.info
        judged = JudgedToken(
            iss=info.iss, jti=info.jti, kid=info.kid, iat=info.iat, claims=info.claims, signing_input=token
        )
        return VerifiedToken(info=info, judged=judged, issuer=verified.issuer, key=verified.key, keys=verified.keys)


class LooksUpTheSpelling(TokenValidator):
    """Looks a token up by its text; the twin with the other half of the signature is another text."""

    def _join(self, policy: Any, keys: Any, revocations: Any, clock: Any, *, remembered: int) -> None:
        super()._join(policy, keys, revocations, clock, remembered=remembered)
        self._validator = _BySpelling(policy, remembered=remembered)


class RemembersTheVerdict(TokenValidator):
    """Remembers that a token was good, and asks no list about it again."""

    def _join(self, policy: Any, keys: Any, revocations: Any, clock: Any, *, remembered: int) -> None:
        super()._join(policy, keys, revocations, clock, remembered=remembered)
        self._good: dict[str, Any] = {}

    def validate(self, token: str, **options: Any) -> Any:
        found = self._good.get(token)
        if found is not None and self._clock.now() < found.exp:
            return found
        found = self._good[token] = super().validate(token, **options)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """
    One defect.

    Attributes:
        name: What is wrong.
        parts: The platform that has it.
        expected: Properties, one of which at least it must break.
        focus: What the nemesis mostly breaks while it is looked for.
        seed: Where to begin to look for it; a hint that saves time, no more.
        slow_writer: Whether it needs a writer whose clock is 90 s slow to show.
    """

    name: str
    parts: Parts
    expected: tuple[str, ...]
    focus: str = "everything"
    seed: int = 0
    slow_writer: bool = False


def _mutant(name: str, focus: str, *expected: str, slow_writer: bool = False, **parts: Any) -> Mutant:
    return Mutant(name=name, parts=replace(PRODUCT, **parts), expected=expected, focus=focus, slow_writer=slow_writer)


MUTANTS: Final = (
    # what every system of this kind has to fear
    _mutant("read ONE", "store", "P4", read_replicas=1),
    _mutant("write ONE", "losses", "P4", write_replicas=1),
    _mutant("no union where it is published", "losses", "P2", "P4", feed=PublishesOnlyTheLastRead, read_repair=False),
    _mutant("no union where it is read", "everything", "P3", conversation=Replaces),
    _mutant("no epoch check", "delivery", "P7", conversation=TakesAnyEpoch),
    _mutant("no age limit", "delivery", "P1", refuse_age=REFUSE_SECONDS * 1000),
    _mutant("ready before the first list", "delivery", "P1", "P4", judged_by=ready_at_once),
    _mutant("rows live for half a token's life", "restarts", "P1", "P4", description=ForgottenEarly),
    _mutant("the twin is not looked up", "everything", "P1", handlers=RevokesTheSpelling, validator=LooksUpTheSpelling),
    _mutant("cut-off <= in place of <", "everything", "P5", judged_by=cutoff_inclusive),
    _mutant("cut-off one second early", "everything", "P1", judged_by=cutoff_one_less),
    _mutant("201 on an unknown outcome", "losses", "P4", acceptance=AcknowledgesTheUnknown),
    _mutant("reads only the current bucket", "restarts", "P1", "P4", store=BucketOfTheOwnClock),
    # and what this one has to fear besides
    _mutant("placed by the writer's clock", "store", "P4", store=PlacedByTheOwnClock, slow_writer=True),
    _mutant("no overlap between reads", "slowness", "P4", store=NoOverlap),
    _mutant("a wrong middle of clocks is the time", "clocks", "P4", store=PositionOfAWrongMiddle),
    _mutant("cursors without overlap", "slowness", "P4", feed=CursorWithoutOverlap),
    _mutant("complete up to the end of the read", "slowness", "P4", feed=CompleteUpToTheEnd),
    _mutant("complete up to a clock without the skew", "everything", "P4", feed=NoMargin),
    _mutant("fresh although the store was not read", "delivery", "P1", "P4", feed=FreshThoughUnread),
    _mutant("published before it is stored", "losses", "P2", acceptance=PublishesFirst),
    _mutant("reads do not repair", "losses", "P2", read_repair=False),
    _mutant("the list's time goes back", "delivery", "P7", conversation=GoesBack),
    _mutant("age counted from arrival", "delivery", "P1", "P4", conversation=FreshOnArrival),
    _mutant("a restart forgets all but the cursor", "restarts", "P3", conversation=RemembersTheCursorOnly),
    _mutant("rules are not looked up", "everything", "P1", judged_by=without_rules),
    _mutant("verdicts are remembered", "everything", "P1", validator=RemembersTheVerdict),
)
