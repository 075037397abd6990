"""
The signing keys in force: read from the store in the background, chosen by the schedule, stopped by
revocations.

A kid that a revocation list named once is never used or published again by this process, whatever the store
holds and whatever a later list says.

A key that a key management service holds is published like any other and signs once it has proven itself there; until
then, or while it is missing in the JWK Set as the world sees it (`published.py`), it does not sign.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tokenry.jose.jwk import BadSignature
from tokenry.jose.jwks import KeySet
from tokenry.jose.probe import check_key
from tokenry_issuer.mirror import Mirror
from tokenry_issuer.remote_signing import RemoteSigning
from tokenry_registry.key_management import KeyManagementUnavailable
from tokenry_registry.key_schedule import KeySchedule
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import Refusal, RefusedObject
from tokenry_registry.signing_keys import (
    KEYS_PREFIX,
    KeyUse,
    PublishedKey,
    SigningKey,
    open_key,
    published_key,
    read_key_name,
    read_stored_key,
    remote_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from tokenry.clock import Clock
    from tokenry.jose.jwk import PublicKey
    from tokenry.jose.sealing import EnvelopeKey
    from tokenry.revocation.lists import RevocationList
    from tokenry_registry.key_management import KeyManagement
    from tokenry_registry.key_schedule import KeyState, KeyTimes
    from tokenry_registry.ports import ObjectStore

_log = structlog.get_logger("tokenry_issuer.keyring")


@dataclass(frozen=True, slots=True)
class JwkSet:
    """
    The JWK Set as published.

    Attributes:
        body: JSON.
        etag: Strong ETag, quotes included.
    """

    body: bytes
    etag: str


class Keyring:
    """The keys that sign access tokens, and the public halves of those that sign lists."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        issuer: str,
        envelope: EnvelopeKey,
        clock: Clock,
        announce: int,
        on_refused: Callable[[Refusal], None],
        management: KeyManagement | None = None,
        keep: bool = False,
    ) -> None:
        """
        Hold no key yet.

        Args:
            store: Where the keys are kept.
            issuer: The issuer identifier.
            envelope: Opens the private halves.
            clock: Decides which key is in which state.
            announce: Seconds for which a key is published before it signs.
            on_refused: Called once for each refused version of a key.
            management: Holds the keys that are not sealed; None: such keys are refused.
            keep: Whether the objects are kept as they were read, for a snapshot.

        Attributes:
            remote: Waits for *management*.
        """
        self.remote = RemoteSigning()
        self._management = management
        self._unproven: frozenset[str] = frozenset()
        self._broken: frozenset[str] = frozenset()
        self._absent: frozenset[str] = frozenset()
        self._issuer = issuer
        self._envelope = envelope
        self._clock = clock
        self._announce = announce
        self._on_refused = on_refused
        self._keys: dict[str, SigningKey] = {}
        self._schedule = KeySchedule((), announce)
        self._revoked: frozenset[str] = frozenset()
        self._judged: tuple[RevocationList, frozenset[str]] | None = None
        self._published: tuple[tuple[str, ...], JwkSet] | None = None
        self._verifying: tuple[tuple[str, ...], KeySet] | None = None
        self._signing: tuple[tuple[object, ...], SigningKey | None] | None = None  # what it was asked, and the answer
        self._others: dict[str, PublishedKey] = {}
        self._published_lists: tuple[tuple[str, ...], JwkSet] | None = None
        self._mirror: Mirror[str, SigningKey | PublishedKey] = Mirror(
            store,
            KEYS_PREFIX,
            read_key=read_key_name,
            read=self._read,
            check=_check_removals,
            on_refused=self._report,
            keep=keep,
        )
        self._from_snapshot = False
        self._has_remote = False

    async def refresh(self, source: ObjectStore | None = None) -> None:
        """
        Bring the keys up to date.

        Args:
            source: A snapshot to take them from this once, in place of the store.

        Raises:
            StoreUnavailable: The store could not be asked, or holds no key that works.
            RefusedObject: No key that is in force would be left.
            TimeoutError: It takes too long.
        """
        try:
            if await self._mirror.refresh(source=source):
                self._take()
            self._from_snapshot = source is not None
        finally:
            await self.prove()
        if not self._keys:
            raise StoreUnavailable("no_key")

    def _take(self) -> None:
        before = self._keys
        keys = {kid: key for kid, key in self._mirror.values.items() if isinstance(key, SigningKey)}
        # A kid is a thumbprint: with other times it is the same key still, and has proven itself.
        known = {kid for kid, key in keys.items() if kid in before and before[kid].remote == key.remote}
        self._keys = keys
        self._has_remote = any(key.remote for key in keys.values())
        self._others = {kid: key for kid, key in self._mirror.values.items() if isinstance(key, PublishedKey)}
        self._schedule = KeySchedule(tuple(key.times for key in keys.values()), self._announce)
        self._published = self._published_lists = None
        self._absent &= keys.keys()
        self._broken = frozenset(kid for kid in self._broken & known if keys[kid] is before[kid])
        self._unproven = frozenset(kid for kid, key in keys.items() if key.remote and kid not in known - self._unproven)
        _log.info("keys loaded", kids=sorted(keys))

    async def prove(self) -> None:
        """
        Have the keys of the key management service sign a probe: the new ones, and those that did not last time.

        What fails is in `remote.troubles`.
        """
        now, doubtful = self._clock.now(), (self._unproven | self.remote.troubles.keys()) - self._broken
        kids = (key.kid for key in self._usable().keys if key.kid in doubtful and now < key.retire_at)
        await asyncio.gather(*(self._prove_one(self._keys[kid]) for kid in kids))

    async def _prove_one(self, key: SigningKey) -> None:
        kid = key.times.kid
        try:
            await self.remote.run(kid, lambda: check_key(key.private, key.public))
        except KeyManagementUnavailable as error:
            _log.warning("a key cannot prove itself", kid=kid, code=error.code)
        except BadSignature:
            # Not the weather: its id there leads to another key. A new version of the object is tried again.
            self._broken |= {kid}
            self._unproven |= {kid}
            self._report(f"{KEYS_PREFIX}{kid}.json", RefusedObject(Refusal.MALFORMED, "kms_key_id is another key's"))
        else:
            self._unproven -= {kid}

    @property
    def loaded(self) -> bool:
        """Tell whether there is any key."""
        return bool(self._keys)

    @property
    def settled(self) -> bool:
        """Tell whether there is any key, and all that wait for a key management service have signed a probe."""
        return bool(self._keys) and not (self._unproven | self.remote.troubles.keys()) - self._broken

    @property
    def absent(self) -> frozenset[str]:
        """The kids that are missing in the JWK Set as the world sees it, and do not sign."""
        return self._absent

    def found_published(self, kids: Collection[str], *, expected: Collection[str]) -> frozenset[str]:
        """
        Take note that the JWK Set as the world sees it holds *kids*; those *expected* that it lacks sign no more.

        Args:
            kids: What it holds.
            expected: What this process published when that was asked for.

        Returns:
            The kids that are missing.
        """
        missing = frozenset(expected) - frozenset(kids)
        if missing - self._absent:
            _log.error("keys are missing in the published JWK Set and do not sign", kids=sorted(missing))
        self._absent = missing
        return missing

    def published_kids(self) -> tuple[str, ...]:
        """Return the kids of the JWK Set, the oldest first."""
        return tuple(key.kid for key in self._usable().published(self._clock.now()))

    @property
    def from_snapshot(self) -> bool:
        """Tell whether the keys come from a snapshot and were not confirmed by the store since."""
        return self._from_snapshot

    @property
    def kept(self) -> Mapping[str, tuple[str, bytes]]:
        """The objects in force as they were read; a new mapping for each change."""
        return self._mirror.kept

    @property
    def has_remote(self) -> bool:
        """Tell whether a signature may have to be waited for: a key is held by a key management service."""
        return self._has_remote

    def obey(self, revocations: RevocationList) -> None:
        """Stop using the keys that *revocations* names; cheap when nothing changed since the last call."""
        kids = frozenset(self._keys) | frozenset(self._others)
        if self._judged is not None and self._judged[0] is revocations and self._judged[1] == kids:
            return
        named = {kid for kid in kids - self._revoked if revocations.has_key(self._issuer, kid)}
        self._judged = (revocations, kids)
        if named:
            _log.error("signing keys revoked", kids=sorted(named))
            self._revoked |= named
            self._published = self._published_lists = None

    def signer(self, *, lifetime: int) -> SigningKey | None:
        """Return the key that signs a token that lives *lifetime* seconds, or None."""
        # Times are whole seconds, those of tokens too: within one, only these can change it.
        second = int(self._clock.now())
        asked = (second, lifetime, self._keys, self._schedule, self._revoked, self._unproven, self._absent)
        if self._signing is None or self._signing[0] != asked:
            self._signing = (asked, self._find_signer(second, lifetime))
        return self._signing[1]

    def _find_signer(self, now: int, lifetime: int) -> SigningKey | None:
        usable = self._usable()
        if self._unproven or self._absent:
            usable = usable.without(self._unproven | self._absent)
        times = usable.signing(now, lifetime=lifetime)
        return None if times is None else self._keys[times.kid]

    def signers(self, *, lifetime: int) -> tuple[SigningKey, ...]:
        """Return the keys that are published, the one that signs first: for the issuer's own requests."""
        first = self.signer(lifetime=lifetime)
        silent = self._unproven | self._absent
        published = (self._keys[kid] for kid in self.published_kids() if kid not in silent)
        return (*([] if first is None else [first]), *(key for key in published if key is not first))

    def jwk_set(self) -> JwkSet | None:
        """Return the JWK Set, or None when no key is published: an empty set means nothing good."""
        kids = tuple(key.kid for key in self._usable().published(self._clock.now()))
        if not kids:
            return None
        if self._published is None or self._published[0] != kids:
            self._published = (kids, self._jwk_set(self._keys[kid].public for kid in kids))
        return self._published[1]

    def list_jwk_set(self) -> JwkSet | None:
        """Return the JWK Set of the keys that sign revocation lists, or None when there is none."""
        now = self._clock.now()
        lists = {kid: key for kid, key in self._others.items() if key.use is KeyUse.LIST and kid not in self._revoked}
        kids = tuple(sorted(kid for kid, key in lists.items() if key.times.published(now)))
        if not kids:
            return None
        if self._published_lists is None or self._published_lists[0] != kids:
            self._published_lists = (kids, self._jwk_set(lists[kid].public for kid in kids))
        return self._published_lists[1]

    @property
    def signs_answers(self) -> bool:
        """Tell whether a key for introspection answers is published: token info has it, then."""
        now = self._clock.now()
        return any(
            key.use is KeyUse.INTROSPECTION and key.times.published(now) and kid not in self._revoked
            for kid, key in self._others.items()
        )

    def _jwk_set(self, keys: Iterable[PublicKey]) -> JwkSet:
        body = KeySet.of(self._issuer, keys).to_jwks()
        return JwkSet(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def verifying(self) -> KeySet | None:
        """Return what the tokens in use are verified with, or None when no key is published."""
        kids = tuple(key.kid for key in self._usable().published(self._clock.now()))
        if not kids:
            return None
        if self._verifying is None or self._verifying[0] != kids:
            self._verifying = (kids, KeySet.of(self._issuer, [self._keys[kid].public for kid in kids]))
        return self._verifying[1]

    def states(self, *, lifetime: int) -> dict[str, tuple[KeyState, KeyTimes]]:
        """Return every key that is not revoked with its state, for metrics and the verbose readiness."""
        schedule, now = self._usable(), self._clock.now()
        return {key.kid: (schedule.state(key, now, lifetime=lifetime), key) for key in schedule.keys}

    def faults(self, *, lifetime: int) -> tuple[str, ...]:
        """Return what is wrong with the schedule of the keys."""
        return self._usable().faults(self._clock.now(), lifetime=lifetime)

    def _usable(self) -> KeySchedule:
        return self._schedule.without(self._revoked) if self._revoked else self._schedule

    def _read(self, kid: str, body: bytes) -> SigningKey | PublishedKey:
        stored = read_stored_key(body, kid=kid)
        if stored.use is not KeyUse.TOKEN:
            return published_key(stored)  # sealed for another role: its envelope key is not here
        if stored.sealed is None:
            if self._management is None:
                raise RefusedObject(Refusal.MALFORMED, "a key is in a key management service, and there is none here")
            return remote_key(stored, management=self._management)
        return open_key(stored, envelope=self._envelope)

    def _report(self, path: str, refused: RefusedObject) -> None:
        _log.error("key refused", key=path, cause=str(refused.cause), detail=str(refused))
        self._on_refused(refused.cause)


def _check_removals(before: Collection[str], gone: Collection[str]) -> None:
    if len(before) == len(gone) > 0:
        raise RefusedObject(Refusal.MASS_REMOVAL, "no key that is in force would be left")
