"""Applications' credentials in a folder: the embedded default."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenry_admin.plan_b_files import PROBE_BODY, PROBE_NAME
from tokenry_admin.ports import FilesUnavailable

if TYPE_CHECKING:
    from pathlib import Path


class ApplicationFolder:
    """`ApplicationFiles` below a folder, readable by their owner alone."""

    def __init__(self, root: Path) -> None:
        """Write below *root*."""
        self._root = root

    async def probe(self, application: str) -> None:
        """See that files of *application* can be written."""
        await self.put(application, PROBE_NAME, PROBE_BODY)

    async def put(self, application: str, name: str, body: bytes) -> None:
        """Write the file *name* of *application*."""
        await asyncio.to_thread(self._put, self._root / application / name, body)

    async def close(self) -> None:
        """Hold nothing."""

    def _put(self, path: Path, body: bytes) -> None:
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise FilesUnavailable(str(self._root), type(error).__name__) from None
        finally:
            with suppress(OSError):  # there is none, or no folder that it could be in
                temporary.unlink()
