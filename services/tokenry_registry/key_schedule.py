"""
The life of signing keys as a pure function of now.

==========  ===========================================================================================
scheduled   known, not shown to anybody yet
published   in the JWK Set and not signing: every validator gets to know it before it meets its tokens
active      signs; exactly one, the newest
retiring    in the JWK Set and no longer signing, until the last token that it signed has expired
retired     gone from the JWK Set
==========  ===========================================================================================

Invariants:

* A key signs only while it will stay published for longer than the token lives that it signs.
* A key that has not been published for the announce time signs only when there is no other: a validator that
  does not know it refetches once, whereas without any key nobody gets a token.
* When the active key goes away (revoked, removed, about to retire), the announced standby signs at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

VALIDATORS_REFRESH = 300  # seconds: the slowest refresh of a JWK Set that validators of ours are allowed
CLOCK_MARGIN = 60  # seconds: the largest leeway and skew that any validator may have


class KeyState(StrEnum):
    """Where a key is in its life."""

    SCHEDULED = "scheduled"
    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTimes:
    """
    When a key changes its state; Unix seconds.

    Attributes:
        kid: Key id.
        publish_at: It enters the JWK Set.
        activate_at: It begins to sign, if it is the newest.
        retire_at: It leaves the JWK Set.
    """

    kid: str
    publish_at: int
    activate_at: int
    retire_at: int

    def __post_init__(self) -> None:
        """Refuse times that are out of order."""
        if not self.publish_at <= self.activate_at < self.retire_at:
            raise ValueError("a key is published, then active, then retired")

    def published(self, now: float) -> bool:
        """Tell whether the key is in the JWK Set at *now*."""
        return self.publish_at <= now < self.retire_at

    def named(self, kid: str) -> KeyTimes:
        """Return the same times of the key *kid*."""
        return replace(self, kid=kid)


def announce_time(*, jwks_max_age: int) -> int:
    """Return the seconds that a key is published before it signs, so that every cache has it by then."""
    return jwks_max_age + VALIDATORS_REFRESH + CLOCK_MARGIN


@dataclass(frozen=True, slots=True)
class KeySchedule:
    """
    The keys of one issuer and when each does what.

    Attributes:
        keys: All keys, in any state.
        announce: Seconds for which a key is published before it signs.
    """

    keys: tuple[KeyTimes, ...]
    announce: int

    def without(self, kids: Collection[str]) -> KeySchedule:
        """Return the schedule without the (revoked) *kids*."""
        return KeySchedule(tuple(key for key in self.keys if key.kid not in kids), self.announce)

    def published(self, now: float) -> tuple[KeyTimes, ...]:
        """Return the keys of the JWK Set at *now*, the oldest first."""
        return tuple(sorted((key for key in self.keys if key.published(now)), key=_age))

    def signing(self, now: float, *, lifetime: int) -> KeyTimes | None:
        """
        Return the key that signs at *now* a token that lives *lifetime* seconds, or None.

        1. the newest that is due and announced; 2. else the announced one that is due next; 3. else the
        newest that is due; 4. else the one that has been published for the longest.
        """
        usable = [key for key in self.published(now) if key.retire_at >= now + lifetime + CLOCK_MARGIN]
        due = [key for key in usable if key.activate_at <= now]
        announced = [key for key in usable if key.publish_at + self.announce <= now]
        if both := [key for key in due if key in announced]:
            return both[-1]
        if announced:
            return announced[0]
        if due:
            return due[-1]
        return min(usable, key=lambda key: (key.publish_at, key.kid), default=None)

    def standby(self, now: float, *, lifetime: int) -> KeyTimes | None:
        """Return the key that would sign if the active one were revoked now, or None."""
        active = self.signing(now, lifetime=lifetime)
        return None if active is None else self.without({active.kid}).signing(now, lifetime=lifetime)

    def state(self, key: KeyTimes, now: float, *, lifetime: int) -> KeyState:
        """Return the state of *key* at *now*."""
        if now < key.publish_at:
            return KeyState.SCHEDULED
        if now >= key.retire_at:
            return KeyState.RETIRED
        active = self.signing(now, lifetime=lifetime)
        if active is None or _age(active) < _age(key):
            return KeyState.PUBLISHED
        return KeyState.ACTIVE if active.kid == key.kid else KeyState.RETIRING

    def faults(self, now: float, *, lifetime: int) -> tuple[str, ...]:
        """
        Return what is wrong with the schedule from *now* on, one sentence each.

        Args:
            now: Unix seconds.
            lifetime: Seconds of the longest token.
        """
        return tuple(self._faults(now, lifetime))

    def _faults(self, now: float, lifetime: int) -> Iterator[str]:
        if self.signing(now, lifetime=lifetime) is None:
            yield "no key can sign now: publish one"
        elif self.standby(now, lifetime=lifetime) is None:
            yield "no standby key is published: a revocation of the active key would stop the issuer"
        coming = sorted((key for key in self.keys if now < key.retire_at), key=_age)
        for earlier, later in pairwise(coming):
            if later.activate_at > max(now, earlier.retire_at - lifetime - CLOCK_MARGIN):
                yield f"key {earlier.kid} stops signing before key {later.kid} begins: retire it later"
            if later.activate_at - later.publish_at < self.announce:
                yield f"key {later.kid} is published less than {self.announce} s before it signs"


def _age(key: KeyTimes) -> tuple[int, int, str]:
    return key.activate_at, key.publish_at, key.kid
