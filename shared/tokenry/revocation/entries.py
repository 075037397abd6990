"""
What a revocation list contains: one entry for each thing that must be refused.

Invariants:
    * An `Entry` that exists is well formed: it has the members of its kind, and every time is sane.
    * An entry carries no token, no token id and no claim value, only keyed fingerprints of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from tokenry.errors import ProtocolError

FINGERPRINT_BYTES: Final = 16  # half of an HMAC-SHA-256: no collision to be had below 2**64 entries
MAX_NAMES: Final = 8  # claims in one rule; every rule costs each first look-up one HMAC per set of names
MAX_NAME_BYTES: Final = 128  # a claim's name; ours have at most nine
MAX_TIME: Final = 2**32 - 1  # expiries are stored in four bytes; enough until the year 2106

_NUMBERS: Final = frozenset({int, float})
_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Kind(StrEnum):
    """What an entry names. A reader that meets any other kind refuses the whole list."""

    JTI = "jti"
    TOKEN = "token"  # noqa: S105 -- a kind of entry
    CLAIMS = "claims"
    KEY = "key"
    ALL = "all"
    UNDO = "undo"


_FINGERPRINTED: Final = frozenset({Kind.JTI, Kind.TOKEN, Kind.CLAIMS, Kind.KEY})
_CUT_OFF: Final = frozenset({Kind.CLAIMS, Kind.ALL})
_SINGLE: Final = frozenset({Kind.JTI, Kind.TOKEN})
_JTI: Final = Kind.JTI  # by identity: a member of an enumeration is slow to find and to hash
_TOKEN: Final = Kind.TOKEN


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Entry:
    """
    One thing that is revoked, or the lifting of one.

    Attributes:
        id: Of the revocation that it came from; the entries of one revocation share it.
        kind: What it names.
        fingerprint: 16 bytes (`jti`, `token`, `claims`, `key`).
        salt: Id of the salt that the fingerprint was made under.
        names: Names of the claims that a `claims` rule asks for, sorted; `client_id` stands for `azp` too.
        issued_before: Exclusive cut-off (`claims`, `all`) in Unix seconds: hits `iat < issued_before`.
        in_force_until: Unix seconds before which no reader may forget it; None for a `key`: never.
        block_until: Unix seconds until which a `claims` rule hits whatever the `iat`.
        undoes: Id of the revocation that an `undo` lifts.
        undoable: Whether a `jti` or `token` may be lifted (it was a test); `claims` and `all` always may.
        created_at: Unix seconds, with milliseconds, at which the service accepted it, by its own clock; None where
            that is not known. It decides nothing, it is only measured: entries that differ in it alone are equal.

    Raises:
        ProtocolError: A member is missing, of another kind, or out of range.
    """

    id: str
    kind: Kind
    fingerprint: bytes | None = None
    salt: str | None = None
    names: tuple[str, ...] = ()
    issued_before: int | None = None
    in_force_until: int | None = None
    block_until: int | None = None
    undoes: str | None = None
    undoable: bool = False
    created_at: float | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 -- the member's name on the wire
        kind: Kind,
        fingerprint: bytes | None = None,
        salt: str | None = None,
        names: tuple[str, ...] = (),
        issued_before: int | None = None,
        in_force_until: int | None = None,
        block_until: int | None = None,
        undoes: str | None = None,
        undoable: bool = False,
        created_at: float | None = None,
    ) -> None:
        """Refuse what is not exactly an entry of its kind. Written out: lists have thousands, and this is quicker."""
        _set_id(self, id)
        _set_kind(self, kind)
        _set_fingerprint(self, fingerprint)
        _set_salt(self, salt)
        _set_names(self, names)
        _set_issued_before(self, issued_before)
        _set_in_force_until(self, in_force_until)
        _set_block_until(self, block_until)
        _set_undoes(self, undoes)
        _set_undoable(self, undoable)
        _set_created_at(self, created_at)
        if self._is_plain_single():  # nearly all are, by the thousand
            return
        kind = self.kind
        if type(kind) is not Kind:
            raise ProtocolError("an entry is of a kind that this reader does not know")
        check_id(self.id)
        self._check_fingerprint(required=kind in _FINGERPRINTED)
        if kind is Kind.KEY:
            _require(self.in_force_until is None, "a key entry does not expire")
        else:
            check_time(self.in_force_until, "in_force_until")
        if kind in _CUT_OFF:
            check_time(self.issued_before, "issued_before")
        else:
            _require(self.issued_before is None, f"a {kind} entry has no issued_before")
        if kind is Kind.CLAIMS:
            check_names(self.names)
        else:
            _require(self.names == (), f"a {kind} entry has no names")
        self._check_rare_members()

    def _is_plain_single(self) -> bool:
        """Tell whether it is a good entry of one token without any rare member; all else is looked at one by one."""
        return (
            type(self.fingerprint) is bytes
            and len(self.fingerprint) == FINGERPRINT_BYTES
            and type(self.in_force_until) is int
            and 0 < self.in_force_until <= MAX_TIME
            and self.undoable is False
            and self.issued_before is None
            and self.block_until is None
            and self.undoes is None
            and self.names == ()
            and type(self.id) is str
            and type(self.salt) is str
            and _ID.fullmatch(self.id) is not None
            and _is_id(self.salt)
            and (self.created_at is None or (type(self.created_at) is float and 0 < self.created_at <= MAX_TIME))
            and (self.kind is _JTI or self.kind is _TOKEN)
        )

    def _check_fingerprint(self, *, required: bool) -> None:
        if not required:
            _require(self.fingerprint is None and self.salt is None, f"a {self.kind} entry has no fingerprint")
            return
        fingerprint = self.fingerprint
        _require(type(fingerprint) is bytes and len(fingerprint) == FINGERPRINT_BYTES, "a fingerprint is 16 bytes")
        check_id(self.salt)

    def _check_rare_members(self) -> None:
        if self.block_until is not None:
            _require(self.kind is Kind.CLAIMS, "block_until belongs to a claims entry")
            check_time(self.block_until, "block_until")
            _require(
                self.in_force_until is not None and self.block_until <= self.in_force_until,
                "an entry blocks no longer than it is in force",
            )
        if self.kind is Kind.UNDO:
            check_id(self.undoes)
        else:
            _require(self.undoes is None, "undoes belongs to an undo entry")
        _require(type(self.undoable) is bool, "undoable is a boolean")
        if self.created_at is not None:
            _require(
                type(self.created_at) in _NUMBERS and 0 < self.created_at <= MAX_TIME, "created_at is in Unix seconds"
            )
        _require(not self.undoable or self.kind in _SINGLE, "undoable belongs to a jti or token entry")

    @property
    def single(self) -> bool:
        """Whether it names one token for good, so that a list needs its fingerprint and expiry alone."""
        return (self.kind is _JTI or self.kind is _TOKEN) and not self.undoable


def check_id(text: Any) -> None:  # noqa: ANN401 -- from the wire
    """
    Refuse *text* unless it is an id: 1 to 128 printable ASCII characters.

    Raises:
        ProtocolError: It is not.
    """
    _require(type(text) is str and _ID.fullmatch(text) is not None, "an id is 1 to 128 visible ASCII characters")


def check_time(seconds: Any, name: str) -> None:  # noqa: ANN401 -- from the wire
    """
    Refuse *seconds* unless it is a whole number of Unix seconds that fits four bytes.

    Raises:
        ProtocolError: It is not; *name* is in the message.
    """
    _require(type(seconds) is int and 0 < seconds <= MAX_TIME, f"{name} is a whole number of Unix seconds")


def check_names(names: Any) -> None:  # noqa: ANN401 -- from the wire
    """
    Refuse *names* unless they are 1 to 8 different claim names, ascending, with `client_id` for `azp`.

    Raises:
        ProtocolError: They are not.
    """
    _require(type(names) is tuple and 0 < len(names) <= MAX_NAMES, "a claims entry has 1 to 8 names")
    for name in names:
        _require(
            type(name) is str and 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES,
            "a name is a non-empty string",
        )
        _require(name != "azp", "azp is called client_id in a list")
    _require(all(a < b for a, b in pairwise(names)), "names are sorted and different")


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 -- reads as a sentence
    if not condition:
        raise ProtocolError(message)


@lru_cache(maxsize=64)  # all entries of a list have one salt, or two
def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


(
    _set_id, _set_kind, _set_fingerprint, _set_salt, _set_names, _set_issued_before, _set_in_force_until,
    _set_block_until, _set_undoes, _set_undoable, _set_created_at,
) = (getattr(Entry, each.name).__set__ for each in fields(Entry))  # fmt: skip
