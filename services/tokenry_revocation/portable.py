"""
The revocations in force as one file, and back: from any store into any other, through the store's own port.

Lines of JSON. The first says what the file is, each of the following is one record as the store keeps it (its body in
base64url: fingerprints and names, no token and no claim's value), and the last has the number of records and the
SHA-256 of everything before it: a file that was cut or changed restores nothing.

What is in the file is everything that was acknowledged before the export began. What was revoked since is not: it has
to be posted again, or everything revoked that was issued until then. Restoring adds and never takes away, so it may be
done again, into a store that is in use, and from several files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_decode, b64url_encode, parse_json_object
from tokenry_revocation.ports import MAX_BODY_BYTES, RecordOutlivesStore, StoredRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenry_revocation.ports import RevocationStore

FORMAT: Final = "tokenry-revocations"
VERSION: Final = 1
# A body in base64url, an id and some numbers, with room.
MAX_LINE_BYTES: Final = 2 * MAX_BODY_BYTES
# Each keeps some 200 bytes while a file is read: half a gigabyte, for what takes a day to be revoked.
MAX_RECORDS: Final = 2_000_000
TOGETHER: Final = 64  # appends at a time


class ExportRefused(TokenryError):
    """The file is not a whole export, or not of this platform; the text says why. Nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """
    What a file holds.

    Attributes:
        issuer: Of which platform.
        environment: Name of the environment.
        epoch: Epoch of the store that it was made from.
        made_at: Unix seconds at which the export began.
        records: How many records.
        digest: SHA-256 of what is before the last line, in hexadecimal.
    """

    issuer: str
    environment: str
    epoch: int
    made_at: int
    records: int
    digest: str


async def export(store: RevocationStore, file: IO[bytes], *, issuer: str, environment: str, now: float) -> Exported:
    """
    Write what is in force in *store* into *file*, and say what that was.

    Raises:
        StoreUnavailable: The store does not answer; what was written is not a whole export, and no one takes it.
    """
    digest = hashlib.sha256()
    count = 0

    def write(members: dict[str, Any]) -> None:
        line = json.dumps(members, separators=(",", ":")).encode("ascii") + b"\n"
        digest.update(line)
        file.write(line)

    epoch = await store.epoch()
    write({
        "format": FORMAT, "version": VERSION, "issuer": issuer, "environment": environment, "epoch": epoch,
        "made_at": int(now),
    })  # fmt: skip
    async for batch in store.pages():
        for record in batch.records:
            if record.in_force_until is not None and record.in_force_until <= now:
                continue
            body = b64url_encode(record.body)
            write({"id": record.id, "until": record.in_force_until, "position": record.position, "body": body})
            count += 1
    found = digest.hexdigest()
    file.write(json.dumps({"records": count, "sha256": found}).encode("ascii") + b"\n")
    return Exported(issuer=issuer, environment=environment, epoch=epoch, made_at=int(now), records=count, digest=found)


def check(file: IO[bytes], *, issuer: str, environment: str) -> Exported:
    """
    Read the whole of *file*, and return what it holds.

    Raises:
        ExportRefused: It is no export, is cut or changed, or is of another platform or environment.
    """
    exported, _ = _read(file, issuer=issuer, environment=environment)
    return exported


async def restore(
    file: IO[bytes],
    store: RevocationStore,
    *,
    issuer: str,
    environment: str,
    now: float,
    done: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[int, int]:
    """
    Append the records of *file* to *store*; return how many were, and how many had run out meanwhile.

    Args:
        file: Can be read twice; nothing is written before it was found to be whole.
        store: Where they go; what is there stays.
        issuer: This platform's.
        environment: This one's.
        now: Unix seconds.
        done: Told how many of how many are done.

    Raises:
        ExportRefused: The file is not whole, or of another platform; nothing was written.
        StoreUnavailable: The store does not answer; restoring again goes on.
        RecordOutlivesStore: A record is in force for longer than this store keeps any.
    """
    _, places = _read(file, issuer=issuer, environment=environment)
    written = over = 0
    bundle: list[StoredRecord] = []
    # In the order in which they were taken: of one id the last one counts.
    for _, offset in places:
        file.seek(offset)
        record, _ = _record(file.readline(MAX_LINE_BYTES))
        if record.in_force_until is not None and record.in_force_until <= now:
            over += 1
            continue
        if len(bundle) == TOGETHER or any(record.id == other.id for other in bundle):
            written += await _append(store, bundle)
            done(written + over, len(places))
        bundle.append(record)
    written += await _append(store, bundle)
    done(written + over, len(places))
    return written, over


async def _append(store: RevocationStore, bundle: list[StoredRecord]) -> int:
    results = await asyncio.gather(*(store.append(record) for record in bundle), return_exceptions=True)
    for failed in results:
        if isinstance(failed, RecordOutlivesStore):
            raise RecordOutlivesStore(f"{failed}; migrate the store's schema to the longer lifetime first")
        if isinstance(failed, BaseException):
            raise failed
    count = len(bundle)
    bundle.clear()
    return count


def _read(file: IO[bytes], *, issuer: str, environment: str) -> tuple[Exported, list[tuple[int, int]]]:
    """Return what the file holds, and position and offset of each record, by position."""
    digest = hashlib.sha256()
    places: list[tuple[int, int]] = []
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    for offset, line in _lines(file):
        members = _object(line)
        if last is not None:
            raise ExportRefused("something follows its last line")
        if first is None:
            _check_first(members, issuer=issuer, environment=environment)
            first = members
        elif "sha256" in members:
            last = members
            continue
        else:
            places.append((_record(line)[1], offset))
        digest.update(line)
        if len(places) > MAX_RECORDS:
            raise ExportRefused(f"it has more than {MAX_RECORDS} records")
    if first is None:
        raise ExportRefused("it is empty")
    if last is None or last.get("records") != len(places) or last.get("sha256") != digest.hexdigest():
        raise ExportRefused("it was cut off or changed")
    exported = Exported(
        issuer=issuer,
        environment=environment,
        epoch=first["epoch"],
        made_at=first["made_at"],
        records=len(places),
        digest=digest.hexdigest(),
    )
    return exported, sorted(places)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of each line, of bounded length."""
    file.seek(0)
    offset = 0
    while line := file.readline(MAX_LINE_BYTES):
        if not line.endswith(b"\n"):
            raise ExportRefused("it was cut off, or has a line that is too long")
        yield offset, line
        offset += len(line)


def _object(line: bytes) -> dict[str, Any]:
    try:
        return parse_json_object(line)
    except ProtocolError:
        raise ExportRefused("it is not lines of JSON objects") from None


def _check_first(members: dict[str, Any], *, issuer: str, environment: str) -> None:
    if members.get("format") != FORMAT:
        raise ExportRefused("it is no export of revocations")
    if members.get("version") != VERSION:
        raise ExportRefused("it was made by another release: restore it with that one")
    if not all(type(members.get(name)) is int for name in ("epoch", "made_at")):
        raise ExportRefused("its first line is malformed")
    for name, value, expected in (
        ("issuer", members.get("issuer"), issuer),
        ("environment", members.get("environment"), environment),
    ):
        if value != expected:
            raise ExportRefused(f"it is of another {name} than {expected}")


def _record(line: bytes) -> tuple[StoredRecord, int]:
    members = _object(line)
    until, position = members.get("until"), members.get("position")
    if not (until is None or type(until) is int) or type(position) is not int:
        raise ExportRefused("a record of it is malformed")
    try:
        return StoredRecord(id=members["id"], body=b64url_decode(members["body"]), in_force_until=until), position
    except (KeyError, TypeError, AttributeError, ValueError, ProtocolError):
        raise ExportRefused("a record of it is malformed") from None
