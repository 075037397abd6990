"""
What a list's server says in one answer, whatever its form on the wire.

Invariants:
    * A `ListDocument` that exists is consistent: every kind in it is announced, every salt is there.
    * A document is used whole or not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import Kind, check_id, check_time
from tokenry.revocation.lists import MAX_ENTRIES, MAX_SALTS, MIN_SALT_BYTES, PRUNE_SECONDS, RevocationList

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.revocation.entries import Entry

MAX_EPOCH: Final = 2**53 - 1  # what every JSON reader represents exactly (RFC 7493 section 2.2)
MAX_LIFETIME: Final = 366 * 86400  # seconds; a longer-lived access token is a mistake of units
ALL_KINDS: Final = tuple(Kind)

_CURSOR = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")  # goes into a URL and through logs


class EpochRefused(ProtocolError):
    """
    A document is of another epoch than the list held: the store was restored, replaced or mixed up.

    Attributes:
        held: The epoch of the list held.
        offered: The epoch of the document. A higher one is taken when an operator accepts exactly it.
    """

    def __init__(self, *, held: int, offered: int) -> None:
        """Refuse *offered*."""
        self.held = held
        self.offered = offered
        super().__init__(f"the revocation list is of epoch {offered}, the one held of epoch {held}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDocument:
    """
    The content of one answer of `changes` or `snapshot`.

    Attributes:
        cursor: Opaque position, to be sent back as `after`.
        epoch: Which store speaks.
        kinds: What the list may contain.
        salts: Keys of the fingerprints by their ids.
        max_token_lifetime: Seconds; no token of the platform lives longer.
        entries: Entries kept whole.
        block: Fingerprints of tokens and token ids without their entries (binary form only).

    Raises:
        ProtocolError: A part is out of range, or an entry's kind or salt is not announced.
    """

    cursor: str
    epoch: int
    kinds: tuple[Kind, ...] = ALL_KINDS
    salts: Mapping[str, bytes]
    max_token_lifetime: int
    entries: tuple[Entry, ...] = ()
    block: Block = Block()  # noqa: RUF009 -- immutable

    def __post_init__(self) -> None:
        """Refuse what is inconsistent."""
        if type(self.cursor) is not str or _CURSOR.fullmatch(self.cursor) is None:
            raise ProtocolError("a cursor is 1 to 512 visible ASCII characters")
        if type(self.epoch) is not int or not 0 < self.epoch <= MAX_EPOCH:
            raise ProtocolError("an epoch is a positive whole number")
        check_time(self.max_token_lifetime, "max_token_lifetime")
        if self.max_token_lifetime > MAX_LIFETIME:
            raise ProtocolError("max_token_lifetime is longer than a year")
        self._check_salts()
        self._check_entries()

    def _check_salts(self) -> None:
        if len(self.salts) > MAX_SALTS:
            raise ProtocolError(f"a list has at most {MAX_SALTS} salts")
        for name, salt in self.salts.items():
            check_id(name)
            if len(salt) < MIN_SALT_BYTES:
                raise ProtocolError(f"a salt has at least {MIN_SALT_BYTES} bytes")

    def _check_entries(self) -> None:
        kinds = frozenset(self.kinds)
        if len(kinds) != len(self.kinds):
            raise ProtocolError("a kind is announced twice")
        if self.block and not (kinds & {Kind.JTI, Kind.TOKEN} and self.salts):
            raise ProtocolError("a block of fingerprints needs a salt, and tokens or ids among the kinds")
        for kind in {id(entry.kind): entry.kind for entry in self.entries}.values():
            if kind not in kinds:
                raise ProtocolError("an entry is of a kind that the list does not announce")
        if not {entry.salt for entry in self.entries} <= {None, *self.salts}:
            raise ProtocolError("an entry names a salt that the list does not carry")

    def onto(
        self,
        held: RevocationList | None,
        *,
        now: float,
        accept_epoch: int | None = None,
        max_entries: int = MAX_ENTRIES,
    ) -> RevocationList:
        """
        Return *held* with this document merged into it; *held* itself when it says nothing new.

        Args:
            held: The list so far; None before the first document.
            now: Unix seconds that decide what is no longer in force (see `RevocationList.merge`).
            accept_epoch: The higher epoch that an operator has accepted.
            max_entries: For the first list: the length above which it is refused.

        Raises:
            EpochRefused: The document is of another epoch. *held* stays good.
            TooManyEntries: The list would become too long. *held* stays good.
            ProtocolError: Salts contradict each other. *held* stays good.
        """
        base = held
        if base is None:  # the server has left out what is over, so a first pass over all of it would be idle
            base = RevocationList(epoch=self.epoch, max_entries=max_entries, prune_at=now + PRUNE_SECONDS)
        if self.epoch != base.epoch and not base.epoch < self.epoch == accept_epoch:
            raise EpochRefused(held=base.epoch, offered=self.epoch)
        merged = base.merge(self.entries, now=now, salts=self.salts, block=self.block)
        lifetime = max(base.max_token_lifetime, self.max_token_lifetime)
        return merged.at_epoch(self.epoch, max_token_lifetime=lifetime)


def document_of(held: RevocationList, *, cursor: str) -> ListDocument:
    """Return all of *held* as a document, to be kept in a file or sent on in the binary form."""
    return ListDocument(
        cursor=cursor,
        epoch=held.epoch,
        salts=held.salts,
        max_token_lifetime=held.max_token_lifetime,
        entries=held.entries(),
        block=held.block,
    )
