"""Several streams read at the same time, with a bound on what lies about."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

T = TypeVar("T")


async def merged(streams: Iterable[AsyncGenerator[T, None]], *, at_once: int) -> AsyncGenerator[T, None]:
    """
    Yield what *streams* yield, in any order; the first failure ends them all and is raised.

    Args:
        streams: They are begun as others end.
        at_once: How many are read at the same time; each holds one item that was not taken yet.
    """
    waiting = iter(streams)
    running: dict[asyncio.Task[T], AsyncGenerator[T, None]] = {}

    def go_on(stream: AsyncGenerator[T, None] | None) -> None:
        if stream is not None:
            running[asyncio.ensure_future(_next(stream))] = stream

    for _ in range(at_once):
        go_on(next(waiting, None))
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in running if each in done]:  # in the order of their beginning, not of addresses
                stream = running.pop(task)
                try:
                    item = task.result()
                except StopAsyncIteration:
                    go_on(next(waiting, None))
                    continue
                go_on(stream)
                yield item
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for stream in running.values():
            await stream.aclose()


async def _next(stream: AsyncGenerator[T, None]) -> T:
    return await anext(stream)
