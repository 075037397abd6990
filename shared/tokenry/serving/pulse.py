"""
The pulse of the event loop: how late it is, and who holds it.

The loop beats every `BEAT_SECONDS`. A thread of its own looks whether it does, because nothing on the loop can: when a
beat is `HELD_SECONDS` overdue, it logs what the loop's thread is doing, once each time (names of functions and lines,
no values), and counts it. What is `RED_SECONDS` late is not ready, until the next beat that is on time: whoever asks
meanwhile goes to another replica.

What was more than `LATE_SECONDS` late is counted by what took the time: the loop's own thread, another thread of this
process that did not let it run, or neither (other processes on the processor, or a call that waits).

A process that did not run at all (stopped, or its machine was) looks the same from within but for the time that it got
on a processor; that is counted apart, and its stack would say nothing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from tokenry.serving.health import failed, ok

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.serving.health import Finding
    from tokenry.serving.metrics import Metrics

BEAT_SECONDS: Final = 0.05  # what holds the loop for longer than that and 0.1 s is seen as more than 0.1 s
LOOK_SECONDS: Final = 0.1
LATE_SECONDS: Final = 0.1
HELD_SECONDS: Final = 0.5
RED_SECONDS: Final = 1.0
MAX_FRAMES: Final = 30  # the innermost ones
_RAN_SHARE: Final = 0.5  # of the time that a process must have had on a processor to have been running

_log = structlog.get_logger("tokenry.serving.pulse")


class Pulse:
    """
    How late one event loop is. `beat` belongs to the loop's thread, everything else to any.

    Args:
        metrics: Where lateness is shown.
        monotonic: Seconds on the clock of the machine, whatever clock the application was given: a loop's timers go by
            that one.
        processor_seconds: Seconds that this process has had on a processor.
        thread_seconds: Seconds that the calling thread has had.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        processor_seconds: Callable[[], float] = time.process_time,
        thread_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        """Begin as a pulse that has not beaten yet: nothing is late before the first beat."""
        self._metrics = metrics
        self._monotonic = monotonic
        self._processor_seconds = processor_seconds
        self._thread_seconds = thread_seconds
        self._due: float | None = None
        self._late = 0.0
        self._thread_id = 0
        self._ran = 0.0  # what the process had run at the last beat
        self._own = 0.0  # and the loop's thread
        self._looked = 0.0
        self._lock = threading.Lock()
        self._told: float | None = None  # the beat of which it was told that it does not come

    def beat(self) -> float:
        """Note that the loop runs, and return the seconds until the next beat is due."""
        now, due = self._monotonic(), self._due
        ran, own = self._processor_seconds(), self._thread_seconds()
        if due is None:
            self._thread_id = threading.get_ident()
        else:
            self._late = max(0.0, now - due)
            self._metrics.beat(self._late)
            if self._late >= LATE_SECONDS:
                self._judge(due, ran=ran - self._ran, own=own - self._own)
        self._due, self._ran, self._own = now + BEAT_SECONDS, ran, own
        return BEAT_SECONDS

    def _judge(self, due: float, *, ran: float, own: float) -> None:
        share = _RAN_SHARE * self._late
        self._metrics.late["loop" if own >= share else "threads" if ran >= share else "elsewhere"].inc()
        if self._late >= HELD_SECONDS and self._tell(due):
            # The watching thread had no chance to see it: the interpreter was held, or nothing ran at all.
            self._say(self._late, ran=ran >= share, stack=[])

    def stop(self) -> None:
        """Expect no beat any more."""
        self._due, self._late = None, 0.0

    def late(self) -> float:
        """Return by how many seconds the last beat was late, or the next one is already, whichever is more."""
        due = self._due
        return self._late if due is None else max(self._late, self._monotonic() - due)

    def finding(self) -> Finding:
        """Return whether the loop is on time: the check of readiness."""
        late = self.late()
        return failed(f"the event loop is {late:.1f} s late") if late >= RED_SECONDS else ok()

    def look(self) -> None:
        """Tell, once for each beat that does not come, what the loop's thread does instead."""
        now, due = self._monotonic(), self._due
        looked, self._looked = self._looked, now
        if due is None or now - due < HELD_SECONDS or not self._tell(due):
            return
        away = now - looked - LOOK_SECONDS  # this thread was late itself: it did not run, or was not let
        ran = away < HELD_SECONDS / 2 or self._processor_seconds() - self._ran >= _RAN_SHARE * away
        self._say(now - due, ran=ran, stack=_stack_of(self._thread_id))

    def _tell(self, due: float) -> bool:
        """Return whether nobody has told yet of the beat that was *due*."""
        with self._lock:
            first, self._told = self._told != due, due
        return first

    def _say(self, seconds: float, *, ran: bool, stack: list[str]) -> None:
        if ran:
            self._metrics.held["loop"].inc()
            _log.error("the event loop is held", seconds=round(seconds, 3), frames=stack)  # `stack` is structlog's own
        else:
            self._metrics.held["process"].inc()
            _log.warning("the process did not run", seconds=round(seconds, 3))


def _stack_of(thread_id: int) -> list[str]:
    """Return where a thread is, outermost first: `module.function:line`, and no value of any variable."""
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001 -- the documented way to another thread's stack
    found: list[str] = []
    while frame is not None and len(found) < MAX_FRAMES:
        found.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return found[::-1]


class Watchdog:
    """The beat on the loop and the thread that watches it, for as long as an application lives."""

    def __init__(self, pulse: Pulse) -> None:
        """Watch *pulse* from `start` to `stop`, both on the loop."""
        self._pulse = pulse
        self._ended = threading.Event()
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._beating = asyncio.create_task(self._beat(), name="pulse")
        threading.Thread(target=self._watch, name="pulse", daemon=True).start()

    async def stop(self) -> None:
        """End the beat; the thread ends by itself within one look."""
        self._ended.set()
        self._pulse.stop()
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating

    async def _beat(self) -> None:
        while True:  # noqa: ASYNC110 -- it waits for nothing but time
            await asyncio.sleep(self._pulse.beat())

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._pulse.look()
