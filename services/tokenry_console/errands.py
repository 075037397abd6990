"""Work that outlives the request that began it: it goes on when a person closes the page, and ends with the process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tokenry.errors import TokenryError

if TYPE_CHECKING:
    from collections.abc import Coroutine

MAX_ERRANDS: Final = 100


class TooBusy(TokenryError):
    """There is more to do already than anybody can follow."""


class Errands:
    """What goes on."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """
        Begin *errand*.

        Raises:
            TooBusy: There are `MAX_ERRANDS` already.
        """
        if len(self._tasks) >= MAX_ERRANDS:
            errand.close()
            raise TooBusy(f"{MAX_ERRANDS} changes go on already")
        task = asyncio.create_task(errand)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self) -> None:
        """Give up what goes on; services do not, so nothing is half done by that."""
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
