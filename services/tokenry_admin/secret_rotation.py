"""
Giving an application a new secret without a moment in which the one that it has does not work.

Numbered steps; whatever interrupts them, running the rotation again goes on or begins anew, and in between every
secret that may be in an application's file is good:

1. see that the application's files can be written at all;
2. state `adding`: the hash of a new secret that nobody has yet;
3. that hash into the registry, beside those that are there;
4. wait until the issuers have it;
5. state `delivering`: from here on the application may have the new secret;
6. the secret into the application's files, all of them;
7. state `delivered`: now it has;
8. the other hashes get an end, after the overlap in which applications take up the new file;
9. state `overlap`, until a later sweep takes the ended hashes out of the registry and the state away.

Interrupted before 5 nobody has the new secret: the next run takes its hash out again. Interrupted before 7 somebody
may have it: its hash stays, and the next run adds another. Interrupted after 7 the next run goes on at 8.

The state is an object beside the registry, `rotations/<realm>/<clients|users>/<name>.json`, written over the version
that was read. It is leased: who finds a lease of somebody else that has not run out leaves the rotation alone, and who
has lost its own notices at the next step, before it writes a file.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry.secret import Secret
from tokenry_admin.documents import NotThere, NotValid, encoded, object_key
from tokenry_admin.plan_b_files import check_application, credential_file
from tokenry_admin.views import SECRETS
from tokenry_registry.bootstrap import hash_secret, new_secret
from tokenry_registry.fields import Fields
from tokenry_registry.ports import GONE, ObjectUnreadable, WriteConflict
from tokenry_registry.realms import MAX_SECRETS, ObjectKey, ObjectKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenry.clock import Clock
    from tokenry_admin.audit import AuditLog
    from tokenry_admin.documents import Documents
    from tokenry_admin.issuers import Settling
    from tokenry_admin.ports import ApplicationFiles

ROTATIONS_PREFIX: Final = "rotations/"
MIN_OVERLAP: Final = 600  # seconds: Plan B's agents look every 120 s, and its documents ask for ten minutes
DEFAULT_OVERLAP: Final = 3600  # seconds: an application that reads its file at each deployment needs a longer one
LEASE: Final = 600  # seconds: longer than waiting for the issuers and writing the files take together
_TRIES: Final = 5  # at adding or ending hashes while others write the same object
_FOLDERS: Final = {ObjectKind.CLIENT: "clients", ObjectKind.USER: "users"}
_KINDS: Final = {folder: kind for kind, folder in _FOLDERS.items()}


class RotationBusy(TokenryError):
    """Somebody else is rotating this secret, or was a short while ago; the text says until when to wait."""


class RotationLost(TokenryError):
    """Somebody else has taken this rotation over; nothing more was written."""


class TooManySecrets(TokenryError):
    """No hash can be added; the text says what to do."""


class Step(StrEnum):
    """How far a rotation has come."""

    ADDING = "adding"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    OVERLAP = "overlap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """
    The state of one rotation.

    Attributes:
        step: How far it has come.
        hash: The stored form of the new secret.
        started_at: Unix seconds.
        lease_until: Unix seconds until which whoever wrote this is at work.
        overlap: Seconds for which the old secrets go on.
        ends_at: In the overlap: Unix seconds at which the old secrets end.
        abandoned: Stored forms that are to be taken out of the registry: nobody has their secrets.
    """

    step: Step
    hash: str = field(repr=False)
    started_at: int
    lease_until: int
    overlap: int
    ends_at: int | None = None
    abandoned: tuple[str, ...] = field(default=(), repr=False)

    def members(self) -> dict[str, Any]:
        """Return its JSON."""
        members: dict[str, Any] = {
            "version": 1,
            "step": str(self.step),
            "hash": self.hash,
            "started_at": self.started_at,
            "lease_until": self.lease_until,
            "overlap": self.overlap,
            "abandoned": list(self.abandoned),
        }
        return members if self.ends_at is None else {**members, "ends_at": self.ends_at}


def read_rotation(body: bytes) -> Rotation:
    """
    Return the rotation that a stored object describes.

    Raises:
        ProtocolError: It is malformed.
    """
    fields = Fields(parse_json_object(body))
    fields.version()
    rotation = Rotation(
        step=Step(fields.choice("step", among=set(Step), default=Step.DELIVERING)),
        hash=fields.text("hash"),
        started_at=fields.integer("started_at"),
        lease_until=fields.integer("lease_until"),
        overlap=fields.integer("overlap"),
        ends_at=fields.optional_integer("ends_at"),
        abandoned=fields.names("abandoned"),
    )
    fields.finish()
    return rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """
    What a rotation has come to.

    Attributes:
        key: Whose secret it was.
        step: `overlap`: the application has the new one. `delivering`: it is for whoever asked to hand it over.
        old_until: Unix seconds until which older secrets work; None while they have no end.
        application: Whose files were written; None where there are none.
        resumed: Whether an interrupted rotation was only finished.
        secret: The new secret, where there are no files to write it into.
    """

    key: ObjectKey
    step: Step
    old_until: int | None
    application: str | None
    resumed: bool
    secret: Secret | None = field(default=None, repr=False)


class SecretRotation:
    """Rotates secrets of clients and passwords of users."""

    def __init__(
        self,
        documents: Documents,
        *,
        files: Sequence[ApplicationFiles],
        settled: Settling,
        clock: Clock,
        audit: AuditLog,
        actor: Mapping[str, Any],
        overlap: int = DEFAULT_OVERLAP,
        make_secret: Callable[[], str] = new_secret,
    ) -> None:
        """
        Rotate as *actor*.

        Args:
            documents: The registry.
            files: Where the applications' files are, all of them; none: whoever asks gets the secret.
            settled: Waits until the issuers have what was written.
            clock: Where the time comes from.
            audit: Gets a record of each write.
            actor: Who does it.
            overlap: Seconds for which old secrets go on after the new one was delivered.
            make_secret: Gives a new secret of at least 256 random bits.

        Raises:
            ValueError: The overlap is shorter than applications need to take up a new file.
        """
        if overlap < MIN_OVERLAP:
            raise ValueError(f"an overlap is at least {MIN_OVERLAP} s")
        self._documents = documents
        self._store = documents.store
        self._files = tuple(files)
        self._settled = settled
        self._clock = clock
        self._audit = audit
        self._actor = actor
        self._overlap = overlap
        self._make_secret = make_secret

    async def rotate(self, key: ObjectKey, *, take_over: bool = False, leaked: bool = False) -> Rotated:
        """
        Give the client or user *key* a new secret; an interrupted rotation is finished, or begun anew.

        Args:
            key: Whose.
            take_over: Do not wait for the lease of somebody who is known to be gone.
            leaked: The old secrets are in wrong hands: they end as soon as the application's file has the new one.

        Raises:
            NotThere: There is no such client or user.
            RotationBusy: Somebody else is at it.
            RotationLost: Somebody else has taken it over.
            TooManySecrets: There are as many hashes as an object may have.
            FilesUnavailable: The application's files cannot be written; what it has works on.
            NotSettled: An issuer does not have the new hash in time; what the application has works on.
            NotValid: What is stored is not readable, or the object cannot be written.
            WriteRefused: The store does not let us.
            StoreUnavailable: It does not answer; running it again goes on.
        """
        document = await self._documents.get(key)
        application = check_application_of(document.members, key)
        secrets = document.members.get(SECRETS[key.kind], ())
        held = await self._claim(key, take_over=take_over)
        if held is not None and held.rotation.step is Step.DELIVERED and _has(secrets, held.rotation.hash):
            if leaked:
                held = replace(held, rotation=replace(held.rotation, overlap=0))
            return await self._end_old(key, held, application, resumed=True)
        # 1. before anything is written
        for files in self._files:
            await files.probe(application)
        # 2. from here on the registry may have a hash whose secret nobody has
        secret = Secret(self._make_secret())
        now = int(self._clock.now())
        rotation = Rotation(
            step=Step.ADDING,
            hash=hash_secret(secret.reveal()),
            started_at=now,
            lease_until=now + LEASE,
            overlap=0 if leaked else self._overlap,
            abandoned=() if held is None else _abandoned(held.rotation),
        )
        _check_room(secrets, rotation, now)
        held = await self._write(key, rotation, over=held)
        try:
            # 3. beside those that are there
            await self._change(key, lambda secrets: _added(secrets, rotation, now), action="secret added")
            # 4. an issuer that does not know it would refuse it
            await self._settled(self._clock.monotonic())
        except TokenryError:
            await self._release(key, held)
            raise
        return await self._deliver(key, held, secret, application)

    async def _deliver(self, key: ObjectKey, held: _Held, secret: Secret, application: str) -> Rotated:
        # 5. only with our lease unbroken: two deliverers could overwrite one another's files. It is not given back
        # when a write fails: that one may still take effect.
        lease = int(self._clock.now()) + LEASE if self._files else 0
        delivering = replace(held.rotation, step=Step.DELIVERING, abandoned=(), lease_until=lease)
        held = await self._write(key, delivering, over=held)
        if not self._files:
            self._audit_delivery(key, None)
            return Rotated(
                key=key, step=Step.DELIVERING, old_until=None, application=None, resumed=False, secret=secret
            )
        # 6. all of them, or none counts
        name, body = credential_file(key.kind, key.name, secret)
        for files in self._files:
            await files.put(application, name, body)
        self._audit_delivery(key, application)
        # 7. to 9.
        return await self._finish(key, held, application)

    async def finish(self, key: ObjectKey) -> Rotated:
        """
        Finish a rotation whose new secret was handed over by whoever asked for it: the old ones get their end.

        Raises:
            NotThere: There is none that waits for this.
            RotationLost: Somebody else has taken it over.
            NotValid: What is stored is not readable, or the object cannot be written.
            WriteRefused: The store does not let us.
            StoreUnavailable: It does not answer; running it again goes on.
        """
        held = await self._find(key)
        if held is None or held.rotation.step not in {Step.DELIVERING, Step.DELIVERED} or self._files:
            raise NotThere(f"there is no rotation of {key.name} that waits to be finished")
        return await self._finish(key, held, None)

    async def sweep(self) -> list[ObjectKey]:
        """
        Take hashes out of the registry whose end has come, and return whose they were; interrupted rotations stay.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        swept = []
        for path in sorted(await self._store.list(ROTATIONS_PREFIX)):
            key = _key_of(path)
            held = None if key is None else await self._find(key)
            if key is None or held is None or not self._is_over(held.rotation):
                continue
            now = int(self._clock.now())
            try:
                await self._change(key, lambda secrets, now=now: _unended(secrets, now), action="secrets removed")  # type: ignore[misc]
            except (NotThere, NotValid):
                pass  # the object is gone, or nobody can read it: its hashes are of no use either
            except WriteConflict:
                continue
            await self._store.delete(_path(key), replaces=held.etag)
            swept.append(key)
        return swept

    async def unfinished(self) -> dict[ObjectKey, Rotation]:
        """
        Return the rotations that were interrupted or are going on, those in their overlap left out.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        found = {}
        for path in sorted(await self._store.list(ROTATIONS_PREFIX)):
            key = _key_of(path)
            held = None if key is None else await self._find(key)
            if key is not None and held is not None and held.rotation.step is not Step.OVERLAP:
                found[key] = held.rotation
        return found

    async def state(self, key: ObjectKey) -> Rotation | None:
        """
        Return how far the rotation of *key* has come; None: there is none.

        Raises:
            NotValid: Its object is not readable.
            StoreUnavailable: The store does not answer.
        """
        held = await self._find(key)
        return None if held is None else held.rotation

    def _is_over(self, rotation: Rotation) -> bool:
        ends_at = rotation.ends_at
        return rotation.step is Step.OVERLAP and ends_at is not None and ends_at <= self._clock.now()

    async def _finish(self, key: ObjectKey, held: _Held, application: str | None) -> Rotated:
        held = await self._write(key, replace(held.rotation, step=Step.DELIVERED), over=held)
        return await self._end_old(key, held, application, resumed=False)

    async def _end_old(self, key: ObjectKey, held: _Held, application: str | None, *, resumed: bool) -> Rotated:
        ends_at = int(self._clock.now()) + held.rotation.overlap
        await self._change(key, lambda secrets: _ended(secrets, held.rotation.hash, ends_at), action="old secrets end")
        await self._write(key, replace(held.rotation, step=Step.OVERLAP, ends_at=ends_at, lease_until=0), over=held)
        return Rotated(key=key, step=Step.OVERLAP, old_until=ends_at, application=application, resumed=resumed)

    async def _change(
        self, key: ObjectKey, change: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]], *, action: str
    ) -> None:
        """Change the hashes of *key*; what others write to the object meanwhile stays."""
        member = SECRETS[key.kind]
        for attempt in range(_TRIES):
            before = await self._documents.get(key)
            after = {**before.members, member: change(before.members.get(member, ()))}
            if after == before.members:
                return
            try:
                await self._documents.replace(before, after)
            except WriteConflict:
                if attempt == _TRIES - 1:
                    raise
                continue
            self._audit.written(action, key, actor=self._actor, before=before.members, after=after)
            return

    # --- the state ----------------------------------------------------------------------------------------------

    async def _claim(self, key: ObjectKey, *, take_over: bool) -> _Held | None:
        held = await self._find(key)
        if held is not None and not take_over:
            waits = held.rotation.lease_until - self._clock.now()
            # What waits for its overlap, or for somebody to hand a secret over, is nobody's work.
            if waits > 0 and held.rotation.step is not Step.OVERLAP:
                raise RotationBusy(
                    f"the secret of {key.name} is being rotated, or was interrupted: try again in {waits:.0f} s"
                )
        return held

    async def _find(self, key: ObjectKey) -> _Held | None:
        try:
            found = await self._store.get(_path(key))
        except ObjectUnreadable as error:
            if error.code == GONE:
                return None
            raise NotValid(f"{_path(key)}: {error}") from None
        if found is None:
            return None  # cannot be: no version was named
        try:
            return _Held(read_rotation(found.body), found.etag)
        except ProtocolError as error:
            raise NotValid(f"{_path(key)}: {error}") from None

    async def _write(self, key: ObjectKey, rotation: Rotation, *, over: _Held | None) -> _Held:
        body = encoded(rotation.members())
        try:
            etag = await self._store.put(_path(key), body, replaces=None if over is None else over.etag)
        except WriteConflict:
            held = await self._find(key)  # a driver that tried again meets what it has written itself
            if held is None or held.rotation != rotation:
                raise RotationLost(f"somebody else is rotating the secret of {key.name}") from None
            return held
        return _Held(rotation, etag)

    async def _release(self, key: ObjectKey, held: _Held) -> None:
        """Let the next one begin at once; when that fails it waits for the lease."""
        with suppress(TokenryError):
            await self._write(key, replace(held.rotation, lease_until=0), over=held)

    def _audit_delivery(self, key: ObjectKey, application: str | None) -> None:
        self._audit.noted(
            "secret delivered",
            actor=self._actor,
            kind=str(key.kind),
            realm=key.realm,
            name=key.name,
            application=application,
        )


@dataclass(frozen=True, slots=True)
class _Held:
    """A rotation and the version of its object."""

    rotation: Rotation
    etag: str


def check_application_of(members: Mapping[str, Any], key: ObjectKey) -> str:
    """
    Return the application whose files get the secrets of *key*: what its object says, else its own name.

    Raises:
        NotValid: That cannot be an application's id.
    """
    try:
        return check_application(str(members.get("application", key.name)))
    except ProtocolError as error:
        raise NotValid(f'{error}; say which with "application" in the object of {key.name}') from None


def _path(key: ObjectKey) -> str:
    return f"{ROTATIONS_PREFIX}{key.realm.removeprefix('/')}/{_FOLDERS[key.kind]}/{key.name}.json"


def _key_of(path: str) -> ObjectKey | None:
    parts = path.removeprefix(ROTATIONS_PREFIX).split("/")
    if len(parts) != 3 or parts[1] not in _KINDS or not parts[2].endswith(".json"):  # noqa: PLR2004 -- the layout
        return None
    try:
        return object_key(_KINDS[parts[1]], parts[0], parts[2].removesuffix(".json"))
    except NotValid:
        return None


def _abandoned(before: Rotation) -> tuple[str, ...]:
    """Return the hashes of an interrupted rotation whose secrets nobody can have."""
    return (*before.abandoned, before.hash) if before.step is Step.ADDING else before.abandoned


def _check_room(secrets: Sequence[Mapping[str, Any]], rotation: Rotation, now: int) -> None:
    if len(_added(secrets, rotation, now)) > MAX_SECRETS:
        raise TooManySecrets(
            f"there are {MAX_SECRETS} secrets already, and each may be in use: see which is, and take others out first"
        )


def _has(secrets: Sequence[Mapping[str, Any]], text: str) -> bool:
    return any(each["hash"] == text for each in secrets)


def _added(secrets: Sequence[Mapping[str, Any]], rotation: Rotation, now: int) -> list[dict[str, Any]]:
    kept = [each for each in _unended(secrets, now) if each["hash"] not in {*rotation.abandoned, rotation.hash}]
    return [*kept, {"hash": rotation.hash, "created_at": rotation.started_at}]


def _ended(secrets: Sequence[Mapping[str, Any]], new: str, ends_at: int) -> list[dict[str, Any]]:
    if not _has(secrets, new):
        raise NotValid("the new secret was taken out of the registry meanwhile: rotate again")
    return [
        dict(each) if each["hash"] == new else {**each, "expires_at": min(ends_at, each.get("expires_at", ends_at))}
        for each in secrets
    ]


def _unended(secrets: Sequence[Mapping[str, Any]], now: int) -> list[dict[str, Any]]:
    return [dict(each) for each in secrets if each.get("expires_at") is None or each["expires_at"] > now]
