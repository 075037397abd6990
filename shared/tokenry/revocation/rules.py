"""
The part of a revocation list that is kept entry by entry: rules, keys, undos, and what may be undone.

Invariants:
    * `Rules` never change. The indexes follow from the entries alone, whatever the order of their arrival.
    * An undo lifts every entry with the id that it names, before or after its own arrival, except keys and
      those tokens and ids that are not `undoable`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenry.revocation.entries import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenry.revocation.judged import JudgedToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """
    What revoked a token.

    Attributes:
        kind: Of the entry.
        fingerprint: Of the entry; None for `all`. May be counted and reported.
        id: Of the revocation, where the list still knows it.
    """

    kind: Kind
    fingerprint: bytes | None = None
    id: str | None = None


class _Cut(NamedTuple):
    """What the rules with one fingerprint add up to: the latest of each, and where it came from."""

    issued_before: int
    id: str
    block_until: int = 0
    block_id: str = ""

    def joined(self, other: _Cut) -> _Cut:
        return _Cut(
            *max((self.issued_before, self.id), (other.issued_before, other.id)),
            *max((self.block_until, self.block_id), (other.block_until, other.block_id)),
        )


_Claims = dict[tuple[str, ...], dict[bytes, _Cut]]
_NO_CLAIMS: Final[_Claims] = {}


class Rules:
    """
    Entries with the indexes that a look-up needs.

    Attributes:
        all_before: The latest cut-off for all tokens, or 0.
        has_blocks: Whether a rule in force has a `block_until`.
    """

    __slots__ = ("_claims", "_entries", "_keys", "_singles", "_undone", "all_before", "has_blocks")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Index *entries*."""
        self._entries: dict[Entry, None] = dict.fromkeys(entries)
        self._undone = frozenset(entry.undoes for entry in self._entries if entry.kind is Kind.UNDO)
        self._claims: dict[str | None, _Claims] = {}
        self._keys: dict[bytes | None, str] = {}
        self._singles: dict[bytes | None, Hit] = {}
        self.all_before = 0
        self.has_blocks = False
        for entry in self._entries:
            self._index(entry)

    def _index(self, entry: Entry) -> None:
        kind = entry.kind
        if kind is Kind.KEY:
            self._keys[entry.fingerprint] = entry.id
        elif kind is Kind.UNDO or entry.id in self._undone:
            return
        elif kind is Kind.CLAIMS:
            self._index_claims(entry)
        elif kind is Kind.ALL:
            self.all_before = max(self.all_before, entry.issued_before or 0)
        else:
            self._singles[entry.fingerprint] = Hit(kind=kind, fingerprint=entry.fingerprint, id=entry.id)

    def _index_claims(self, entry: Entry) -> None:
        cuts = self._claims.setdefault(entry.salt, {}).setdefault(entry.names, {})
        assert entry.fingerprint is not None, "an entry checks itself"  # noqa: S101 -- for the type checker
        cut = _Cut(entry.issued_before or 0, entry.id, entry.block_until or 0, entry.id)
        held = cuts.get(entry.fingerprint)
        cuts[entry.fingerprint] = cut if held is None else held.joined(cut)
        self.has_blocks |= cut.block_until > 0

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether *entry* is held."""
        return entry in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, in a canonical order, those that were undone among them."""
        return tuple(sorted(self._entries, key=repr))

    def merged(self, news: Iterable[Entry]) -> Rules:
        """Return these rules with *news*; this very object when all of them are held."""
        new = [entry for entry in news if entry not in self._entries]
        if not new:
            return self
        if any(entry.kind is Kind.UNDO for entry in new):  # it may lift what is indexed already
            return Rules((*self._entries, *new))
        return self._extended(new)

    def _extended(self, new: Iterable[Entry]) -> Rules:
        """Add *new*, no undo among them, to copies of the indexes: far quicker than to index all again."""
        rules = Rules()
        rules._entries = self._entries | dict.fromkeys(new)
        rules._undone = self._undone
        rules._claims = {
            salt: {names: cuts.copy() for names, cuts in claims.items()} for salt, claims in self._claims.items()
        }
        rules._keys = self._keys.copy()
        rules._singles = self._singles.copy()
        rules.all_before = self.all_before
        rules.has_blocks = self.has_blocks
        for entry in new:
            rules._index(entry)
        return rules

    def pruned(self, now: float) -> Rules:
        """Return the rules in force later than *now*; this very object when those are all."""
        alive = [e for e in self._entries if e.in_force_until is None or e.in_force_until > now]
        return self if len(alive) == len(self._entries) else Rules(alive)

    def has_key(self, fingerprint: bytes) -> bool:
        """Tell whether the key with this *fingerprint* is revoked."""
        return fingerprint in self._keys

    def hits(self, token: JudgedToken, *, salt_id: str, salt: bytes, now: float) -> Hit | None:
        """Return what revokes *token* among the entries under *salt*."""
        if self._singles:
            for fingerprint in token.identities(salt):
                if fingerprint in self._singles:
                    return self._singles[fingerprint]
        if self._keys and (key := token.key(salt)) in self._keys:
            return Hit(kind=Kind.KEY, fingerprint=key, id=self._keys[key])
        for names, cuts in self._claims.get(salt_id, _NO_CLAIMS).items():
            for fingerprint in token.carried(salt, names):
                cut = cuts.get(fingerprint)
                if cut is None:
                    continue
                if token.issued_at < cut.issued_before:
                    return Hit(kind=Kind.CLAIMS, fingerprint=fingerprint, id=cut.id)
                if now < cut.block_until:
                    return Hit(kind=Kind.CLAIMS, fingerprint=fingerprint, id=cut.block_id)
        return None
