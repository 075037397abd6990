"""
Revocations that wait for a second person. Pure: the same request at the same moment is the same bytes.

What waits is a finished record, kept apart from the log of records: nothing of it is published before somebody
else has approved it. A cut-off that the first person left to the service means "all tokens up to now", so it is
set anew at the approval.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.revocation.planb import settles_at
from tokenry_revocation.records import Record, RecordType
from tokenry_revocation.revoking import KEEP_SECONDS, milliseconds

if TYPE_CHECKING:
    from tokenry_revocation.records import Actor
    from tokenry_revocation.revoking import Draft, Fingerprints, Signature, Terms

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """
    One revocation that waits.

    Attributes:
        record: What would be in force.
        is_defaulted: Whether the service chose the cut-off.
        asked_at: Unix seconds.
        expires_at: Unix seconds after which it cannot be approved any more.
    """

    record: Record
    is_defaulted: bool
    asked_at: int
    expires_at: int

    @classmethod
    def of(
        cls,
        draft: Draft,
        *,
        attempt: str | None,
        is_defaulted: bool,
        seconds: int,
        by: Signature,
        terms: Terms,
        fingerprints: Fingerprints,
    ) -> Self:
        """
        Return *draft* as something that waits for *seconds*.

        Args:
            draft: What is revoked.
            attempt: Keyed hash of the caller's idempotency key: with it a retry is the same one.
            is_defaulted: Whether the service chose the cut-off.
            seconds: How long it waits.
            by: Who asks.
            terms: What decides about records.
            fingerprints: The hashes.
        """
        name = fingerprints.identity(fingerprints.canonical("PENDING", attempt or draft.canonical), 0)
        asked_at = math.floor(draft.now)
        return cls(
            record=draft.record(name, terms=terms, by=by),
            is_defaulted=is_defaulted,
            asked_at=asked_at,
            expires_at=asked_at + seconds,
        )

    def approved(self, *, now: float, by: Actor, terms: Terms) -> Record:
        """Return the record as it comes in force at *now* (Unix seconds), approved by *by*."""
        record, cutoff = self.record, self.record.issued_before
        until = record.in_force_until
        if self.is_defaulted:
            cutoff = terms.default_cutoff(now)
            blocks = (each.block_until + KEEP_SECONDS for each in record.entries if each.block_until is not None)
            until = max((cutoff + terms.retention, *blocks))
        moved: dict[str, Any] = {} if cutoff is None else {"issued_before": cutoff}
        revoked_at = math.floor(now)
        return replace(
            record,
            revoked_at=revoked_at,
            created_at=milliseconds(now),
            in_force_until=until,
            propagated_by=math.ceil(now + terms.propagation_bound),
            plan_b_by=self._plan_b_by(cutoff, now=now, terms=terms),
            entries=tuple(replace(each, in_force_until=until, **moved) for each in record.entries),
            plan_b=tuple(replace(row, revoked_at=revoked_at, **moved) for row in record.plan_b),
            approved_by=by,
        )

    def _plan_b_by(self, cutoff: int | None, *, now: float, terms: Terms) -> int | None:
        if self.record.plan_b_by is None:
            return None
        settled = 0 if cutoff is None else settles_at(cutoff, skew=terms.skew)
        return math.ceil(max(now, settled) + terms.plan_b_bound)

    def to_bytes(self) -> bytes:
        """Return the form that the store keeps."""
        return dump_json({
            "format": _FORMAT,
            "record": base64.b64encode(self.record.to_bytes()).decode("ascii"),
            "defaulted": self.is_defaulted,
            "asked_at": self.asked_at,
            "expires_at": self.expires_at,
        })  # fmt: skip

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """
        Return what *body* is.

        Raises:
            ProtocolError: It is of a form that is not known here.
        """
        members: dict[str, Any] = parse_json_object(body)
        if members.get("format") != _FORMAT:
            raise ProtocolError("a pending revocation of a form that is not known here")
        try:
            return cls(
                record=Record.from_bytes(base64.b64decode(members["record"])),
                is_defaulted=bool(members["defaulted"]),
                asked_at=int(members["asked_at"]),
                expires_at=int(members["expires_at"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"not a pending revocation ({type(error).__name__})") from None


def is_broad(kind: RecordType, share: float | None, *, limit: float) -> bool:
    """
    Tell whether a revocation needs a second person.

    Args:
        kind: What is revoked.
        share: The part of all live tokens that it hits; None when that is not known.
        limit: The part above which one person is not enough.
    """
    if kind is RecordType.GLOBAL:
        return True
    return kind is RecordType.CLAIM and (share is None or share > limit)
