"""Objects in a folder of the same layout: the embedded default."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tokenry_registry.ports import (
    GONE,
    MAX_OBJECT_BYTES,
    MAX_OBJECTS,
    ObjectUnreadable,
    StoredObject,
    StoreUnavailable,
    WriteConflict,
    WriteRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

THREADS = 4


class DirectoryStore:
    """
    A `WritableStore` over the files below a folder.

    Names that begin with a dot are not seen: temporary files of a writer, and what orchestrators put into
    mounted folders. A file is replaced by renaming another over it, so that no reader meets half of one. Writers
    take turns by a lock on the hidden file `.lock`, so that comparing a version and replacing it are one step.
    """

    def __init__(self, root: Path) -> None:
        """Read below *root*."""
        self._root = root
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="directory-store")

    async def list(self, prefix: str) -> Mapping[str, str]:
        """Return the keys that begin with *prefix* and the ETag of each."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._list, prefix)

    async def get(self, key: str, *, etag: str | None = None) -> StoredObject | None:
        """Return the object at *key*, or None when its version is still *etag*."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._get, key, etag)

    async def put(self, key: str, body: bytes, *, replaces: str | None) -> str:
        """Write *body* at *key* over the version *replaces* (None: over nothing) and return its ETag."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._put, key, body, replaces)

    async def delete(self, key: str, *, replaces: str) -> None:
        """Delete the version *replaces* of the object at *key*."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._delete, key, replaces)

    async def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _list(self, prefix: str) -> dict[str, str]:
        if not self._root.is_dir():
            raise StoreUnavailable("no_such_folder")
        found: dict[str, str] = {}
        try:
            for key, status in _files(self._root, ""):
                if key.startswith(prefix):
                    found[key] = _etag(status)
                if len(found) > MAX_OBJECTS:
                    raise StoreUnavailable("too_many_objects")
        except OSError as error:
            raise StoreUnavailable(_code(error)) from None
        return found

    def _get(self, key: str, etag: str | None) -> StoredObject | None:
        path = self._path(key)
        if path is None:
            raise ObjectUnreadable(GONE)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ObjectUnreadable(GONE)
                if _etag(status) == etag:
                    return None
                body = file.read(MAX_OBJECT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectUnreadable(GONE) from None
        except PermissionError:
            raise ObjectUnreadable("forbidden") from None
        except (OSError, UnicodeError) as error:
            raise StoreUnavailable(_code(error)) from None
        if len(body) > MAX_OBJECT_BYTES:
            raise ObjectUnreadable("too_large")
        return StoredObject(body, _etag(status))

    def _put(self, key: str, body: bytes, replaces: str | None) -> str:
        path = self._path(key)
        if path is None:
            raise WriteRefused("no_such_place")
        if len(body) > MAX_OBJECT_BYTES:
            raise WriteRefused("too_large")
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _version(path) != replaces:
                raise WriteConflict
            temporary = path.with_name(f".{secrets.token_hex(8)}")
            try:
                with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                    etag = _etag(os.fstat(file.fileno()))
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync(path.parent)
            return etag

    def _delete(self, key: str, replaces: str) -> None:
        path = self._path(key)
        if path is None:
            raise WriteConflict
        with self._writing():
            if _version(path) != replaces:
                raise WriteConflict
            path.unlink()
            _sync(path.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out, those of other processes too."""
        try:
            handle = os.open(self._root / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except PermissionError:
            raise WriteRefused("forbidden") from None
        except (OSError, UnicodeError) as error:
            raise StoreUnavailable(_code(error)) from None

    def _path(self, key: str) -> Path | None:
        parts = key.split("/")
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            return None
        return self._root.joinpath(*parts)


def _version(path: Path) -> str | None:
    """Return the ETag of the file at *path*; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _etag(status) if stat.S_ISREG(status.st_mode) else ""


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            key = prefix + entry.name
            try:
                if entry.is_dir():
                    yield from _files(Path(entry.path), key + "/")
                elif entry.is_file():
                    yield key, entry.stat()
            except FileNotFoundError:  # gone while we were looking
                continue


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def _code(error: Exception) -> str:
    return type(error).__name__
