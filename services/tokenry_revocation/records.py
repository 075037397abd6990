"""
What the store keeps of one revocation.

Invariants:
    * A record has no token and no value of a claim: fingerprints, Plan B's hashes, names and times only.
    * Its id is a keyed hash of what it revokes, so that the same revocation has the same id on every replica,
    and to
      post it again changes nothing.
    * A token that was revoked for good is kept in a form of its own (`sheets.py`), everything else as JSON.
    * A record never changes. What takes one back is a record of its own.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_decode, b64url_encode, dump_json, parse_json_object
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.planb import PlanBRow, PlanBType
from tokenry_revocation.sheets import Sheet, is_sheet, line_name, parse_about, spelled_name

FORMAT = 1  # of the bytes; a reader refuses what it does not know


class RecordType(StrEnum):
    """What a record is."""

    TOKEN = "TOKEN"  # noqa: S105 -- a kind of record
    CLAIM = "CLAIM"
    KEY = "KEY"
    GLOBAL = "GLOBAL"
    UNDO = "UNDO"
    REFRESH_FROM = "REFRESH_FROM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """
    Who did it, from the verified token of the caller.

    Attributes:
        iss: Issuer of the caller's token.
        sub: Its subject.
        client_id: Its client; None where unknown.
    """

    iss: str
    sub: str
    client_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    One revocation, one undo, or one notification, as it was accepted.

    Attributes:
        id: Its name.
        type: What it is.
        revoked_at: Unix seconds at which it was accepted.
        in_force_until: Unix seconds until which it matters; None for ever.
        propagated_by: Unix seconds by which every healthy validator of ours enforces it.
        plan_b_by: The same for validators of Plan B; None when they cannot be told.
        entries: What our readers get.
        plan_b: What Plan B's readers get.
        actor: Who asked for it.
        rule: The rule that allowed it, `name@digest`; None where a scope was enough.
        reason: Why, as the caller said.
        ticket: Where the incident is written down, as the caller said.
        undoes: Id of the record that an undo takes back.
        refresh_from: What a notification tells Plan B's validators.
        approved_by: The second person, where one was needed.
        created_at: The same as `revoked_at` with milliseconds; None in a record of an earlier version.
    """

    id: str
    type: RecordType
    revoked_at: int
    in_force_until: int | None
    propagated_by: int
    plan_b_by: int | None
    actor: Actor
    entries: tuple[Entry, ...] = ()
    plan_b: tuple[PlanBRow, ...] = ()
    rule: str | None = None
    reason: str | None = None
    ticket: str | None = None
    undoes: str | None = None
    refresh_from: int | None = None
    approved_by: Actor | None = None
    created_at: float | None = None

    @property
    def issued_before(self) -> int | None:
        """Return the cut-off of a rule; None for what has none."""
        return next((entry.issued_before for entry in self.entries if entry.issued_before is not None), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the claims that a rule is about."""
        return next((entry.names for entry in self.entries if entry.names), ())

    @property
    def undoable(self) -> bool:
        """Whether it may be taken back: a rule, or a token revoked as a test."""
        return any(entry.undoable or entry.kind in (Kind.CLAIMS, Kind.ALL) for entry in self.entries)

    def in_force(self, now: float) -> bool:
        """Tell whether it still matters at *now*."""
        return self.in_force_until is None or now < self.in_force_until

    def to_bytes(self) -> bytes:
        """Return the form that the store keeps."""
        sheet = self.sheet
        if sheet is not None:
            return sheet.to_bytes(about=self.about())
        members = {
            "format": FORMAT,
            "type": self.type.value,
            "revoked_at": self.revoked_at,
            "in_force_until": self.in_force_until,
            "entries": [_entry_members(entry) for entry in self.entries],
            "plan_b": [_row_members(row) for row in self.plan_b],
        }
        optional = _present(
            undoes=self.undoes,
            refresh_from=self.refresh_from,
            approved_by=None if self.approved_by is None else _actor_members(self.approved_by),
            created_at=self.created_at,
        )
        return dump_json(members | self.about() | optional)

    def about(self) -> dict[str, Any]:
        """Return what nobody needs in order to enforce it."""
        return {
            "id": self.id,
            "propagated_by": self.propagated_by,
            "plan_b_by": self.plan_b_by,
            "actor": _actor_members(self.actor),
        } | _present(rule=self.rule, reason=self.reason, ticket=self.ticket)

    @property
    def sheet(self) -> Sheet | None:
        """Return the form in which a token that was revoked for good is kept; None for everything else."""
        if self.type is not RecordType.TOKEN or not self.entries or self.in_force_until is None:
            return None
        columns = {entry.kind: entry.fingerprint or b"" for entry in self.entries if entry.single}
        salts = {entry.salt for entry in self.entries}
        cut_offs = {row.issued_before for row in self.plan_b}
        if len(columns) != len(self.entries) or len(salts) > 1 or len(cut_offs) > 1:
            return None
        hashes: dict[PlanBType, bytes] = {}
        for row in self.plan_b:
            hashes[row.type] = hashes.get(row.type, b"") + base64.urlsafe_b64decode(row.hash or "")
        return Sheet(
            revoked_at=self.revoked_at,
            in_force_until=self.in_force_until,
            issued_before=cut_offs.pop() if cut_offs else self.revoked_at,
            salt=salts.pop() or "",
            ids=columns.get(Kind.JTI, b""),
            tokens=columns.get(Kind.TOKEN, b""),
            token_hashes=hashes.get(PlanBType.TOKEN, b""),
            id_hashes=hashes.get(PlanBType.CLAIM, b""),
            created_at=self.created_at,
        )

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """
        Return the record that *body* is.

        Raises:
            ProtocolError: It is not a record of a form that we know.
        """
        if is_sheet(body):
            return cls.from_sheet(body)
        members = parse_json_object(body)
        if members.pop("format", None) != FORMAT:
            raise ProtocolError("a record of a form that is not known here")
        try:
            approved_by = members.pop("approved_by", None)
            return cls(
                approved_by=None if approved_by is None else Actor(**approved_by),
                type=RecordType(members.pop("type")),
                actor=Actor(**members.pop("actor")),
                entries=tuple(_entry(each, members) for each in members.pop("entries")),
                plan_b=tuple(_row(each, members) for each in members.pop("plan_b")),
                **members,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"not a record ({type(error).__name__})") from None

    @classmethod
    def from_sheet(cls, body: bytes, *, line: int | None = None) -> Self:
        """
        Return the record that the *line* of a sheet is, counted from 0; None for a sheet of one line.

        Raises:
            ProtocolError: *body* is no sheet of a form that we know, or has no such line.
        """
        sheet, about = parse_about(body)
        if not (0 <= line < sheet.lines if line is not None else sheet.lines == 1):
            raise ProtocolError("a sheet has no such line")
        try:
            name = line_name(str(about.pop("id")), line or 0)
            return cls(
                id=name,
                type=RecordType.TOKEN,
                revoked_at=sheet.revoked_at,
                in_force_until=sheet.in_force_until,
                actor=Actor(**about.pop("actor")),
                entries=sheet.entries(line or 0, name=name),
                plan_b=sheet.plan_b() if line is None else (),
                created_at=sheet.created_at,
                **about,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"not a record ({type(error).__name__})") from None


def record_id(fingerprint: bytes) -> str:
    """Return the id of the record whose canonical content has *fingerprint* (of a multiple of 40 bits)."""
    return spelled_name(fingerprint)


def _actor_members(actor: Actor) -> dict[str, Any]:
    return _present(iss=actor.iss, sub=actor.sub, client_id=actor.client_id)


def _entry_members(entry: Entry) -> dict[str, Any]:
    """Return what an entry has besides the id and the end of its record."""
    return _present(
        kind=entry.kind.value,
        fingerprint=None if entry.fingerprint is None else b64url_encode(entry.fingerprint),
        salt=entry.salt,
        names=list(entry.names) or None,
        issued_before=entry.issued_before,
        block_until=entry.block_until,
        undoes=entry.undoes,
        undoable=entry.undoable or None,
    )


def _entry(members: dict[str, Any], record: dict[str, Any]) -> Entry:
    fingerprint = members.get("fingerprint")
    return Entry(
        **members
        | {
            "id": record["id"],
            "in_force_until": record["in_force_until"],
            "kind": Kind(members["kind"]),
            "fingerprint": None if fingerprint is None else b64url_decode(fingerprint),
            "names": tuple(members.get("names", ())),
        }
    )


def _row_members(row: PlanBRow) -> dict[str, Any]:
    """Return what a row has besides the time of its record."""
    return _present(type=row.type.value, hash=row.hash, names=list(row.names) or None, issued_before=row.issued_before)


def _row(members: dict[str, Any], record: dict[str, Any]) -> PlanBRow:
    return PlanBRow(
        **members
        | {
            "type": PlanBType(members["type"]),
            "names": tuple(members.get("names", ())),
            "revoked_at": record["revoked_at"],
        }
    )


def _present(**members: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON values
    return {name: value for name, value in members.items() if value is not None}
