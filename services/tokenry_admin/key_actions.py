"""What people and the clock do with keys: the same for the command line, the HTTP interface and the rotation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import structlog

from tokenry_admin import key_rotation
from tokenry_admin.key_rotation import NoSuchKey
from tokenry_registry.key_schedule import KeySchedule
from tokenry_registry.ports import WriteConflict
from tokenry_registry.signing_keys import KeyUse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tokenry.clock import Clock
    from tokenry_admin.key_rotation import RotationPolicy, Write
    from tokenry_admin.key_store import KeyListing, KeyStore
    from tokenry_registry.key_schedule import KeyTimes
    from tokenry_registry.signing_keys import StoredKey

ATTEMPTS = 4  # readings when others write at the same time: after that, somebody writes all the time
REVOKED = "revoked"

_log = structlog.get_logger("tokenry_admin.keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """
    A key as people see it; times are Unix seconds.

    Attributes:
        kid: Key id.
        use: What it signs.
        alg: Its algorithm.
        custody: `file` (sealed) or `kms`.
        state: `scheduled`, `published`, `active`, `retiring`, `retired`, or `revoked`.
        publish_at: From when it is in the JWK Set.
        activate_at: From when it signs.
        signs_until: When another takes over; None while none will.
        retire_at: When it leaves the JWK Set by itself.
        removable_at: From when nothing that it signed is in use; None while it has no end.
        kms_key_id: Its id in the key management service.
    """

    kid: str
    use: str
    alg: str
    custody: str
    state: str
    publish_at: int
    activate_at: int
    signs_until: int | None
    retire_at: int
    removable_at: int | None
    kms_key_id: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the members of its JSON form."""
        return asdict(self)


class KeyActions:
    """
    Looks at keys and changes them.

    Every change raises what `KeyStore.carry_out` does.
    """

    def __init__(
        self,
        store: KeyStore,
        policies: Mapping[KeyUse, RotationPolicy],
        *,
        clock: Clock,
        revoked: Callable[[Collection[str]], Collection[str]] = lambda _kids: (),
    ) -> None:
        """
        Act on *store*.

        Args:
            store: The keys.
            policies: How the keys of each use that is kept here succeed one another.
            clock: Where the time comes from.
            revoked: Returns which of some kids are revoked, by the list of revocations.
        """
        self._store = store
        self._policies = policies
        self._clock = clock
        self._revoked = revoked

    @property
    def uses(self) -> tuple[KeyUse, ...]:
        """The uses that are kept here."""
        return tuple(self._policies)

    async def views(self, use: KeyUse | None = None) -> tuple[tuple[KeyView, ...], Mapping[str, str]]:
        """Return all keys (of *use*), those of one use together and the newest first, and why others are refused."""
        listing = await self._store.listing()
        views: list[KeyView] = []
        for each in KeyUse:
            if use in {None, each}:
                views += self._views(each, listing)
        return tuple(views), listing.refused

    async def view(self, kid: str) -> KeyView:
        """
        Return the key *kid*.

        Raises:
            NoSuchKey: There is none.
        """
        views, _ = await self.views()
        for view in views:
            if view.kid == kid:
                return view
        raise NoSuchKey(f"there is no key {kid}")

    async def next_rotation_at(self) -> int | None:
        """Return when the next key for tokens begins to sign."""
        times = (await self._store.listing()).times(KeyUse.TOKEN)
        return key_rotation.next_rotation(times, now=self._now(), revoked=self._revoked_of(times))

    async def rotate_due(self, use: KeyUse) -> tuple[StoredKey, ...]:
        """Write what is due for *use*: nothing, most of the time; return what was written."""
        policy = self._policy(use)
        return await self._change(
            use,
            lambda keys, revoked: key_rotation.due(keys, now=self._now(), policy=policy, revoked=revoked),
        )

    async def rotate(self, use: KeyUse) -> tuple[StoredKey, ...]:
        """Let the standby for *use* sign as soon as all caches know it, with another one behind it."""
        policy = self._policy(use)
        due = await self.rotate_due(use)
        return due + await self._change(
            use,
            lambda keys, revoked: key_rotation.rotation(keys, now=self._now(), policy=policy, revoked=revoked),
        )

    async def publish(self, use: KeyUse) -> tuple[StoredKey, ...]:
        """Publish one more standby for *use*."""
        policy = self._policy(use)
        due = await self.rotate_due(use)
        return due + await self._change(
            use,
            lambda keys, revoked: key_rotation.another(keys, now=self._now(), policy=policy, revoked=revoked),
        )

    async def leaked(self, kid: str) -> tuple[StoredKey, ...]:
        """
        Take the key *kid* away at once, let the standby sign, and make what is missing after that.

        Raises:
            NoSuchKey: There is no such key, or its life is over.
        """
        use = await self._use_of(kid)
        policy = self._policy(use)
        ended = await self._change(
            use,
            lambda keys, revoked: key_rotation.leaked(keys, kid, now=self._now(), policy=policy, revoked=revoked),
        )
        return ended + await self.rotate_due(use)

    async def retire(self, kid: str) -> tuple[StoredKey, ...]:
        """
        Take the key *kid* out of the JWK Set before its time.

        Raises:
            NoSuchKey: There is no such key, or its life is over.
            KeyNeeded: Something that it signed may be in use, or it is needed to sign.
        """
        use = await self._use_of(kid)
        policy = self._policy(use)
        return await self._change(
            use,
            lambda keys, revoked: key_rotation.retirement(keys, kid, now=self._now(), policy=policy, revoked=revoked),
        )

    async def _change(
        self, use: KeyUse, plan: Callable[[tuple[KeyTimes, ...], Collection[str]], tuple[Write, ...]]
    ) -> tuple[StoredKey, ...]:
        for attempt in range(ATTEMPTS):
            listing = await self._store.listing()
            times = listing.times(use)
            try:
                return await self._store.carry_out(use, plan(times, self._revoked_of(times)), listing)
            except WriteConflict:
                _log.info("somebody else changes keys too; reading again", use=str(use), attempt=attempt + 1)
        raise WriteConflict

    def _views(self, use: KeyUse, listing: KeyListing) -> list[KeyView]:
        now, times, policy = self._now(), listing.times(use), self._policies.get(use)
        revoked = self._revoked_of(times)
        usable = [key for key in times if key.kid not in revoked]
        lifetime = 0 if policy is None else policy.lifetime
        schedule = KeySchedule(tuple(usable), 0 if policy is None else policy.announce)
        views = []
        for stored in sorted(listing.stored(use), key=lambda key: (-key.times.activate_at, key.kid)):
            key, others = stored.times, usable
            views.append(
                KeyView(
                    kid=stored.kid,
                    use=str(use),
                    alg="ES256",
                    custody="file" if stored.kms_key_id is None else "kms",
                    state=REVOKED if key.kid in revoked else str(schedule.state(key, now, lifetime=lifetime)),
                    publish_at=key.publish_at,
                    activate_at=key.activate_at,
                    signs_until=key_rotation.signs_until(key, others, announce=schedule.announce),
                    retire_at=key.retire_at,
                    removable_at=None if policy is None else key_rotation.removable_after(key, others, policy=policy),
                    kms_key_id=stored.kms_key_id,
                )
            )
        return views

    async def _use_of(self, kid: str) -> KeyUse:
        found = (await self._store.listing()).keys.get(kid)
        if found is None:
            raise NoSuchKey(f"there is no key {kid}")
        return found[0].use

    def _policy(self, use: KeyUse) -> RotationPolicy:
        policy = self._policies.get(use)
        if policy is None:
            raise NoSuchKey(f"keys for the use {use} are not kept here: their envelope key is not configured")
        return policy

    def _revoked_of(self, keys: Collection[KeyTimes]) -> Collection[str]:
        return self._revoked({key.kid for key in keys})

    def _now(self) -> int:
        return int(self._clock.now())
