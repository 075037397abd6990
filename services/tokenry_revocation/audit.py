"""
The audit log: who did what, when, why, and what allowed it. One structured line each.

Lines carry the id of a record and nothing of what it revokes: no token, no fingerprint, no value of a claim.
Each has its number and the hash of the one before (`tokenry.serving.audit_chain`), so that a change and a gap show. The
log that collects the lines is the archive; the last ones of this process can be asked for (`GET /audit`), and the heads
of all chains are kept in the store for a month, out of reach of whoever can change the log.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from tokenry.serving.audit_sink import Chained, write_to_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.clock import Clock
    from tokenry.serving.audit_chain import Head
    from tokenry.serving.audit_sink import AuditSink
    from tokenry_revocation.pending import Pending
    from tokenry_revocation.records import Actor, Record
    from tokenry_revocation.revoking import Signature


KEPT_RECORDS: Final = 5000  # in memory, to be asked for: some 10 MB


class AuditLog:
    """Numbers the lines and knows what belongs into them."""

    def __init__(self, sink: AuditSink = write_to_log, *, instance: str, clock: Clock) -> None:
        """
        Begin a chain.

        Args:
            sink: Where the lines go.
            instance: A name of this run of this process that no other run has.
            clock: Where the time comes from.
        """
        self._sink = sink
        self._chained = Chained(self._keep, instance=instance, clock=clock)
        self._last: deque[dict[str, Any]] = deque(maxlen=KEPT_RECORDS)

    @property
    def head(self) -> Head:
        """Return the last record's number and hash."""
        return self._chained.head

    def before(self, seq: int | None, *, limit: int) -> list[dict[str, Any]]:
        """Return up to *limit* of the last records with a smaller number than *seq*, the last one first."""
        return list(islice((each for each in reversed(self._last) if seq is None or each["seq"] < seq), limit))

    def accepted(self, record: Record, *, created: bool) -> None:
        """A record is stored; *created* tells whether it was new."""
        self._write(
            "revocation accepted" if created else "revocation repeated",
            record.actor,
            id=record.id,
            type=record.type.value,
            names=list(record.names),
            undoes=record.undoes,
            in_force_until=record.in_force_until,
            rule=record.rule,
            reason=record.reason,
            ticket=record.ticket,
        )

    def waiting(self, pending: Pending) -> None:
        """A revocation waits for a second person."""
        record = pending.record
        self._write(
            "revocation waits for a second person",
            record.actor,
            id=record.id,
            type=record.type.value,
            names=list(record.names),
            expires_at=pending.expires_at,
            rule=record.rule,
            reason=record.reason,
            ticket=record.ticket,
        )

    def approved(self, record: Record, by: Signature, *, created: bool) -> None:
        """A second person has put a revocation in force; the first one's name is with it."""
        self._write(
            "revocation approved" if created else "approval repeated",
            by.actor,
            id=record.id,
            type=record.type.value,
            names=list(record.names),
            asked_by={"iss": record.actor.iss, "sub": record.actor.sub, "client_id": record.actor.client_id},
            in_force_until=record.in_force_until,
            reason=record.reason,
            ticket=record.ticket,
        )

    def batched(self, by: Signature, *, id: str, job: str, lines: int, in_force_until: int) -> None:  # noqa: A002
        """Some tokens of a batch are stored in one record."""
        self._write(
            "revocations accepted",
            by.actor,
            id=id,
            type="TOKEN",
            job=job,
            lines=lines,
            in_force_until=in_force_until,
            reason=by.reason,
            ticket=by.ticket,
        )

    def refused(self, by: Signature, *, action: str, status: int, detail: str) -> None:
        """A known caller was refused."""
        self._write(
            "revocation refused",
            by.actor,
            action=action,
            status=status,
            detail=detail,
            reason=by.reason,
            ticket=by.ticket,
        )

    def cancelled(self, by: Signature, *, job: str) -> None:
        """A known caller had a batch stopped."""
        self._write("revocation batch cancelled", by.actor, job=job)

    def previewed(self, by: Signature, *, action: str) -> None:
        """A known caller asked what a revocation would hit."""
        self._write("revocation previewed", by.actor, action=action, rule=by.rule)

    def _write(self, event: str, actor: Actor, **fields: object) -> None:
        who = {"iss": actor.iss, "sub": actor.sub, "client_id": actor.client_id}
        said = {name: value for name, value in fields.items() if value not in (None, [])}
        self._chained(event, {"actor": who, **said})

    def _keep(self, event: str, fields: Mapping[str, object]) -> None:
        self._last.append({"event": event, **fields})
        self._sink(event, fields)
