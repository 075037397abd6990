"""
The registry in one file, and back.

The file is a tar archive: `manifest.json` with the environment, the time and the SHA-256 of every object, then the
objects under the keys that they have in the store. Signing keys are in it as they are stored: sealed, so that the file
is of no use without the envelope key, which is not in it. Hashes of secrets are in it: keep it as the bucket is kept.

A restore believes nothing: every object is compared with the manifest, realms and keys are checked by the issuer's own
readers, and all is of the environment that was set. A client that was broken already is restored as it was: the issuer
goes on with what it has, and says so. A restore writes what is missing. What is there and differs may be newer than
the backup (a secret that was rotated since would stop to work): that is listed, and overwritten only when forced.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry_registry.fields import Fields
from tokenry_registry.ports import GONE, MAX_OBJECT_BYTES, MAX_OBJECTS, ObjectUnreadable
from tokenry_registry.realms import ObjectKind, read_key, read_object
from tokenry_registry.signing_keys import KEYS_PREFIX, published_key, read_key_name, read_stored_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tokenry_registry.ports import WritableStore

PREFIXES: Final = ("realms/", KEYS_PREFIX, "revocation-rules/")
MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
CONCURRENT_READS: Final = 8
CHUNK: Final = 512  # objects held in memory between two writes to the file
MAX_MANIFEST_BYTES: Final = 256 << 20  # half a million objects, with room
_NO_BOUND: Final = 2**31  # the platform's bound is the issuer's to check


class BackupRefused(TokenryError):
    """The file is not what it says, or must not be restored here; the text says why. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """
    What a backup says of itself.

    Attributes:
        environment: The environment that it is of.
        made_at: Unix seconds.
        digests: SHA-256 of each object, in hexadecimal, by key.
        digest: SHA-256 of the manifest itself, for writing down elsewhere.
    """

    environment: str
    made_at: int
    digests: Mapping[str, str] = field(repr=False)
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """
    How a backup and a store differ; keys of objects.

    Attributes:
        missing: In the backup and not in the store.
        differing: In both, and not the same: the version that is in the store.
        more: In the store alone; a restore leaves them.
        same: How many are the same.
    """

    missing: tuple[str, ...]
    differing: Mapping[str, str]
    more: tuple[str, ...]
    same: int


async def write_backup(store: WritableStore, file: IO[bytes], *, environment: str, now: int) -> Manifest:
    """
    Write all of *store* to *file*, and return what was written.

    Raises:
        BackupRefused: An object is of another environment, or there is something among the keys that is no sealed key.
        ObjectUnreadable: An object cannot be read: a backup without it would be none.
        StoreUnavailable: The store does not answer.
    """
    keys = sorted([key for prefix in PREFIXES for key in await store.list(prefix)])
    bodies: dict[str, bytes] = {}
    for start in range(0, len(keys), CHUNK):
        bodies |= await _read(store, keys[start : start + CHUNK])
    _check(bodies, environment=environment)
    digests = {key: hashlib.sha256(body).hexdigest() for key, body in bodies.items()}
    members = {"version": FORMAT, "environment": environment, "made_at": now, "objects": digests}
    manifest = json.dumps(members, indent=1, sort_keys=True).encode("utf-8")
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, body in [(MANIFEST, manifest), *bodies.items()]:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(body), now, 0o600
            archive.addfile(entry, io.BytesIO(body))
    return Manifest(environment=environment, made_at=now, digests=digests, digest=hashlib.sha256(manifest).hexdigest())


async def _read(store: WritableStore, keys: list[str]) -> dict[str, bytes]:
    slots = asyncio.Semaphore(CONCURRENT_READS)

    async def read(key: str) -> bytes | None:
        async with slots:
            try:
                found = await store.get(key)
            except ObjectUnreadable as error:
                if error.code == GONE:  # deleted since it was listed
                    return None
                raise
            return None if found is None else found.body

    found = await asyncio.gather(*map(read, keys))
    return {key: body for key, body in zip(keys, found, strict=True) if body is not None}


def read_backup(file: IO[bytes], *, environment: str) -> tuple[Manifest, dict[str, bytes]]:
    """
    Return what the backup in *file* says of itself, and its objects by key.

    Raises:
        BackupRefused: It is damaged, was changed, is of another environment, or holds a realm or key that no issuer
            would take.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            entries = _entries(archive)
            name, raw = next(entries, ("", b""))
            if name != MANIFEST:
                raise BackupRefused("it is no backup of a registry: it does not begin with a manifest")
            manifest = _read_manifest(raw)
            bodies = dict(entries)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise BackupRefused(f"it cannot be read: {type(error).__name__}") from None
    if manifest.environment != environment:
        raise BackupRefused(
            f"it is of the environment {manifest.environment}, and TOKENRY_ENVIRONMENT is {environment}"
        )
    if bodies.keys() != manifest.digests.keys():
        raise BackupRefused("its objects are not those of its manifest: it is not complete, or was changed")
    for key, body in bodies.items():
        if hashlib.sha256(body).hexdigest() != manifest.digests[key]:
            raise BackupRefused(f"{key} is not what the manifest says: the file is damaged, or was changed")
    _check(bodies, environment=environment)
    return manifest, bodies


def _entries(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for entry in archive:
        limit = MAX_MANIFEST_BYTES if entry.name == MANIFEST else MAX_OBJECT_BYTES
        if not entry.isreg() or entry.name in seen or entry.size > limit or len(seen) > MAX_OBJECTS:
            raise BackupRefused(f"{entry.name} is no object, there twice, or too large")
        seen.add(entry.name)
        content = archive.extractfile(entry)
        body = b"" if content is None else content.read(entry.size)
        if len(body) != entry.size:
            raise BackupRefused(f"{entry.name} is cut off")
        yield entry.name, body


def _read_manifest(raw: bytes) -> Manifest:
    try:
        fields = Fields(parse_json_object(raw))
        fields.version()
        digests = fields.optional_object("objects") or {}
        manifest = Manifest(
            environment=fields.text("environment"),
            made_at=fields.integer("made_at"),
            digests={key: str(value) for key, value in digests.items()},
            digest=hashlib.sha256(raw).hexdigest(),
        )
        fields.finish()
    except ProtocolError as error:
        raise BackupRefused(f"its manifest is malformed: {error}") from None
    return manifest


def _check(bodies: Mapping[str, bytes], *, environment: str) -> None:
    """Refuse keys that are not sealed, places that the layout does not have, and another environment's realms."""
    for key, body in bodies.items():
        try:
            if not key.startswith(PREFIXES):
                raise BackupRefused(f"{key} is nothing of a registry")
            if key.startswith(KEYS_PREFIX):
                stored = read_stored_key(body, kid=read_key_name(key))
                published_key(stored)  # refuses private members
                if (stored.sealed is None) == (stored.kms_key_id is None):
                    raise BackupRefused(f"{key} is neither sealed nor held by a key management service")
            elif key.startswith(PREFIXES[0]) and read_key(key).kind is ObjectKind.REALM:
                read_object(read_key(key), body, environment=environment, max_token_lifetime=_NO_BOUND)
        except ProtocolError as error:  # RefusedObject among them
            raise BackupRefused(f"{key}: {error}") from None


async def compare(store: WritableStore, bodies: Mapping[str, bytes]) -> Difference:
    """
    Return how the backup with *bodies* and *store* differ.

    Raises:
        ObjectUnreadable: An object of the store cannot be read.
        StoreUnavailable: The store does not answer.
    """
    listed: dict[str, str] = {}
    for prefix in PREFIXES:
        listed |= await store.list(prefix)
    both = sorted(bodies.keys() & listed.keys())
    there: dict[str, bytes] = {}
    for start in range(0, len(both), CHUNK):
        there |= await _read(store, both[start : start + CHUNK])
    return Difference(
        missing=tuple(sorted(bodies.keys() - there.keys())),
        differing={key: listed[key] for key, body in there.items() if body != bodies[key]},
        more=tuple(sorted(listed.keys() - bodies.keys())),
        same=sum(body == bodies[key] for key, body in there.items()),
    )


async def restore(
    store: WritableStore,
    bodies: Mapping[str, bytes],
    difference: Difference,
    *,
    force: bool,
    done: Callable[[str], None] = lambda _key: None,
) -> int:
    """
    Write what is missing, and with *force* what differs; return how many objects were written.

    Realms come last, so that one that is there is complete, also after an interruption; restoring again goes on.

    Raises:
        BackupRefused: Something differs, and nothing is forced; nothing was written.
        WriteConflict: Somebody else writes at the same time; what was written stays.
        WriteRefused: The store does not let us.
        StoreUnavailable: It does not answer; restoring again goes on.
    """
    if difference.differing and not force:
        raise BackupRefused(
            f"{len(difference.differing)} objects differ and may be newer, {next(iter(difference.differing))} first"
        )
    versions: dict[str, str | None] = {**dict.fromkeys(difference.missing), **difference.differing}
    for key in sorted(versions, key=lambda key: (key.endswith("/realm.json"), key)):
        await store.put(key, bodies[key], replaces=versions[key])
        done(key)
    return len(versions)


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return what people want to know of a backup."""
    counts = {prefix.rstrip("/"): sum(key.startswith(prefix) for key in manifest.digests) for prefix in PREFIXES}
    return {
        "environment": manifest.environment,
        "made_at": manifest.made_at,
        "objects": counts,
        "manifest_sha256": manifest.digest,
    }
