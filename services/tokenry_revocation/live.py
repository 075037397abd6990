"""What publication keeps of the records in force: rules as objects, tokens as sheets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.revocation.jsonform import entry_members
from tokenry_revocation.records import Record, RecordType
from tokenry_revocation.sheets import Sheet, is_sheet, line_name, parse_sheet, spelled_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenry.revocation.entries import Entry
    from tokenry.revocation.planb import PlanBRow
    from tokenry_revocation.ports import StoredRecord
    from tokenry_revocation.token_table import KeptToken


@dataclass(slots=True, kw_only=True, eq=False)
class Live:
    """
    What publication needs of one record in force.

    Attributes:
        id: The record's name.
        type: What it is.
        revoked_at: Unix seconds at which it was accepted.
        in_force_until: Unix seconds until which it matters; None for ever.
        entries: What our readers get.
        rows: What Plan B's readers get.
        undoes: Id of the record that it takes back.
        refresh_from: What a notification tells Plan B's validators.
        position: Where the store put it; 0 while that is not known here.
    """

    id: str
    type: RecordType
    revoked_at: int
    in_force_until: int | None
    entries: tuple[Entry, ...]
    rows: tuple[PlanBRow, ...]
    undoes: str | None
    refresh_from: int | None
    position: int

    @classmethod
    def of(cls, record: Record, *, position: int) -> AnyLive:
        """Return what publication needs of *record*."""
        sheet = record.sheet
        if sheet is not None:
            return LiveSheet(id=record.id, sheet=sheet, position=position)
        return cls(
            id=record.id,
            type=record.type,
            revoked_at=record.revoked_at,
            in_force_until=record.in_force_until,
            entries=tuple(replace(entry, created_at=record.created_at) for entry in record.entries),
            rows=record.plan_b,
            undoes=record.undoes,
            refresh_from=record.refresh_from,
            position=position,
        )

    @classmethod
    def read(cls, stored: StoredRecord) -> AnyLive:
        """
        Return what publication needs of a record as the store keeps it.

        Raises:
            ProtocolError: It is not of a form that we know.
        """
        if is_sheet(stored.body):
            return LiveSheet(id=stored.id, sheet=parse_sheet(stored.body), position=stored.position)
        return cls.of(Record.from_bytes(stored.body), position=stored.position)

    @property
    def lines(self) -> int:
        """Return how many revocations it is."""
        return 1

    @property
    def single(self) -> bool:
        """Whether it revokes one token, for good."""
        return all(entry.single for entry in self.entries)

    def in_force(self, now: float) -> bool:
        """Tell whether it still matters at *now* (Unix seconds)."""
        return self.in_force_until is None or now < self.in_force_until

    def written(self, *, created_at: bool = False) -> Iterator[bytes]:
        """Yield its entries as JSON, with the moment of their creation where *created_at* asks for it."""
        for entry in self.entries:
            yield dump_json(entry_members(entry, created_at=created_at))


@dataclass(slots=True, kw_only=True, eq=False)
class LiveSheet:
    """
    Tokens in force that were revoked for good, in one record.

    Attributes:
        id: The record's name.
        sheet: The tokens.
        position: Where the store put it; 0 while that is not known here.
    """

    id: str
    sheet: Sheet
    position: int

    type: ClassVar = RecordType.TOKEN

    @property
    def revoked_at(self) -> int:
        """Return the Unix seconds at which it was accepted."""
        return self.sheet.revoked_at

    @property
    def in_force_until(self) -> int:
        """Return the Unix seconds until which it matters."""
        return self.sheet.in_force_until

    @property
    def lines(self) -> int:
        """Return how many revocations it is."""
        return self.sheet.lines

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return what our readers get."""
        return tuple(
            entry
            for line in range(self.sheet.lines)
            for entry in self.sheet.entries(line, name=line_name(self.id, line))
        )

    def in_force(self, now: float) -> bool:
        """Tell whether it still matters at *now* (Unix seconds)."""
        return now < self.sheet.in_force_until

    def written(self, *, created_at: bool = False) -> Iterator[bytes]:
        """Yield its entries as JSON, with the moment of their creation where *created_at* asks for it."""
        sheet = self.sheet
        end = b"}" if sheet.created_at is None or not created_at else b',"created_at":%.3f}' % sheet.created_at
        salt, until = sheet.salt.encode("ascii"), sheet.in_force_until
        for line in range(sheet.lines):
            name = line_name(self.id, line).encode("ascii")
            for kind, value in sheet.fingerprints(line):
                spelled = b64url_encode(value).encode("ascii")
                yield _TOKEN_ENTRY % (name, kind.value.encode("ascii"), spelled, salt, until) + end


_TOKEN_ENTRY: Final = b'{"id":"%b","kind":"%b","fingerprint":"%b","salt":"%b","in_force_until":%d'

AnyLive: TypeAlias = Live | LiveSheet


def without_hashes(live: AnyLive) -> AnyLive:
    """Return *live* without what only Plan B's list needs, which has it."""
    if isinstance(live, LiveSheet):
        live.sheet = replace(live.sheet, token_hashes=b"", id_hashes=b"")
    return live


def kept_live(bits: bytes, kept: KeptToken) -> LiveSheet:
    """Return the record of one token from its name, *bits*, and what is kept of it."""
    sheet = Sheet(
        revoked_at=kept.revoked_at,
        in_force_until=kept.in_force_until,
        issued_before=kept.revoked_at,
        salt=kept.salt,
        ids=kept.id,
        tokens=kept.token,
        created_at=kept.created_at,
    )
    return LiveSheet(id=spelled_name(bits), sheet=sheet, position=kept.position)
