"""The credentials in force: read from the store in the background, answered from memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from tokenry_issuer.mirror import Mirror
from tokenry_issuer.registry import Registry, Value, assemble, check_removals
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import ObjectKey, Refusal, RefusedObject, read_key, read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry.clock import Clock
    from tokenry_registry.ports import ObjectStore

REALMS_PREFIX = "realms/"

_log = structlog.get_logger("tokenry_issuer.credentials")


class Credentials:
    """Realms, clients and users, with the age of what is known about them."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        environment: str,
        max_token_lifetime: int,
        removal_share: float,
        hard_age: float,
        on_refused: Callable[[Refusal], None],
        keep: bool = False,
    ) -> None:
        """
        Know nothing yet.

        Args:
            store: Where they are kept.
            clock: For their age.
            environment: The environment that this issuer serves.
            max_token_lifetime: Seconds; the platform's bound on every token.
            removal_share: See `registry.check_removals`.
            hard_age: Seconds after the last complete refresh from which they are no longer believed.
            on_refused: Called once for each refused version of an object.
            keep: Whether the objects are kept as they were read, for a snapshot.
        """
        self._from_snapshot = False
        self._clock = clock
        self._hard_age = hard_age
        self._on_refused = on_refused
        self._registry: Registry | None = None
        self._changed = True
        self._confirmed_at: float | None = None
        self._taken: frozenset[ObjectKey] = frozenset()
        self._mirror: Mirror[ObjectKey, Value] = Mirror(
            store,
            REALMS_PREFIX,
            read_key=read_key,
            read=lambda key, body: read_object(
                key, body, environment=environment, max_token_lifetime=max_token_lifetime
            ),
            check=lambda before, gone: check_removals(before, gone, share=removal_share),
            on_refused=self._report,
            keep=keep,
        )

    async def refresh(self) -> None:
        """
        Bring everything up to date.

        Raises:
            StoreUnavailable: The store could not be asked, or holds no realm at all.
            RefusedObject: It would remove too much.
            TimeoutError: It takes too long.
        """
        began = self._clock.monotonic()
        await self._refresh()
        # Everything was listed after this moment.
        self._confirmed_at, self._from_snapshot = began, False

    async def restore(self, snapshot: ObjectStore, *, age: float) -> None:
        """
        Take everything from a *snapshot*, which the store confirmed *age* seconds ago.

        Raises:
            StoreUnavailable: It holds no realm that may be used.
        """
        began = self._clock.monotonic()
        await self._refresh(snapshot)
        self._confirmed_at, self._from_snapshot = began - age, True

    async def _refresh(self, source: ObjectStore | None = None) -> None:
        self._changed |= await self._mirror.refresh(source=source)
        if self._changed:
            # In a thread: with tens of thousands of names it takes longer than the event loop may stand still.
            registry, taken = await asyncio.to_thread(assemble, self._mirror.values)
            if not registry.realms:
                raise StoreUnavailable("no_realm")
            self._report_taken(frozenset(taken))
            self._registry = registry
            self._changed = False

    @property
    def loaded(self) -> bool:
        """Tell whether they were ever read."""
        return self._registry is not None

    @property
    def age(self) -> float | None:
        """Seconds since everything was last confirmed, or None before the first time."""
        return None if self._confirmed_at is None else self._clock.monotonic() - self._confirmed_at

    @property
    def from_snapshot(self) -> bool:
        """Tell whether what is in force comes from a snapshot and was not confirmed by the store since."""
        return self._from_snapshot

    @property
    def kept(self) -> Mapping[str, tuple[str, bytes]]:
        """The objects in force as they were read; a new mapping for each change."""
        return self._mirror.kept

    @property
    def refused(self) -> int:
        """How many objects have a current version that is not in force."""
        return len(self._mirror.refused) + len(self._taken)

    def current(self) -> Registry | None:
        """Return the credentials in force, or None when there are none that may be believed."""
        age = self.age
        return self._registry if age is not None and age <= self._hard_age else None

    def _report(self, path: str, refused: RefusedObject) -> None:
        _log.error("object refused", key=path, cause=str(refused.cause), detail=str(refused))
        self._on_refused(refused.cause)

    def _report_taken(self, taken: frozenset[ObjectKey]) -> None:
        for key in sorted(taken - self._taken, key=lambda key: (key.realm, key.name)):
            _log.error("user refused: a client has its name", realm=key.realm, name=key.name)
            self._on_refused(Refusal.NAME_TAKEN)
        self._taken = taken
