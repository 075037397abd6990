"""Two persons: what one of them asks for waits until another one approves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenry_revocation.acceptance import Conflict, NotFound, Outcome
from tokenry_revocation.pending import Pending, is_broad
from tokenry_revocation.requests import ClaimsTarget, GlobalTarget

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry_revocation.acceptance import Acceptance
    from tokenry_revocation.ports import RevocationStore
    from tokenry_revocation.records import Actor
    from tokenry_revocation.requests import Target
    from tokenry_revocation.revoking import Draft, Fingerprints, Signature, Terms

WAITING: Final = "pending"  # the group of the store in which they wait


class SamePerson(Conflict):
    """Who asked for it cannot approve it."""


class SecondPerson:
    """Decides what needs a second person, keeps it, and puts it in force once it is approved."""

    def __init__(
        self,
        *,
        store: RevocationStore,
        acceptance: Acceptance,
        clock: Clock,
        terms: Terms,
        fingerprints: Fingerprints,
        limit: float | None,
        seconds: int,
    ) -> None:
        """
        Keep nothing yet.

        Args:
            store: Where what waits is kept, for all replicas.
            acceptance: Writes records.
            clock: Where the time comes from.
            terms: What decides about records.
            fingerprints: The hashes.
            limit: The share of live tokens above which one person is not enough; None: one always is.
            seconds: How long a request waits.
        """
        self._store = store
        self._acceptance = acceptance
        self._clock = clock
        self._terms = terms
        self._fingerprints = fingerprints
        self._limit = limit
        self._seconds = seconds

    def is_needed(self, draft: Draft, *, share: float | None) -> bool:
        """Tell whether *draft*, which hits *share* of all live tokens (None: unknown), has to be approved."""
        return self._limit is not None and is_broad(draft.type, share, limit=self._limit)

    async def hold(self, draft: Draft, target: Target, *, by: Signature, attempt: str | None) -> Pending:
        """
        Keep *draft* until it is approved, and return it as it waits.

        Raises:
            StoreUnavailable: It is not known to be kept; the same request may be sent again.
        """
        pending = Pending.of(
            draft,
            attempt=attempt,
            is_defaulted=isinstance(target, ClaimsTarget | GlobalTarget) and target.issued_before is None,
            seconds=self._seconds,
            by=by,
            terms=self._terms,
            fingerprints=self._fingerprints,
        )
        known = await self.find(pending.record.id)
        if known is not None:
            return known
        await self._store.remember_member(WAITING, pending.record.id, pending.to_bytes(), ttl_seconds=self._seconds)
        return pending

    async def find(self, name: str) -> Pending | None:
        """
        Return what waits under *name*, or None.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        body = (await self._store.recall_members(WAITING)).get(name)
        pending = None if body is None else Pending.from_bytes(body)
        return pending if pending is not None and self._clock.now() < pending.expires_at else None

    async def approve(self, name: str, *, by: Actor, pending: Pending | None) -> Outcome:
        """
        Put what waits under *name* in force, by the word of *by*.

        Raises:
            NotFound: Nothing waits under this name, or no longer.
            SamePerson: Whoever asked for it is not a second person.
            StoreUnavailable: Not known to be in force; the same request may be sent again.
        """
        try:
            record = await self._acceptance.find(name)
        except NotFound:
            if pending is None:
                raise NotFound("nothing waits for an approval under this id, or no longer") from None
        else:
            if record.approved_by is None:
                raise Conflict("this needed no approval")
            return Outcome(record=record, created=False)  # approved before
        if is_same_person(pending.record.actor, by):
            raise SamePerson("this has to be approved by another person than the one who asked for it")
        record = pending.approved(now=self._clock.now(), by=by, terms=self._terms)
        return await self._acceptance.publish(record)


def is_same_person(a: Actor, b: Actor) -> bool:
    """Tell whether both are one: a subject is one, whatever client it uses."""
    return (a.iss, a.sub) == (b.iss, b.sub)


def waiting_answer(pending: Pending) -> dict[str, Any]:
    """Return what is said of something that waits."""
    record = pending.record
    return {
        "id": record.id,
        "type": record.type.value,
        "status": "pending",
        "in_force": False,
        "asked_at": pending.asked_at,
        "expires_at": pending.expires_at,
        "issued_before": record.issued_before,
        "names": list(record.names),
        "by": {"iss": record.actor.iss, "sub": record.actor.sub, "client_id": record.actor.client_id},
        "reason": record.reason,
        "ticket": record.ticket,
    }
