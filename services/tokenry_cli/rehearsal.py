"""`--dry-run` over the registry: everything happens as it would, but for the writes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from tokenry_registry.ports import ObjectUnreadable, StoredObject, WriteConflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry_registry.ports import WritableStore


class RehearsedStore:
    """
    Reads from a store, and keeps what would be written to itself: later reads see it, nobody else does.

    Versions are compared as the real store would; what only it knows (rights, sizes) is found out when it is real.

    Attributes:
        written: Keys that would have been written or deleted, in order.
    """

    def __init__(self, store: WritableStore) -> None:
        """Read from *store*."""
        self._store: Final = store
        self._changed: dict[str, StoredObject | None] = {}
        self.written: list[str] = []

    async def list(self, prefix: str) -> Mapping[str, str]:
        """Return keys and ETags, with what would be written."""
        found = dict(await self._store.list(prefix))
        for key, changed in self._changed.items():
            if changed is None:
                found.pop(key, None)
            elif key.startswith(prefix):
                found[key] = changed.etag
        return found

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        """Return the object at *key* as it would be, or None when its version is still *etag*."""
        if key not in self._changed:
            return await self._store.get(key, etag=etag)
        changed = self._changed[key]
        if changed is None:
            raise ObjectUnreadable("deleted")
        return None if changed.etag == etag else changed

    async def put(self, key: str, body: bytes, *, replaces: str | None) -> str:
        """Keep *body* as what would be at *key*."""
        await self._check(key, replaces)
        etag = f"rehearsed-{hashlib.sha256(body).hexdigest()[:16]}"
        self._changed[key] = StoredObject(body=body, etag=etag)
        self.written.append(key)
        return etag

    async def delete(self, key: str, *, replaces: str) -> None:
        """Keep in mind that *key* would be gone."""
        await self._check(key, replaces)
        self._changed[key] = None
        self.written.append(key)

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    async def _check(self, key: str, replaces: str | None) -> None:
        if (await self.list(key)).get(key) != replaces:
            raise WriteConflict
