"""
How often validators have refused tokens because of a revocation, since when, and how many of them: by fingerprint.

Each replica keeps what it was told, and its counts in the store under its name, where it finds them again after a
restart. A count never decides anything. Pure: time is an argument.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import b64url_encode, dump_json, parse_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenry.revocation.entries import Entry

REFUSALS: Final = "refusals"  # the group of the store that the replicas' counts are in
KEPT_SECONDS: Final = 86_400  # after the last refusal by a revocation
MAX_COUNTED: Final = 2000  # fingerprints of one replica: 500 kB in the store
MAX_NAMED: Final = 20  # validators that are told apart for each of them

_ROW_LENGTH: Final = 3


@dataclass(slots=True)
class Refused:
    """
    What is known of one revocation.

    Attributes:
        count: Tokens that were refused.
        last: Unix seconds of the last time.
        validators: Who refused them, by hashes of their names; no more than are told apart.
    """

    count: int = 0
    last: float = 0.0
    validators: set[int] = field(default_factory=set)

    def add(self, other: Refused) -> None:
        """Add what somebody else knows."""
        self.count += other.count
        self.last = max(self.last, other.last)
        self.validators |= other.validators

    def members(self, *, now: float) -> dict[str, Any]:
        """Return it as people are told."""
        return {
            "count": self.count,
            "last_seconds_ago": None if not self.count else round(max(0.0, now - self.last), 1),
            "validators": len(self.validators),
            "validators_are_more": len(self.validators) >= MAX_NAMED,
        }


class Refusals:
    """What this replica was told."""

    def __init__(self) -> None:
        """Begin without any."""
        self._refused: dict[str, Refused] = {}

    def count(self, counts: Mapping[str, int], *, ago: Mapping[str, float], validator: str, now: float) -> None:
        """
        Note what a validator reports.

        Args:
            counts: Tokens refused since its last report, by fingerprint.
            ago: How many seconds before the report the last of them was refused; now where that is not said.
            validator: Its name.
            now: Unix seconds.
        """
        known = zlib.crc32(validator.encode())
        for fingerprint, number in counts.items():
            if not number or (fingerprint not in self._refused and len(self._refused) >= MAX_COUNTED):
                continue
            refused = self._refused.setdefault(fingerprint, Refused())
            refused.count += number
            refused.last = max(refused.last, now - ago.get(fingerprint, 0.0))
            if len(refused.validators) < MAX_NAMED:
                refused.validators.add(known)

    def resume(self, kept: bytes) -> None:
        """Go on from what was kept before a restart; what cannot be read is begun anew."""
        for fingerprint, refused in _read(kept).items():
            self._refused.setdefault(fingerprint, Refused()).add(refused)

    def to_bytes(self, *, now: float) -> bytes:
        """Return what to keep, without what nobody was refused by for a day."""
        self._refused = {name: each for name, each in self._refused.items() if now - each.last < KEPT_SECONDS}
        return dump_json({
            name: [each.count, round(each.last, 3), sorted(each.validators)] for name, each in self._refused.items()
        })  # fmt: skip


def denied(entries: Iterable[Entry], kept: Iterable[bytes]) -> Refused:
    """Return what all replicas together know of the revocation with *entries*."""
    fingerprints = {b64url_encode(entry.fingerprint) for entry in entries if entry.fingerprint is not None}
    total = Refused()
    for each in kept:
        for fingerprint, refused in _read(each).items():
            if fingerprint in fingerprints:
                total.add(refused)
    return total


def _read(kept: bytes) -> dict[str, Refused]:
    try:
        members = parse_json_object(kept)
        return {name: _refused(row) for name, row in members.items()}
    except (ProtocolError, TypeError, ValueError):
        return {}


def _refused(row: object) -> Refused:
    if not isinstance(row, list) or len(row) != _ROW_LENGTH:
        raise ValueError("of another form")
    count, last, validators = row
    return Refused(int(count), float(last), {int(each) for each in validators})
