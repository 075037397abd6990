"""
The revocation list that a validator judges tokens by.

Invariants:
    * A list never changes; merging makes a new one that shares what stayed the same.
    * It only grows: an entry leaves when it is no longer in force, or by an undo, and in no other way. So
      merging the same news twice, late, or in another order gives the same list.
    * Of several cut-offs that fit a token the latest one that was not undone counts.
    * A token that a list does not hit is not hit by the same list at any later moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError
from tokenry.revocation.blocks import Block, TooManyEntries
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import key_fingerprint
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.rules import Hit, Rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LARGEST_MAX_ENTRIES", "MAX_ENTRIES", "Hit", "JudgedToken", "RevocationList", "TooManyEntries"]

MAX_ENTRIES: Final = 10_000_000  # by default: 210 MB of memory; more means that something revokes without end
LARGEST_MAX_ENTRIES: Final = 100_000_000  # that can be set: 2.1 GB, in every process that reads the list
MIN_SALT_BYTES: Final = 16
MAX_SALTS: Final = 8  # two during a change of salt; each one costs every first look-up its own hashes
PRUNE_SECONDS: Final = 300  # what is no longer in force is dropped this often: a pass over millions takes a second

_PLAIN: Final = frozenset({int, float})
_NO_SALTS: Final[Mapping[str, bytes]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RevocationList:
    """
    Everything that is revoked, as far as one reader has heard.

    Make one with `empty` or `of`, or from a document (`ListDocument.onto`).

    Attributes:
        epoch: Which store it comes from; a restored or replaced store has a higher one.
        max_token_lifetime: Seconds; no token of the platform lives longer.
        salts: The keys of the fingerprints by their ids.
        block: The tokens and token ids that are revoked for good.
        rules: Everything else: rules, keys, undos, and what may be undone.
        max_entries: A list that would grow larger is refused, never cut.
        prune_at: Unix seconds from which the next merge drops what is no longer in force.
    """

    epoch: int = 0
    max_token_lifetime: int = 0
    salts: Mapping[str, bytes] = field(default_factory=lambda: _NO_SALTS)
    block: Block = Block()  # noqa: RUF009 -- immutable
    rules: Rules = Rules()  # noqa: RUF009 -- immutable
    max_entries: int = MAX_ENTRIES
    prune_at: float = 0.0

    @classmethod
    def empty(cls) -> RevocationList:
        """Return the list that hits nothing."""
        return cls()

    @classmethod
    def of(
        cls,
        entries: Iterable[Entry],
        *,
        salts: Mapping[str, bytes],
        epoch: int,
        max_token_lifetime: int,
        now: float = 0.0,
        max_entries: int = MAX_ENTRIES,
    ) -> RevocationList:
        """
        Return the list of *entries*.

        Raises:
            TooManyEntries: There are more than *max_entries*.
            ProtocolError: A salt is missing or too short.
        """
        bare = cls(epoch=epoch, max_token_lifetime=max_token_lifetime, max_entries=max_entries)
        return bare.merge(entries, now=now, salts=salts)

    def __len__(self) -> int:
        return len(self.block) + len(self.rules)

    @property
    def has_blocks(self) -> bool:
        """Whether a rule hits by the time of the judgement (`block_until`), not only by what a token says."""
        return self.rules.has_blocks

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries that are kept whole; those of `block` have left their ids behind."""
        return self.rules.entries()

    def has(self, entry: Entry) -> bool:
        """Tell whether *entry* is enforced by this list; how long that lasts is not looked at."""
        if entry.single and entry.fingerprint is not None:
            return entry.fingerprint in self.block
        return entry in self.rules

    def has_key(self, iss: str, kid: str) -> bool:
        """Tell whether the key *kid* of the issuer *iss* is revoked, and with it all that it ever signed."""
        return any(self.rules.has_key(key_fingerprint(iss, kid, salt=salt)) for salt in self.salts.values())

    def hits(self, token: JudgedToken, *, now: float) -> Hit | None:
        """
        Return what revokes *token*, or None.

        A token once missed stays missed by this list object at any later *now*.

        Args:
            token: A token whose signature was verified.
            now: Unix seconds; decides only whether a `block_until` is over.
        """
        rules, block = self.rules, self.block
        if token.issued_at < rules.all_before:
            return Hit(kind=Kind.ALL)
        for name, salt in self.salts.items():
            if block:
                for fingerprint in token.identities(salt):
                    if fingerprint in block:
                        kind = Kind.TOKEN if fingerprint is token.identities(salt)[0] else Kind.JTI
                        return Hit(kind=kind, fingerprint=fingerprint)
            hit = rules.hits(token, salt_id=name, salt=salt, now=now)
            if hit is not None:
                return hit
        return None

    def merge(
        self,
        entries: Iterable[Entry],
        *,
        now: float,
        salts: Mapping[str, bytes] = _NO_SALTS,
        block: Block | None = None,
    ) -> RevocationList:
        """
        Return this list with *entries* and *block*; this very object when they say nothing new.

        Args:
            entries: News, in any order; what is held already is harmless.
            now: Unix seconds that decide what is no longer in force. A reader whose clock may be wrong gives
                the smaller of its own and the server's, so that it forgets nothing too early.
            salts: Salts that the news need and this list may not have yet.
            block: A block of fingerprints under those salts.

        Raises:
            TooManyEntries: The list would become longer than `max_entries`. This list stays good.
            ProtocolError: A salt is missing, too short or differs from the one held. This list stays good.
        """
        all_salts = _merged_salts(self.salts, salts)
        singles: dict[bytes, int] = {}
        others: list[Entry] = []
        for entry in entries:
            _sort_in(entry, singles, others, salts=all_salts, now=now)
        merged_block = self.block if block is None else self._united(block, now=now)
        if singles:
            merged_block = merged_block.merged(singles)
        rules = self.rules.merged(others)
        merged = self._with(salts=all_salts, block=merged_block, rules=rules)
        if now >= merged.prune_at or len(merged) > self.max_entries:
            merged = merged.compact(now=now)
        if len(merged) > self.max_entries:
            raise TooManyEntries(self.max_entries)
        return merged

    def _united(self, block: Block, *, now: float) -> Block:
        """Return the tokens of this list and of *block*; where they are too many, only those in force at *now*."""
        try:
            return self.block.union(block, most=self.max_entries)
        except TooManyEntries:
            return self.block.pruned(now).union(block.pruned(now), most=self.max_entries)

    def compact(self, *, now: float) -> RevocationList:
        """Return this list without what is no longer in force at *now* (Unix seconds)."""
        return self._with(block=self.block.pruned(now), rules=self.rules.pruned(now), prune_at=now + PRUNE_SECONDS)

    def at_epoch(self, epoch: int, *, max_token_lifetime: int) -> RevocationList:
        """Return this list under another *epoch* and *max_token_lifetime* (seconds), content unchanged."""
        return self._with(epoch=epoch, max_token_lifetime=max_token_lifetime)

    def _with(self, **changes: Any) -> RevocationList:  # noqa: ANN401 -- as `dataclasses.replace`
        """Return a list with some parts replaced; this very one when all of them are the same objects."""
        same = all(
            getattr(self, name) is value or (type(value) in _PLAIN and getattr(self, name) == value)
            for name, value in changes.items()
        )
        return self if same else replace(self, **changes)

    def __repr__(self) -> str:
        return f"<RevocationList of {len(self)} entries, epoch {self.epoch}>"


def _sort_in(
    entry: Entry, singles: dict[bytes, int], others: list[Entry], *, salts: Mapping[str, bytes], now: float
) -> None:
    """Put *entry* where it belongs, unless it is over already."""
    if entry.salt is not None and entry.salt not in salts:
        raise ProtocolError("an entry names a salt that the list does not carry")
    until = entry.in_force_until
    if until is not None and until <= now:
        return
    if entry.single and entry.fingerprint is not None and until is not None:
        if singles.get(entry.fingerprint, 0) < until:
            singles[entry.fingerprint] = until
    else:
        others.append(entry)


def _merged_salts(held: Mapping[str, bytes], news: Mapping[str, bytes]) -> Mapping[str, bytes]:
    for name, salt in news.items():
        if len(salt) < MIN_SALT_BYTES:
            raise ProtocolError(f"a salt has at least {MIN_SALT_BYTES} bytes")
        if held.get(name, salt) != salt:
            raise ProtocolError("one salt id stands for two salts")
    if news.keys() <= held.keys():
        return held
    merged = MappingProxyType({**held, **news})
    if len(merged) > MAX_SALTS:
        raise ProtocolError(f"a list has at most {MAX_SALTS} salts")
    return merged
