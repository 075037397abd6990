"""An audit log in a file of this machine: one chain, which every run of the command line goes on with."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.jose.encoding import dump_json
from tokenry.serving.audit_chain import AuditChain, Head, record_hash, record_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tokenry.clock import Clock

MODE: Final = 0o600
MAX_RECORD_BYTES: Final = 1024 * 1024  # so much of the end is looked at for the last record


class AuditFile:
    """
    Appends records to a file, each on the disk before it returns.

    Whoever writes holds a lock of the file, so that several commands at once make one chain. The lock is the file's own
    (`flock`): on a network's file system it has to be one that knows locks.
    """

    def __init__(self, path: Path, *, instance: str, clock: Clock) -> None:
        """
        Append to the file at *path*, which is made (mode 0600) if it is not there.

        Args:
            path: The file.
            instance: Name of the chain, if this makes the file: one that no other chain has.
            clock: Where the time comes from.

        Raises:
            ConfigurationError: It cannot be written, or its last line is no record of a chain: before anything that
                should be recorded was done.
        """
        self._path = path
        self._instance = instance
        self._clock = clock
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            raise ConfigurationError([f"TOKENRY_AUDIT_FILE: {path}: {error.strerror}; nothing was done"]) from None
        try:
            self._chain()
        except BaseException:
            self.close()
            raise

    def __call__(self, event: str, fields: Mapping[str, object]) -> None:
        """
        Write one line.

        Raises:
            ConfigurationError: It is not written; what it is about was done.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                record = self._chain().record(event, fields, now=self._clock.now())
                line = dump_json({"audit": True, **record}) + b"\n"
                if os.write(self._file, line) != len(line):
                    raise OSError(0, "written in part")
                os.fsync(self._file)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise ConfigurationError(
                [f"TOKENRY_AUDIT_FILE: {self._path}: {error.strerror}; {event!r} was done and is not in it"]
            ) from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _chain(self) -> AuditChain:
        """Return the chain as the file has it now."""
        size = os.fstat(self._file).st_size
        if size == 0:
            return AuditChain(self._instance)
        tail = os.pread(self._file, MAX_RECORD_BYTES, max(0, size - MAX_RECORD_BYTES))
        last = tail.rstrip(b"\n").rpartition(b"\n")[2]
        try:
            record = record_of(last.decode()) if tail.endswith(b"\n") else None
            whole = record is not None and record_hash(record) == record["hash"]
        except (ProtocolError, ValueError):
            record, whole = None, False
        if record is None or not whole:
            why = f"the last line of {self._path} is no whole audit record"
            advice = "see what happened to it (`tokenry audit verify`), and name another file"
            raise ConfigurationError([f"TOKENRY_AUDIT_FILE: {why}: {advice}"])
        return AuditChain.after(Head(instance=record["instance"], seq=record["seq"], hash=record["hash"]))
