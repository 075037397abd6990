"""
An event loop whose time is a number: it jumps to the next thing that will happen, and never waits.

`asyncio.sleep`, `asyncio.timeout`, locks and events of the code under test work unchanged; an hour takes as long
as what happens in it. There are no threads: what is handed to one is done at once. The same seed gives the same
run, event by event.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
# As far from zero as a machine that runs for hours; code that takes it for Unix time fails its checks.
_MONOTONIC_START = 10_000.0


class Deadlock(Exception):
    """Nothing is left that could ever happen."""


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for sockets it moves the time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = _MONOTONIC_START

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock("every task waits for another one")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        """Begin at a time of its own."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual monotonic time in seconds."""
        return self._jumping.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, function: Callable[..., T], *arguments: Any
    ) -> asyncio.Future[T]:
        """Call *function* here and now."""
        future = self.create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 -- as a thread would: to whoever awaits
            future.set_exception(error)
        return future


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* in a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class SkewedClock:
    """
    A process's clocks within the simulation.

    Attributes:
        offset: Seconds by which the wall clock is ahead of the truth; may be set at any time.
    """

    def __init__(self, loop: VirtualLoop, *, start: float, offset: float = 0.0, uptime: float = 0.0) -> None:
        """Stand at Unix time *start* plus *offset* when the loop began; monotonic time began *uptime* before."""
        self._loop = loop
        self._start = start - _MONOTONIC_START
        self._uptime = uptime - _MONOTONIC_START
        self.offset = offset

    def now(self) -> float:
        """Return the process's Unix time."""
        return self._start + self._loop.time() + self.offset

    def monotonic(self) -> float:
        """Return the process's monotonic time."""
        return self._uptime + self._loop.time()
