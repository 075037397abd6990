"""
The keys as they are stored, and carrying out what was planned for them.

Each write names the version that it replaces; a key that is new is written where none is. So two who write at once
cannot undo each other: the second one is told, reads again and plans again. A write whose answer was lost is found, or
missed, by the next reading.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from tokenry.errors import TokenryError
from tokenry_admin.key_rotation import NewKey
from tokenry_registry.key_management import KeyManagementUnavailable
from tokenry_registry.ports import GONE, ObjectUnreadable, WriteConflict, WriteRefused
from tokenry_registry.realms import RefusedObject
from tokenry_registry.signing_keys import KEYS_PREFIX, KeyUse, StoredKey, published_key, read_key_name, read_stored_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenry_admin.key_custody import Custody
    from tokenry_admin.key_rotation import Write
    from tokenry_registry.key_schedule import KeyTimes
    from tokenry_registry.ports import WritableStore

_log = structlog.get_logger("tokenry_admin.keys")


class NoCustody(TokenryError):
    """Nothing here can make keys for that use: its envelope key is not configured."""


@dataclass(frozen=True, slots=True)
class KeyListing:
    """
    The stored keys at one moment.

    Attributes:
        keys: Those that could be read, each with its version, by kid.
        refused: Why others could not, by their place.
    """

    keys: Mapping[str, tuple[StoredKey, str]]
    refused: Mapping[str, str]

    def times(self, use: KeyUse) -> tuple[KeyTimes, ...]:
        """Return the times of the keys for *use*."""
        return tuple(key.times for key, _ in self.keys.values() if key.use is use)

    def stored(self, use: KeyUse) -> tuple[StoredKey, ...]:
        """Return the keys for *use*."""
        return tuple(key for key, _ in self.keys.values() if key.use is use)


class KeyStore:
    """Reads and writes the stored keys."""

    def __init__(self, store: WritableStore, custodies: Mapping[KeyUse, Custody]) -> None:
        """Keep keys in *store*; new ones are made by the one of *custodies* that is for their use."""
        self._store = store
        self._custodies = custodies

    async def listing(self) -> KeyListing:
        """
        Return what is stored.

        Raises:
            StoreUnavailable: It cannot be told.
        """
        keys: dict[str, tuple[StoredKey, str]] = {}
        refused: dict[str, str] = {}
        for path in sorted(await self._store.list(KEYS_PREFIX)):
            try:
                found = await self._store.get(path)
                if found is not None:
                    stored = read_stored_key(found.body, kid=read_key_name(path))
                    published_key(stored)
                    keys[stored.kid] = stored, found.etag
            except RefusedObject as error:
                refused[path] = str(error)
            except ObjectUnreadable as error:
                if error.code != GONE:  # else deleted since it was listed
                    refused[path] = str(error)
        return KeyListing(keys, refused)

    async def carry_out(self, use: KeyUse, writes: Sequence[Write], listing: KeyListing) -> tuple[StoredKey, ...]:
        """
        Write what was planned from *listing*, in order; return what was written.

        Raises:
            WriteConflict: Somebody else has written; what came before that write stands, and a new plan goes on.
            WriteRefused: It is not allowed.
            StoreUnavailable: It is not known whether the last one was written.
            KeyManagementUnavailable: A key could not be made.
            KeyNotMade: A key that was made does not work.
            NoCustody: Keys for *use* cannot be made here.
        """
        written = []
        for write in writes:
            if isinstance(write, NewKey):
                written.append(await self._create(use, write.times))
            else:
                written.append(await self._change(write.before, write.after, listing))
        return tuple(written)

    async def _create(self, use: KeyUse, times: KeyTimes) -> StoredKey:
        custody = self._custodies.get(use)
        if custody is None:
            raise NoCustody(f"keys for the use {use} cannot be made here: their envelope key is not configured")
        made = await custody.make(use, times)
        try:
            await self._store.put(f"{KEYS_PREFIX}{made.kid}.json", made.to_json(), replaces=None)
        except (WriteConflict, WriteRefused):
            with suppress(KeyManagementUnavailable):
                await custody.discard(made)
            raise
        _log.info("key made", kid=made.kid, use=str(use), activate_at=times.activate_at)
        return made

    async def _change(self, before: KeyTimes, after: KeyTimes, listing: KeyListing) -> StoredKey:
        stored, etag = listing.keys[before.kid]
        if stored.times != before:
            raise WriteConflict
        changed = replace(stored, times=after)
        await self._store.put(f"{KEYS_PREFIX}{changed.kid}.json", changed.to_json(), replaces=etag)
        _log.info(
            "key changed", kid=changed.kid, use=str(changed.use), activate_at=after.activate_at,
            retire_at=after.retire_at,
        )  # fmt: skip
        return changed
