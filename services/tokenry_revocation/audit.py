"""
The audit log: who did what, when, why, and what allowed it. One structured line each.

Lines carry the id of a record and nothing of what it revokes: no token, no fingerprint, no value of a claim.
Each has the number of its place in this process's log, so that a gap shows.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry_revocation.pending import Pending
    from tokenry_revocation.records import Actor, Record
    from tokenry_revocation.revoking import Signature


class AuditSink(Protocol):
    """Where audit lines go."""

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        """Write one line."""
        ...


def write_to_log(event: str, fields: Mapping[str, object]) -> None:
    """Write one line to the service's own log, under the logger `tokenry.audit`."""
    structlog.get_logger("tokenry.audit").warning(event, audit=True, **fields)


class AuditLog:
    """Numbers the lines and knows what belongs into them."""

    def __init__(self, sink: AuditSink = write_to_log) -> None:
        """Write to *sink*."""
        self._sink = sink
        self._numbers = count(1)

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

    def previewed(self, by: Signature, *, action: str) -> None:
        """A known caller asked what a revocation would hit."""
        self._write("revocation previewed", by.actor, action=action, rule=by.rule)

    def _write(self, event: str, actor: Actor, **fields: object) -> None:
        who = {"iss": actor.iss, "sub": actor.sub, "client_id": actor.client_id}
        said = {name: value for name, value in fields.items() if value not in (None, [])}
        self._sink(event, {"number": next(self._numbers), "actor": who, **said})
