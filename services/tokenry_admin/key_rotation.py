"""
What has to be written so that keys succeed one another without a gap: pure, from the keys that are there and now.

A key is published one whole turn before its own turn to sign. It signs for a *period*, could sign for an *overlap*
more if nobody rotates, and stays published until the last thing that it may have signed is over. The next key is made
an overlap before the last one that is waiting gets its turn. So there is always a published standby, and whoever
rotates may be away for an overlap without any effect, and for a period and two overlaps without an outage.

Invariants (`tests/services/admin/test_key_rotation.py` draws configurations, times and interruptions for them):

* After every single write of a plan the issuer can sign if it could before; so a plan may be cut off anywhere.
* A plan that was carried out leaves a signing key and a published standby, and planning again gives nothing.
* No plan takes a key out of the JWK Set while something that it signed may be in use, but for `leaked`.
* Two who carry out the same plan make one standby too many, and nothing worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokenry.errors import TokenryError
from tokenry_registry.key_schedule import CLOCK_MARGIN, KeySchedule, KeyState, KeyTimes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ISSUERS_REFRESH = 60  # seconds within which an issuer has read what was written, while its store answers
_NEW = ""  # the kid of a key that is not made yet
_MOST_NEW = 4  # keys made at once: one that signs, and successors for an overlap, which is no longer than a period


class KeyNeeded(TokenryError):
    """The key must stay: the text says why, and until when."""


class NoSuchKey(TokenryError):
    """There is no such key, or its life is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """
    How keys of one use succeed one another; all in seconds.

    Attributes:
        period: For how long each key signs.
        overlap: For how much longer it could, and how early its successor's successor is made.
        lifetime: How long the longest-lived thing lives that these keys sign.
        announce: For how long a key is published before it signs, so that every cache has it by then.
    """

    period: int
    overlap: int
    lifetime: int
    announce: int

    def __post_init__(self) -> None:
        """
        Refuse a policy that cannot be kept.

        Raises:
            ValueError: Says which of them have to change.
        """
        if min(self.period, self.overlap, self.lifetime, self.announce) <= 0:
            raise ValueError("period, overlap, lifetime and announce time of keys are above zero")
        if self.overlap < self.announce:
            raise ValueError(f"the overlap is shorter than the {self.announce} s for which a new key is announced")
        if self.period < self.overlap:
            raise ValueError("the period is shorter than the overlap")

    @property
    def life(self) -> int:
        """Seconds from a key's first signature until it leaves the JWK Set."""
        return self.period + self.overlap + self.lifetime + CLOCK_MARGIN


@dataclass(frozen=True, slots=True)
class NewKey:
    """
    A key that has to be made.

    Attributes:
        times: When it does what; it has no kid yet.
    """

    times: KeyTimes


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """
    A key whose times change.

    Attributes:
        before: What is stored; if it is not any more, the plan is void.
        after: What takes its place.
    """

    before: KeyTimes
    after: KeyTimes


Write = NewKey | ChangedKey


def due(
    keys: Collection[KeyTimes], *, now: int, policy: RotationPolicy, revoked: Collection[str] = ()
) -> tuple[Write, ...]:
    """
    Return what has to be written now so that one key signs and a standby is published; nothing, most of the time.

    1. the key that signs, if there is none: at once, since any key is better than none;
    2. a standby that signs already, because the key before it has gone, has its turn from now on;
    3. a standby whose turn would come only after the signing key's end, as when an older key has to sign once more
       in the place of one that has gone, has it earlier;
    4. the next keys, until one that is published waits for more than an overlap.

    Args:
        keys: All keys of one use.
        now: Unix seconds.
        policy: How they succeed one another.
        revoked: Kids that must not be used.
    """
    writes: list[Write] = []
    alive = [key for key in keys if key.kid not in revoked and now < key.retire_at]
    signer = KeySchedule(tuple(alive), policy.announce).signing(now, lifetime=policy.lifetime)
    if signer is None:
        # Nobody has cached a key set that never was, so the first keys count as announced.
        signer = _new(now, publish_at=now if keys else now - policy.announce, policy=policy)
        writes.append(NewKey(signer))
        alive.append(signer)
    elif signer.activate_at > now:
        begun = replace(signer, activate_at=now)
        writes.append(ChangedKey(signer, begun))
        alive[alive.index(signer)] = signer = begun
    if (earlier := _earlier(alive, signer, now, policy)) is not None:
        writes.append(earlier)
        alive[alive.index(earlier.before)] = earlier.after
    while len(writes) < _MOST_NEW and not _waiting(alive, signer, now, policy):
        following = _following(alive, now, policy, first=not keys)
        writes.append(NewKey(following))
        alive.append(following)
    return tuple(writes)


def rotation(
    keys: Collection[KeyTimes], *, now: int, policy: RotationPolicy, revoked: Collection[str] = ()
) -> tuple[Write, ...]:
    """
    Return what lets the standby sign as early as all caches know it; nothing while such a change is under way.

    For keys of which nothing is `due`. The next standby is made first, so that there is one all the time.

    Raises:
        NoSuchKey: There is no standby: something is due.
    """
    alive = [key for key in keys if key.kid not in revoked and now < key.retire_at]
    signer = KeySchedule(tuple(alive), policy.announce).signing(now, lifetime=policy.lifetime)
    waiting = sorted((key for key in alive if key != signer and key.activate_at > now and key.published(now)), key=_age)
    if signer is None or not waiting:
        raise NoSuchKey("there is no standby that could begin to sign")
    standby = waiting[0]
    # After the one that signs, also within its first second: the newest signs.
    begins = max(now, standby.publish_at + policy.announce, signer.activate_at + 1)
    if begins >= standby.activate_at:
        return ()
    begun = ChangedKey(standby, replace(standby, activate_at=begins))
    if waiting[1:] and waiting[1].activate_at > begins + policy.overlap:
        return (begun,)
    return (NewKey(_new(begins + policy.period, publish_at=now, policy=policy)), begun)


def another(
    keys: Collection[KeyTimes], *, now: int, policy: RotationPolicy, revoked: Collection[str] = ()
) -> tuple[Write, ...]:
    """Return what publishes one more standby, which signs when all that wait now have had their turn."""
    alive = [key for key in keys if key.kid not in revoked and now < key.retire_at]
    return (NewKey(_following(alive, now, policy, first=not keys)),)


def leaked(
    keys: Collection[KeyTimes], kid: str, *, now: int, policy: RotationPolicy, revoked: Collection[str] = ()
) -> tuple[Write, ...]:
    """
    Return what takes the key *kid* away at once and lets the standby sign; what is `due` comes after it.

    Without a standby a new key comes first: it signs at once, and validators fetch it when they meet it.

    Raises:
        NoSuchKey: There is no such key, or its life is over.
    """
    key = _find(keys, kid, now)
    others = [other for other in keys if other.kid != kid and other.kid not in revoked and now < other.retire_at]
    writes: list[Write] = []
    if KeySchedule(tuple(others), policy.announce).signing(now, lifetime=policy.lifetime) is None:
        writes.append(NewKey(_new(now, publish_at=now, policy=policy)))
    return (*writes, ChangedKey(key, _ended(key, now)))


def retirement(
    keys: Collection[KeyTimes], kid: str, *, now: int, policy: RotationPolicy, revoked: Collection[str] = ()
) -> tuple[Write, ...]:
    """
    Return what takes the key *kid* out of the JWK Set now, earlier than by itself.

    Raises:
        NoSuchKey: There is no such key, or its life is over.
        KeyNeeded: It signs, is the only standby, or something that it signed may be in use.
    """
    key = _find(keys, kid, now)
    usable = [other for other in keys if other.kid not in revoked]
    left = KeySchedule(tuple(other for other in usable if other.kid != kid), policy.announce)
    if kid not in revoked:
        schedule = KeySchedule(tuple(usable), policy.announce)
        state = schedule.state(key, now, lifetime=policy.lifetime)
        if state is KeyState.ACTIVE:
            raise KeyNeeded(f"the key {kid} signs now: rotate first")
        if left.standby(now, lifetime=policy.lifetime) is None:
            raise KeyNeeded(f"the key {kid} is the only standby: publish another one first")
        until = removable_after(key, keys, policy=policy)
        if state is KeyState.RETIRING and (until is None or now < until):
            raise KeyNeeded(
                f"something that the key {kid} signed may be in use"
                + ("" if until is None else f" for {until - now} s more: it may be retired after that")
            )
    return (ChangedKey(key, _ended(key, now)),)


def signs_until(key: KeyTimes, keys: Collection[KeyTimes], *, announce: int) -> int | None:
    """Return the Unix second from which another of *keys* signs in the place of *key*; None while none will."""
    newer = [other for other in keys if _age(other) > _age(key)]
    return min((max(other.activate_at, other.publish_at + announce) for other in newer), default=None)


def removable_after(key: KeyTimes, keys: Collection[KeyTimes], *, policy: RotationPolicy) -> int | None:
    """Return the Unix second from which nothing that *key* signed is in use any more; None while it has no end."""
    until = signs_until(key, keys, announce=policy.announce)
    return None if until is None else until + ISSUERS_REFRESH + policy.lifetime + CLOCK_MARGIN


def next_rotation(keys: Collection[KeyTimes], *, now: int, revoked: Collection[str] = ()) -> int | None:
    """Return the Unix second at which the next key begins to sign; None when none is waiting."""
    alive = [key for key in keys if key.kid not in revoked and now < key.retire_at]
    return min((key.activate_at for key in alive if key.activate_at > now), default=None)


def _waiting(alive: Iterable[KeyTimes], signer: KeyTimes, now: int, policy: RotationPolicy) -> bool:
    """Tell whether a published key other than *signer* waits for more than an overlap, and can sign then."""
    return any(
        key != signer
        and key.published(now)
        and key.activate_at > now + policy.overlap
        and key.retire_at >= key.activate_at + policy.lifetime + CLOCK_MARGIN
        for key in alive
    )


def _earlier(alive: Iterable[KeyTimes], signer: KeyTimes, now: int, policy: RotationPolicy) -> ChangedKey | None:
    """Return what lets the next key begin before *signer* ends, if it would not."""
    following = min((key for key in alive if key != signer and key.activate_at > now), key=_age, default=None)
    ends = signer.retire_at - policy.lifetime - CLOCK_MARGIN
    if following is None or following.activate_at <= ends:
        return None
    begins = max(now, following.publish_at + policy.announce, ends - policy.overlap)
    return ChangedKey(following, replace(following, activate_at=begins)) if begins < following.activate_at else None


def _following(alive: Collection[KeyTimes], now: int, policy: RotationPolicy, *, first: bool) -> KeyTimes:
    """Return a key that follows the last of *alive*: a period after it, before it ends, and announced."""
    last = max(alive, key=_age, default=None)
    begins = now
    if last is not None:
        before_its_end = last.retire_at - policy.lifetime - CLOCK_MARGIN - policy.overlap
        begins = min(last.activate_at + policy.period, before_its_end, now + policy.period + policy.overlap)
    publish_at = now - policy.announce if first else now
    return _new(max(begins, publish_at + policy.announce), publish_at=publish_at, policy=policy)


def _new(activate_at: int, *, publish_at: int, policy: RotationPolicy) -> KeyTimes:
    return KeyTimes(kid=_NEW, publish_at=publish_at, activate_at=activate_at, retire_at=activate_at + policy.life)


def _ended(key: KeyTimes, now: int) -> KeyTimes:
    activate_at = min(key.activate_at, now - 1)
    return replace(key, publish_at=min(key.publish_at, activate_at), activate_at=activate_at, retire_at=now)


def _find(keys: Iterable[KeyTimes], kid: str, now: int) -> KeyTimes:
    for key in keys:
        if key.kid == kid:
            if key.retire_at <= now:
                raise NoSuchKey(f"the key {kid} has left the JWK Set already")
            return key
    raise NoSuchKey(f"there is no key {kid}")


def _age(key: KeyTimes) -> tuple[int, int, str]:
    return key.activate_at, key.publish_at, key.kid
