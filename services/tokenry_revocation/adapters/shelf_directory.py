"""The signed list as a file of a folder, replaced atomically and under a lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tokenry_revocation.publisher import OBJECT_NAME, Overtaken, Placed, ShelfUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class DirectoryShelf:
    """A `Shelf` in one folder, for all processes of the machines that mount it and honour its locks."""

    def __init__(self, folder: Path) -> None:
        """Put the list into *folder*, which is made when it is not there."""
        self._folder = folder
        self._path = folder / OBJECT_NAME

    def version(self) -> str | None:
        """Return the version of the file."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(error) from None
        return _version(status)

    def read(self) -> Placed | None:
        """Return the file."""
        try:
            with self._path.open("rb") as file:
                return Placed(file.read(), _version(os.fstat(file.fileno())))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(error) from None

    def write(self, body: bytes, *, replaces: str | None) -> str:
        """Replace the file if it is still the version *replaces*."""
        try:
            with self._locked():
                if self.version() != replaces:
                    raise Overtaken("the list is of another version than the one to replace")
                return self._replace(body)
        except OSError as error:
            raise _unavailable(error) from None

    def _replace(self, body: bytes) -> str:
        temporary = self._folder / f".{hashlib.sha256(body).hexdigest()[:16]}"
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            version = _version(os.fstat(file.fileno()))
        temporary.replace(self._path)
        return version

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def _unavailable(error: OSError) -> ShelfUnavailable:
    return ShelfUnavailable(f"the folder of the list cannot be used ({error.strerror})")
