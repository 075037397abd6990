"""Objects in a folder of the same layout: the embedded default."""

from __future__ import annotations

import asyncio
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tokenry_registry.ports import GONE, MAX_OBJECT_BYTES, MAX_OBJECTS, ObjectUnreadable, StoredObject, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

THREADS = 4


class DirectoryStore:
    """
    An `ObjectStore` over the files below a folder.

    Names that begin with a dot are not seen: temporary files of a writer, and what orchestrators put into
    mounted folders. A file is replaced by renaming another over it, so that no reader meets half of one.
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
        parts = key.split("/")
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            raise ObjectUnreadable(GONE)
        try:
            with self._root.joinpath(*parts).open("rb") as file:
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
