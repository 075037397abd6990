"""
The revocation list on disk, so that a restart forgets nothing that was seen.

One file: a full list, and appended to it each answer that brought news, and once a minute the age. A record
is one line of JSON (with length and SHA-256 of what follows) and a body. Rewritten, atomically, once more was
appended than the full list is long. Beside it a small file with the numbers of the signed lists that were read.

Invariants:
    * What is enforced is on the disk (fsync of the file; of the folder where a file is new) before it is enforced.
      On a disk that takes longer than a second for that, what follows in the next ten minutes is enforced first:
      a revocation that comes late everywhere is worse than one that this machine may forget if it dies right then.
    * A record is used only if it is whole and its hash fits; what follows a bad record is not looked at.
    * One process writes: the first that locks the file. Others of the same machine read only.
    * A failure to write is an alarm, never an error of the reader: validation goes on from memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json, parse_json_object
from tokenry.revocation.wire import document_of, format_binary_list, max_binary_bytes, parse_binary_list, parse_list

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry.clock import Clock
    from tokenry.revocation.lists import RevocationList
    from tokenry.sources.events import Reporter

STAMP_SECONDS: Final = 60.0  # how often the age alone is written while there is no news
SLOW_SECONDS: Final = 1.0  # beyond which a write must not come between a revocation and its enforcement
DISTRUST_SECONDS: Final = 600.0  # for which a slow disk is not waited for
MAX_STREAMS: Final = 8  # of signed lists: one for each run of the publisher that was read
_MODE: Final = 0o600  # the list tells who is revoked to whoever can guess names
_MIN_REWRITE_BYTES: Final = 1 << 20
_MAX_HEAD_BYTES: Final = 4096
_VERSION: Final = 1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptList:
    """
    What was found on disk.

    Attributes:
        held: Everything that was seen and may still be in force.
        cursor: Where to go on reading.
        as_of: Unix seconds up to which it is complete.
        written_at: Unix seconds of the last record.
        uptime: The machine's monotonic seconds then, if it has not been started again since; else None.
    """

    held: RevocationList
    cursor: str
    as_of: float
    written_at: float
    uptime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenIssues:
    """
    Which signed lists were read.

    Attributes:
        streams: The last number of each stream, and the digest of the list with it; the stream read last is last.
        as_of: Unix seconds up to which the most recent one of them is complete.
    """

    streams: Mapping[str, tuple[int, str]]
    as_of: float


class StateFile:
    """
    The file of one list in *folder*.

    Args:
        folder: Made (mode 0700) if it is not there.
        key: Names the list, for example the issuer.
        reporter: Is told of damage and of failures.
        clock: Measures how long a write takes, and how long ago it was.
        boot: Names the run of the machine's kernel, in which monotonic seconds go on across processes; None where that
            is not known.
        sync: Writes a file descriptor's file to the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: str,
        reporter: Reporter,
        clock: Clock,
        boot: str | None = None,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        """Remember where; nothing is read or locked yet."""
        self._boot = boot
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        self._folder = Path(folder)
        self.path = self._folder / f"revocations-{name}.list"
        self.issues_path = self._folder / f"revocations-{name}.signed"
        self._clock = clock
        self._sync = sync
        self._distrust_until = float("-inf")
        self._behind: bytes | None = None
        self._reporter = reporter
        self._lock: int | None = None
        self._locked_by: int | None = None
        self._full_bytes = 0
        self._appended_bytes = 0
        self._must_rewrite = True
        self._stamped_at = float("-inf")
        self.failures = 0

    def load(self, *, now: float, max_entries: int) -> KeptList | None:
        """Return what was kept, or None; without what is damaged (alarm). *now* is Unix seconds."""
        try:
            with contextlib.suppress(OSError):
                self._may_write()  # from here on nobody else writes, where that is possible
            with self.path.open("rb") as file:
                kept, is_whole = self._read(file, now=now, max_entries=max_entries)
                if kept is not None and is_whole and self._lock is not None:
                    self._full_bytes, self._appended_bytes, self._must_rewrite = file.tell(), 0, False
                return kept
        except FileNotFoundError:
            return None
        except OSError as error:
            self._alarm("state_unreadable", f"{self.path} cannot be read: {error.strerror}")
            return None

    def keep(self, held: RevocationList, *, cursor: str, as_of: float, news: bytes | None, now: float) -> None:
        """Write *held* or just what is new, before it is enforced; a failure is an alarm."""
        if news is None and now - self._stamped_at < STAMP_SECONDS and not self._must_rewrite:
            return
        began = self._clock.monotonic()
        if news is not None and began < self._distrust_until:
            self._behind = news  # `settle` writes it
            return
        self._write(held, cursor=cursor, as_of=as_of, news=news, now=now)
        took = self._clock.monotonic() - began
        if news is not None and took > SLOW_SECONDS:
            self._distrust_until = began + took + DISTRUST_SECONDS
            self._alarm(
                "state_slow",
                f"{self.path} took {took:.1f} s to write: for {DISTRUST_SECONDS:g} s the list is enforced before it is"
                " on the disk",
            )

    def settle(self, held: RevocationList, *, cursor: str, as_of: float, now: float) -> None:
        """Write what could not be waited for, and the whole list where too much was appended to it."""
        behind, self._behind = self._behind, None
        if behind is not None:
            self._write(held, cursor=cursor, as_of=as_of, news=behind, now=now)
        if self._appended_bytes > max(_MIN_REWRITE_BYTES, self._full_bytes):
            self._must_rewrite = True
            self._write(held, cursor=cursor, as_of=as_of, news=None, now=now)

    def _write(self, held: RevocationList, *, cursor: str, as_of: float, news: bytes | None, now: float) -> None:
        try:
            if not self._may_write():
                return
            head: dict[str, Any] = {"cursor": cursor, "as_of": as_of, "written_at": now}
            if self._boot is not None:
                head |= {"boot": self._boot, "uptime": self._clock.monotonic()}
            if self._must_rewrite:
                record = _record(head | {"kind": "full"}, format_binary_list(document_of(held, cursor=cursor)))
                self._replace(self.path, record)
                self._full_bytes, self._appended_bytes, self._must_rewrite = sum(map(len, record)), 0, False
            elif news is not None:
                self._append(_record(head | {"kind": _kind_of(news)}, news))
            else:
                self._append(_record(head | {"kind": "stamp"}, b""))
            self._stamped_at = now
        except (OSError, ProtocolError) as error:
            self.failures += 1
            self._must_rewrite = True
            self._alarm("state_unwritable", f"{self.path} cannot be written: {error}")

    # --- the signed list ---

    def load_issues(self) -> SeenIssues | None:
        """Return which signed lists were read before a restart; None when that is not known, or damaged (alarm)."""
        try:
            return _issues_from(self.issues_path.read_bytes()[:_MAX_HEAD_BYTES])
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as error:
            self._alarm("state_damaged", f"{self.issues_path} cannot be read: {error}")
            return None

    def keep_issues(self, seen: SeenIssues) -> None:
        """Keep which signed lists were read; a failure is an alarm."""
        try:
            if self._may_write():
                self._replace(self.issues_path, (_issues_bytes(seen),))
        except OSError as error:
            self.failures += 1
            self._alarm("state_unwritable", f"{self.issues_path} cannot be written: {error}")

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = None

    def _read(self, file: BinaryIO, *, now: float, max_entries: int) -> tuple[KeptList | None, bool]:
        """Return what was kept, and whether all of the file is good."""
        kept: KeptList | None = None
        while line := file.readline(_MAX_HEAD_BYTES):
            try:
                kept = _merge(kept, line, file, now=now, max_entries=max_entries, boot=self._boot)
            except ProtocolError as error:
                self._alarm("state_damaged", f"{self.path} is damaged from some point on: {error}")
                return kept, False
        return kept, True

    def _may_write(self) -> bool:
        """Tell whether this process holds the lock, after trying to get it."""
        if self._lock is not None and self._locked_by == os.getpid():
            return True
        import fcntl

        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock, self._locked_by, self._must_rewrite = lock, os.getpid(), True
        return True

    def _replace(self, path: Path, content: tuple[bytes, ...]) -> None:
        """Put *content*, one part after the other, in the place of the file at *path*, whole or not at all."""
        temporary = path.with_name(f"{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(content)
            file.flush()
            self._sync(file.fileno())
        temporary.replace(path)
        self._sync_folder()

    def _append(self, record: tuple[bytes, ...]) -> None:
        with self.path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.writelines(record)
            file.flush()
            self._sync(file.fileno())
        self._appended_bytes += sum(map(len, record))

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync(descriptor)
        finally:
            os.close(descriptor)

    def _alarm(self, reason: str, detail: str) -> None:
        self._reporter.alarm(reason, detail)


def boot_id() -> str | None:
    """
    Return what names the present run of the machine's kernel, or None where the system does not tell (Linux does).

    Within it `SystemClock.monotonic` of one process goes on in the next.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _record(head: dict[str, Any], body: bytes) -> tuple[bytes, ...]:
    """Return the parts of a record: joining them would copy 200 MB while no other thread runs."""
    digest = hashlib.sha256(body).hexdigest()
    head = head | {"version": _VERSION, "length": len(body), "sha256": digest}
    return dump_json(head | {"check": _check_of(head)}), b"\n", body, b"\n"


def _check_of(head: dict[str, Any]) -> str:
    return hashlib.sha256(dump_json(head)).hexdigest()[:16]


def _kind_of(news: bytes) -> str:
    return "json" if news[:1] == b"{" else "binary"


def _merge(
    kept: KeptList | None, line: bytes, file: BinaryIO, *, now: float, max_entries: int, boot: str | None
) -> KeptList:
    """Return *kept* with the record that *line* begins."""
    head = parse_json_object(line.rstrip(b"\n"))
    check = head.pop("check", None)
    if (check is not None or "boot" in head) and check != _check_of(head):  # versions of before wrote neither
        raise ProtocolError("the head of a record is changed")
    length = head.get("length")
    if (
        head.get("version") != _VERSION
        or not isinstance(length, int)
        or not 0 <= length <= max_binary_bytes(max_entries)
    ):
        raise ProtocolError("a record is of another version or has no length")
    body = file.read(length)
    digest = hashlib.sha256(body).hexdigest()
    if len(body) != length or file.read(1) != b"\n" or digest != head.get("sha256"):
        raise ProtocolError("a record is cut or changed")
    held = kept.held if kept is not None else None
    cursor, as_of, written_at = head.get("cursor"), _seconds(head, "as_of"), _seconds(head, "written_at")
    if type(cursor) is not str:
        raise ProtocolError("a record has no cursor")
    if head.get("kind") != "stamp":
        parse = parse_list if head["kind"] == "json" else parse_binary_list
        document = parse(body, max_entries=max_entries)
        # Its own epoch is accepted: it was when this record was written.
        held = document.onto(held, now=min(now, written_at), accept_epoch=document.epoch, max_entries=max_entries)
    if held is None:
        raise ProtocolError("the first record has no list")
    uptime = _seconds(head, "uptime") if boot is not None and head.get("boot") == boot else None
    return KeptList(held=held, cursor=cursor, as_of=as_of, written_at=written_at, uptime=uptime)


def _seconds(head: dict[str, Any], name: str) -> float:
    value = head.get(name)
    if not isinstance(value, int | float) or not 0 <= value < 10**11:
        raise ProtocolError(f"a record has no {name}")
    return float(value)


def _issues_bytes(seen: SeenIssues) -> bytes:
    streams = [[stream, seq, digest] for stream, (seq, digest) in seen.streams.items()]
    body = dump_json({"version": _VERSION, "as_of": seen.as_of, "streams": streams[-MAX_STREAMS:]})
    return hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body + b"\n"


def _issues_from(content: bytes) -> SeenIssues:
    digest, _, body = content.rstrip(b"\n").partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode("ascii") != digest:
        raise ProtocolError("it is cut or changed")
    members = parse_json_object(body)
    streams = members.get("streams")
    if members.get("version") != _VERSION or not isinstance(streams, list):
        raise ProtocolError("it is of another version")
    try:
        seen = {str(stream): (int(seq), str(digest)) for stream, seq, digest in streams}
    except (TypeError, ValueError):
        raise ProtocolError("a stream is not of our form") from None
    return SeenIssues(streams=seen, as_of=_seconds(members, "as_of"))
