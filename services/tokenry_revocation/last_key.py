"""
The issuer keeps a key to sign with, also when several replicas are asked to revoke its keys at once.

A revoked key never comes back, so the last one is not revoked. One replica alone could look and then write; two that
are asked at the same moment for two keys would each find the other one good. So an attempt announces itself in the
store before it looks who else does: with writes and reads at a quorum, of two attempts at least one sees the other,
and gives way. No lock is held: an attempt that ends without a word is forgotten after `ANNOUNCED_SECONDS`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from tokenry_revocation.acceptance import Conflict
from tokenry_revocation.ports import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tokenry_revocation.ports import RevocationStore

GROUP: Final = "keys that are being revoked"
# Longer than a write may take, and than a list may be old by which the next attempt judges (`LIST_SECONDS`).
ANNOUNCED_SECONDS: Final = 600
LIST_SECONDS: Final = 60.0

_WITHDRAWN: Final = b""
_SOON: Final = 1


class LastKey:
    """Announces attempts to revoke keys of our issuer."""

    def __init__(self, store: RevocationStore, *, new_name: Callable[[], str]) -> None:
        """Announce in *store*; *new_name* gives each attempt a name that no other one has."""
        self._store = store
        self._new_name = new_name

    @asynccontextmanager
    async def announced(self, fingerprint: bytes) -> AsyncIterator[frozenset[bytes]]:
        """
        Announce that the key with *fingerprint* is being revoked, and yield the keys of all other attempts.

        An attempt that ends with `Conflict` is withdrawn; one that may have been stored is not.

        Raises:
            StoreUnavailable: The store does not answer; nothing was revoked.
        """
        name = self._new_name()
        await self._store.remember_member(GROUP, name, fingerprint, ttl_seconds=ANNOUNCED_SECONDS)
        members = await self._store.recall_members(GROUP)
        try:
            yield frozenset(each for each in members.values() if each not in {_WITHDRAWN, fingerprint})
        except Conflict:
            with suppress(StoreUnavailable):
                await self._store.remember_member(GROUP, name, _WITHDRAWN, ttl_seconds=_SOON)
            raise
