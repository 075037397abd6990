"""
One thread that does blocking work for an event loop, in bundles.

What waits in the queue while one bundle is worked on forms the next: the busier it is, the larger the
bundles, and the fewer the costs that are paid once a bundle (a transaction, a flush to disk).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Job: TypeAlias = Callable[[], object]
# Returns one outcome for each job: a value, or the exception to raise in its caller.
Work: TypeAlias = Callable[[Sequence[Job]], Sequence[object]]


class LaneFull(Exception):
    """More is waiting than may wait, or the lane is closed: nothing was begun."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    job: Job
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[object]


class Lane:
    """
    A thread with a bounded queue.

    Args:
        work: Called in the thread with the jobs of one bundle.
        name: Of the thread.
        capacity: How many jobs may wait.
        bundle: How many are done together. The first one's caller hears of it only when the last one is done.
    """

    def __init__(self, work: Work, *, name: str, capacity: int, bundle: int) -> None:
        """Start the thread."""
        self._work = work
        self._bundle = bundle
        self._queue: queue.Queue[_Ticket | None] = queue.Queue(capacity)
        self._gate = threading.Lock()
        self._closed = False
        # A daemon: a process that forgot to close must still end, and a bundle is atomic anyway.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> asyncio.Future[object]:
        """
        Let the thread do *job*; the future belongs to the running loop.

        Raises:
            LaneFull: Nothing was begun.
        """
        loop = asyncio.get_running_loop()
        ticket = _Ticket(job, loop, loop.create_future())
        with self._gate:
            if self._closed:
                raise LaneFull("the store is closed")
            try:
                self._queue.put_nowait(ticket)
            except queue.Full:
                raise LaneFull(f"{self._queue.maxsize} operations are waiting already") from None
        return ticket.future

    def close(self) -> None:
        """Do what waits, then end; blocks until the thread has ended."""
        with self._gate:
            already, self._closed = self._closed, True
        if not already:
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            tickets, ended = self._next_bundle()
            if tickets:
                _settle(tickets, self._work([ticket.job for ticket in tickets]))

    def _next_bundle(self) -> tuple[list[_Ticket], bool]:
        tickets: list[_Ticket] = []
        item = self._queue.get()
        while item is not None:
            tickets.append(item)
            if len(tickets) == self._bundle:
                return tickets, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return tickets, False
        return tickets, True


def _settle(tickets: Sequence[_Ticket], outcomes: Sequence[object]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[object], object]]] = {}
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        by_loop.setdefault(ticket.loop, []).append((ticket.future, outcome))
    for loop, settled in by_loop.items():
        # A loop that was closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle_in_loop, settled)


def _settle_in_loop(settled: Sequence[tuple[asyncio.Future[object], object]]) -> None:
    for future, outcome in settled:
        if future.done():  # its caller was cancelled
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
