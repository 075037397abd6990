"""
The last good state of what is read from the store, kept in a local file, for a start while the store is away.

One file for each of credentials and keys: the stored objects as they were read, with their ETags and the moment at
which they were last confirmed, sealed under the envelope key (AES-256-GCM).

Invariants:
    * A file is used only if it opens under the envelope key for this issuer and this part, is of this environment, and
      was confirmed no longer ago than nothing may be issued without the store; its age goes on counting.
    * It replaces nothing: it is looked at only while nothing was ever read, and the store's next answer wins.
    * It is written whole or not at all. A failure to write is an alarm, never an error of the refresh.
    * Objects out of it are judged like objects of the store.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_decode, b64url_encode, dump_json, parse_json_object
from tokenry.jose.sealing import Sealed, UnsealingFailed
from tokenry_registry.ports import GONE, MAX_OBJECT_BYTES, ObjectUnreadable, StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry.clock import Clock
    from tokenry.jose.sealing import EnvelopeKey

MAX_BYTES = 512 * 1024 * 1024  # of a file: 50,000 clients take some 20 MB
CLOCK_MARGIN = 60.0  # seconds by which a file may seem to come from the future
REWRITES = 24  # times within its greatest age that an unchanged state is written again, for its moment
_MAGIC = b"tokenry snapshot 1\n"
_VERSION = 1

_log = structlog.get_logger("tokenry_issuer.snapshot")


class SnapshotResult(StrEnum):
    """What became of a file: labels of a metric."""

    WRITTEN = "written"
    WRITE_FAILED = "write_failed"
    RESTORED = "restored"
    ABSENT = "absent"
    DAMAGED = "damaged"
    TOO_OLD = "too_old"
    FROM_THE_FUTURE = "from_the_future"
    OTHER_ENVIRONMENT = "other_environment"


class SnapshotRefused(TokenryError):
    """
    There is no file that may be used.

    Attributes:
        result: Why.
    """

    def __init__(self, result: SnapshotResult) -> None:
        """Refuse for *result*."""
        self.result = result
        super().__init__(f"the snapshot is not used ({result})")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What a file held; a store to read from.

    Attributes:
        as_of: Unix seconds at which it was last confirmed by the store.
        objects: The version and the compressed body of each object, by its key.
    """

    as_of: float
    objects: Mapping[str, tuple[str, bytes]] = field(repr=False)

    async def list(self, prefix: str) -> Mapping[str, str]:
        """Return the keys that begin with *prefix*, and their ETags."""
        return {key: etag for key, (etag, _) in self.objects.items() if key.startswith(prefix)}

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        """Return the object at *key*, or None when its version is *etag*; see `ObjectStore.get`."""
        if key not in self.objects:
            raise ObjectUnreadable(GONE)
        version, packed = self.objects[key]
        return None if version == etag else StoredObject(unpacked(packed), version)

    async def close(self) -> None:
        """Do nothing."""


def packed(body: bytes) -> bytes:
    """Return *body* compressed, as it is kept in memory and in the file."""
    return zlib.compress(body, 1)


def unpacked(data: bytes) -> bytes:
    """
    Return what `packed` made *data* of.

    Raises:
        ObjectUnreadable: It is not of that form, or larger than an object may be.
    """
    decompressor = zlib.decompressobj()
    try:
        body = decompressor.decompress(data, MAX_OBJECT_BYTES)
    except zlib.error:
        raise ObjectUnreadable("damaged") from None
    if not decompressor.eof:
        raise ObjectUnreadable("too_large")
    return body


class SnapshotFile:
    """One file."""

    def __init__(self, path: Path, *, what: str, issuer: str, environment: str, envelope: EnvelopeKey) -> None:
        """
        Look at nothing yet.

        Args:
            path: Where it is; its folder is made when it is first written.
            what: What is kept in it: a file of another part does not open.
            issuer: The issuer identifier: a file of another issuer does not open.
            environment: The environment that this issuer serves.
            envelope: The key that seals it.
        """
        self._path = path
        self._names = {"kid": what, "use": f"snapshot {issuer}"}
        self._environment = environment
        self._envelope = envelope

    def write(self, snapshot: Snapshot) -> None:
        """
        Replace the file; blocks.

        Raises:
            OSError: It cannot be written; the file that was there stays.
        """
        objects = {key: [etag, b64url_encode(body)] for key, (etag, body) in snapshot.objects.items()}
        document = {
            "version": _VERSION,
            "environment": self._environment,
            "as_of": snapshot.as_of,
            "objects": objects,
        }
        sealed = self._envelope.seal(dump_json(document), **self._names)
        nonce, data_key = b64url_encode(sealed.nonce), b64url_encode(sealed.data_key)
        head = {"method": sealed.method, "data_key": data_key, "nonce": nonce}
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkstemp` makes files that nobody else reads.
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + dump_json(head) + b"\n" + sealed.ciphertext)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def read(self, *, now: float, max_age: float) -> Snapshot:
        """
        Return what is kept; blocks.

        1. the file is there; 2. it opens; 3. it is of this environment; 4. it is neither too old nor from the future.

        Args:
            now: Unix seconds.
            max_age: Seconds since it was confirmed from which it is too old.

        Raises:
            SnapshotRefused: With the first step that failed.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise SnapshotRefused(SnapshotResult.ABSENT) from None
        except OSError:
            raise SnapshotRefused(SnapshotResult.DAMAGED) from None
        try:
            document = self._opened(data)
            environment = document["environment"]
            as_of = float(document["as_of"])
            objects = {key: (str(etag), b64url_decode(body)) for key, (etag, body) in document["objects"].items()}
        except (UnsealingFailed, ProtocolError, KeyError, TypeError, ValueError, AttributeError):
            raise SnapshotRefused(SnapshotResult.DAMAGED) from None
        if environment != self._environment:
            raise SnapshotRefused(SnapshotResult.OTHER_ENVIRONMENT)
        if as_of > now + CLOCK_MARGIN:
            raise SnapshotRefused(SnapshotResult.FROM_THE_FUTURE)
        if now - as_of > max_age:
            raise SnapshotRefused(SnapshotResult.TOO_OLD)
        return Snapshot(as_of, objects)

    def _opened(self, data: bytes) -> dict[str, Any]:
        if len(data) > MAX_BYTES or not data.startswith(_MAGIC):
            raise ProtocolError("not a snapshot, or too large")
        head, _, ciphertext = data[len(_MAGIC) :].partition(b"\n")
        members = parse_json_object(head)
        sealed = Sealed(
            method=members["method"],
            data_key=b64url_decode(members["data_key"]),
            nonce=b64url_decode(members["nonce"]),
            ciphertext=ciphertext,
        )
        document = parse_json_object(self._envelope.open(sealed, **self._names))
        if document.get("version") != _VERSION:
            raise ProtocolError("a snapshot of another version")
        return document


class SnapshotKeeper:
    """Writes one file as what it keeps changes, and reads it at start."""

    def __init__(
        self,
        file: SnapshotFile,
        *,
        what: str,
        clock: Clock,
        max_age: float,
        observe: Callable[[SnapshotResult], None],
    ) -> None:
        """
        Keep nothing yet.

        Args:
            file: The file.
            what: What is kept, for the log.
            clock: For its moment.
            max_age: Seconds since it was confirmed from which it is too old.
            observe: Called with what became of it.
        """
        self._file = file
        self._what = what
        self._clock = clock
        self._max_age = max_age
        self._observe = observe
        self._written: Mapping[str, tuple[str, bytes]] | None = None
        self._written_at = 0.0

    async def keep(self, objects: Mapping[str, tuple[str, bytes]], *, age: float) -> None:
        """
        Write *objects*, confirmed *age* seconds ago, if they changed or what is written gets old.

        The objects are compared by identity: whoever has them makes a new mapping of them for each change.
        """
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if objects is self._written and monotonic - self._written_at < self._max_age / REWRITES:
            return
        try:
            # In a thread: tens of thousands of objects take a good part of a second.
            await asyncio.to_thread(self._file.write, Snapshot(now - age, objects))
        except OSError as error:
            _log.error("the snapshot cannot be written", what=self._what, error=type(error).__name__)
            self._observe(SnapshotResult.WRITE_FAILED)
            return
        self._written, self._written_at = objects, monotonic
        self._observe(SnapshotResult.WRITTEN)

    async def restore(self) -> Snapshot:
        """
        Return what is kept.

        Raises:
            SnapshotRefused: There is nothing that may be used.
        """
        try:
            snapshot = await asyncio.to_thread(self._file.read, now=self._clock.now(), max_age=self._max_age)
        except SnapshotRefused as refused:
            if refused.result is SnapshotResult.ABSENT:
                _log.info("there is no snapshot", what=self._what)
            else:
                _log.error("the snapshot is not used", what=self._what, why=str(refused.result))
            self._observe(refused.result)
            raise
        age = max(0.0, self._clock.now() - snapshot.as_of)
        _log.warning("started from the snapshot: the store is away", what=self._what, age=round(age))
        self._observe(SnapshotResult.RESTORED)
        return snapshot
