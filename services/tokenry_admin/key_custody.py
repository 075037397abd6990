"""Who holds the private half of a new key: it is sealed into its object, or never leaves a key management service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from tokenry.errors import TokenryError
from tokenry.jose.jwk import BadSignature, PrivateKey
from tokenry.jose.probe import check_key
from tokenry.jose.remote import public_key_from_spki
from tokenry_registry.signing_keys import KeyUse, StoredKey, open_key, remote_key

if TYPE_CHECKING:
    from tokenry.jose.sealing import EnvelopeKey
    from tokenry_registry.key_management import KeyManagement
    from tokenry_registry.key_schedule import KeyTimes


class KeyNotMade(TokenryError):
    """A key was made that does not work; nothing was written."""


class Custody(Protocol):
    """Makes keys."""

    async def make(self, use: KeyUse, times: KeyTimes) -> StoredKey:
        """
        Return a new key for *use* with *times*, whose kid is still empty; it has signed and verified a probe.

        Raises:
            KeyManagementUnavailable: The key management service did not make it.
            KeyNotMade: It does not work.
        """
        ...

    async def discard(self, key: StoredKey) -> None:
        """Let go of *key*, which was not stored."""
        ...


class SealedCustody:
    """Keys that are sealed with an envelope key."""

    def __init__(self, envelope: EnvelopeKey) -> None:
        """Seal with *envelope*."""
        self._envelope = envelope

    async def make(self, use: KeyUse, times: KeyTimes) -> StoredKey:
        """Return a new key for *use*."""
        private = PrivateKey.generate()
        stored = StoredKey(
            kid=private.kid,
            use=use,
            times=times.named(private.kid),
            public_jwk=private.public.to_jwk(),
            sealed=self._envelope.seal(private.to_pkcs8_der(), kid=private.kid, use=str(use)),
        )
        open_key(stored, envelope=self._envelope)
        return stored

    async def discard(self, key: StoredKey) -> None:
        """Do nothing: it is nowhere."""


class ManagedCustody:
    """Keys that a key management service makes and keeps."""

    def __init__(self, management: KeyManagement) -> None:
        """Have *management* make them."""
        self._management = management

    async def make(self, use: KeyUse, times: KeyTimes) -> StoredKey:
        """Return a new key for *use*."""
        return await asyncio.to_thread(self._make, use, times)

    def _make(self, use: KeyUse, times: KeyTimes) -> StoredKey:
        key_id = self._management.create(use=str(use))
        public = public_key_from_spki(self._management.public_key(key_id))
        stored = StoredKey(
            kid=public.kid,
            use=use,
            times=times.named(public.kid),
            public_jwk=public.to_jwk(),
            kms_key_id=key_id,
        )
        signing = remote_key(stored, management=self._management)
        try:
            check_key(signing.private, signing.public)
        except BadSignature:
            raise KeyNotMade(f"the new key {key_id} does not sign what its public half verifies") from None
        return stored

    async def discard(self, key: StoredKey) -> None:
        """Have the service delete it, after its waiting time."""
        if key.kms_key_id is not None:
            await asyncio.to_thread(self._management.discard, key.kms_key_id)
