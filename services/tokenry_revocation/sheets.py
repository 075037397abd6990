"""
Tokens that were revoked for good, as the store keeps them: one, or a thousand of a batch in one record.

A rule is JSON (`records.py`). Tokens come by the million, so theirs is a binary form: what publication needs
stands first and is found without a parser, what people ask for afterwards (who, why) stands last.

    version         1 byte, 3 (a JSON record begins with a brace); 2: the same without the milliseconds
    columns         1 byte: 1 fingerprints of ids, 2 fingerprints of tokens; at least one
    lines           4 bytes: the length of each of these columns
    revoked_at, in_force_until, issued_before   4 bytes each, Unix seconds
    token hashes    4 bytes: how many
    id hashes       4 bytes: how many
    milliseconds    2 bytes: of the second at which they were revoked
    salt            1 byte of length, then its id
    fingerprints of ids, fingerprints of tokens    16 bytes each
    token hashes, id hashes                        32 bytes each: rows of Plan B
    the rest        JSON

Numbers are big-endian. A record of one line is named like any other; one of many has a shorter name, which is
the beginning of the names of its lines.
"""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.revocation.entries import FINGERPRINT_BYTES, Entry, Kind
from tokenry.revocation.planb import PlanBRow, PlanBType
from tokenry.revocation.planb_rows import HASH_BYTES, hash_text

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 3
_WITHOUT_MILLISECONDS: Final = 2
MAX_LINES: Final = 1000  # 48 bytes a line by id: far below what a store takes as one record
NAME_CHARACTERS: Final = 32  # of a record of one line, and of a line: 160 bits
SHEET_NAME_CHARACTERS: Final = 24  # of a record of many: 120 bits

_HEAD: Final = struct.Struct(">BBIIIIII")
_MILLISECONDS: Final = struct.Struct(">H")
_NO_MILLISECONDS: Final = 0xFFFF  # not known
_IDS, _TOKENS = 1, 2
_NAMES_OF_IDS: Final = ("jti",)
_SHEET_BYTES: Final = 15
_LINE_BYTES: Final = 5
_NAME: Final = re.compile(r"[a-z2-7]{32}")
_NAME_BYTES: Final = 20
_DIGITS: Final = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """
    The tokens of one record.

    Attributes:
        revoked_at: Unix seconds at which they were revoked.
        in_force_until: Unix seconds until which that matters.
        issued_before: The cut-off that Plan B's rows show, Unix seconds.
        salt: Id of the salt of the fingerprints.
        ids: Fingerprints of the tokens' ids, joined; empty when none is known.
        tokens: Fingerprints of the tokens, joined; empty when only their ids are known.
        token_hashes: Plan B's hashes of tokens, joined.
        id_hashes: Plan B's hashes of ids, joined; an id may be missing.
        created_at: The same as `revoked_at` with milliseconds; None where they are not known.

    Raises:
        ProtocolError: The columns do not fit each other.
    """

    revoked_at: int
    in_force_until: int
    issued_before: int
    salt: str
    ids: bytes = b""
    tokens: bytes = b""
    token_hashes: bytes = b""
    id_hashes: bytes = b""
    created_at: float | None = None

    def __post_init__(self) -> None:
        """Check that the columns fit each other."""
        if self.ids and self.tokens and len(self.ids) != len(self.tokens):
            raise ProtocolError("the columns of a sheet differ in length")
        if not 0 < self.lines <= MAX_LINES:
            raise ProtocolError("a sheet without lines, or with too many")

    @property
    def lines(self) -> int:
        """Return the number of tokens."""
        return max(len(self.ids), len(self.tokens)) // FINGERPRINT_BYTES

    def to_bytes(self, *, about: dict[str, Any]) -> bytes:
        """Return what the store keeps; *about* is what people ask for afterwards."""
        columns = (_IDS if self.ids else 0) | (_TOKENS if self.tokens else 0)
        salt = self.salt.encode("ascii")
        head = _HEAD.pack(
            VERSION,
            columns,
            self.lines,
            self.revoked_at,
            self.in_force_until,
            self.issued_before,
            len(self.token_hashes) // HASH_BYTES,
            len(self.id_hashes) // HASH_BYTES,
        )
        rest = (self.ids, self.tokens, self.token_hashes, self.id_hashes, dump_json(about))
        created = _MILLISECONDS.pack(milliseconds_of(self.created_at))
        return b"".join((head, created, bytes((len(salt),)), salt, *rest))

    def fingerprints(self, line: int) -> Iterator[tuple[Kind, bytes]]:
        """Yield the fingerprints of *line*, counted from 0."""
        cut = slice(line * FINGERPRINT_BYTES, (line + 1) * FINGERPRINT_BYTES)
        if self.ids:
            yield Kind.JTI, self.ids[cut]
        if self.tokens:
            yield Kind.TOKEN, self.tokens[cut]

    def singles(self) -> Iterator[bytes]:
        """Yield every fingerprint."""
        for column in (self.ids, self.tokens):
            for start in range(0, len(column), FINGERPRINT_BYTES):
                yield column[start : start + FINGERPRINT_BYTES]

    def entries(self, line: int, *, name: str) -> tuple[Entry, ...]:
        """Return the entries of *line*, which is called *name*."""
        return tuple(
            Entry(
                id=name,
                kind=kind,
                fingerprint=value,
                salt=self.salt,
                in_force_until=self.in_force_until,
                created_at=self.created_at,
            )
            for kind, value in self.fingerprints(line)
        )

    def plan_b(self) -> tuple[PlanBRow, ...]:
        """Return the rows of all lines."""
        columns = ((PlanBType.TOKEN, (), self.token_hashes), (PlanBType.CLAIM, _NAMES_OF_IDS, self.id_hashes))
        return tuple(
            PlanBRow(
                type=kind,
                names=names,
                hash=hash_text(hashes[start : start + HASH_BYTES]),
                issued_before=self.issued_before,
                revoked_at=self.revoked_at,
            )
            for kind, names, hashes in columns
            for start in range(0, len(hashes), HASH_BYTES)
        )


def is_sheet(body: bytes) -> bool:
    """Tell whether a record is one of this form."""
    return body[:1] in _VERSIONS


def parse_sheet(body: bytes) -> Sheet:
    """
    Return the tokens of a record; what people ask for is not looked at.

    Raises:
        ProtocolError: It is not of this form.
    """
    return _parse(body)[0]


def parse_about(body: bytes) -> tuple[Sheet, dict[str, Any]]:
    """
    Return the tokens of a record, and what people ask for.

    Raises:
        ProtocolError: It is not of this form.
    """
    sheet, end = _parse(body)
    return sheet, parse_json_object(body[end:])


def _parse(body: bytes) -> tuple[Sheet, int]:
    try:
        version, columns, lines, revoked_at, until, issued_before, tokens, ids = _HEAD.unpack_from(body)
        head, created_at = _HEAD.size, None
        if version == VERSION:
            created_at = with_milliseconds(revoked_at, *_MILLISECONDS.unpack_from(body, head))
            head += _MILLISECONDS.size
        start = head + 1 + body[head]
        salt = body[head + 1 : start].decode("ascii")
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ProtocolError("not a sheet of tokens") from None
    if body[:1] not in _VERSIONS or columns not in {_IDS, _TOKENS, _IDS | _TOKENS}:
        raise ProtocolError("a sheet of a form that is not known here")
    widths = (
        lines * FINGERPRINT_BYTES if columns & _IDS else 0,
        lines * FINGERPRINT_BYTES if columns & _TOKENS else 0,
        tokens * HASH_BYTES,
        ids * HASH_BYTES,
    )
    parts = []
    for width in widths:
        parts.append(body[start : start + width])
        start += width
    if start >= len(body):
        raise ProtocolError("a sheet of tokens that was cut off")
    return (
        Sheet(
            revoked_at=revoked_at,
            in_force_until=until,
            issued_before=issued_before,
            salt=salt,
            ids=parts[0],
            tokens=parts[1],
            token_hashes=parts[2],
            id_hashes=parts[3],
            created_at=created_at,
        ),
        start,
    )


_VERSIONS: Final = (bytes((VERSION,)), bytes((_WITHOUT_MILLISECONDS,)))


def milliseconds_of(created_at: float | None) -> int:
    """Return the milliseconds of a moment as two bytes hold them, also those of one that is not known."""
    return _NO_MILLISECONDS if created_at is None else round(created_at * 1000) % 1000


def with_milliseconds(second: int, milliseconds: int) -> float | None:
    """Return the moment that is *milliseconds* past *second*; None when they are not known."""
    return None if milliseconds >= 1000 else second + milliseconds / 1000  # noqa: PLR2004 -- of one second


# --- names ----------------------------------------------------------------------------------------------------------


def packed_name(name: str) -> bytes | None:
    """Return the 160 bits that *name* spells; None when it is no name of one line."""
    if _NAME.fullmatch(name) is None:
        return None
    return int(name.translate(_DIGITS), 32).to_bytes(_NAME_BYTES, "big")


def spelled_name(bits: bytes) -> str:
    """Return the name that *bits* are (a multiple of 40 of them), in the alphabet of base32, lower case."""
    return base64.b32encode(bits).decode("ascii").lower()


def line_name(sheet_name: str, line: int) -> str:
    """Return the name of a line of the record *sheet_name*; of a record of one line that is its own."""
    if len(sheet_name) != SHEET_NAME_CHARACTERS:
        return sheet_name
    return sheet_name + spelled_name(line.to_bytes(_LINE_BYTES, "big"))


def place_of_line(name: str) -> tuple[str, int] | None:
    """Return the record and the line that *name* would be in; None when it is no name of a line."""
    bits = packed_name(name)
    if bits is None:
        return None
    return name[:SHEET_NAME_CHARACTERS], int.from_bytes(bits[_SHEET_BYTES:], "big")
