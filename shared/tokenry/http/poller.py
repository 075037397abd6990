"""
One thread that carries one conversation with a server, for as long as somebody wants its results.

What to ask, what an answer means and when to ask again are the business of a `Conversation`, which does no
I/O and reads no clock. This module supplies the thread, the clock and the fetcher.

Invariants:
    * One daemon thread a poller, started on demand, joined by `stop` within a second or so.
    * A conversation is called by one thread at a time.
    * No exception ends the thread: what is unexpected is logged, counted and told to the conversation as a
      failure, so that it backs off like after any other.
    * After a fork the child has no thread; the first `revive` starts one, with connections of its own.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from tokenry.errors import TokenryError
from tokenry.http.fetch import Failure, FetchFailed
from tokenry.http.forking import renew_after_fork

if TYPE_CHECKING:
    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher, Request, Response

log = logging.getLogger("tokenry")

LONGEST_WAIT_SECONDS: Final = 60.0  # a lost wake-up, or a suspended machine, costs no more than this


@dataclass(frozen=True, slots=True)
class Moment:
    """
    One reading of both clocks.

    Attributes:
        now: Unix seconds.
        monotonic: Seconds of the clock that is never set.
    """

    now: float
    monotonic: float

    @classmethod
    def of(cls, clock: Clock) -> Moment:
        """Read *clock*."""
        return cls(clock.now(), clock.monotonic())


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to ask for *seconds*."""

    seconds: float


class Conversation(Protocol):
    """What to ask a server, and what its answers mean. No I/O; time is an argument."""

    @property
    def name(self) -> str:
        """What is fetched, for the thread's name and the log."""
        ...

    def next_request(self, at: Moment) -> Request | Wait:
        """Return what to ask now, or how long to wait."""
        ...

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:
        """Take in the answer to the last request, which was sent at *started*."""
        ...

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:
        """Take note that the last request has no usable answer."""
        ...


class Prepare(Protocol):
    """Completes a request by what needs I/O, such as a bearer token."""

    def __call__(self, request: Request) -> Request:
        """Return the request to send; a `TokenryError` counts as a failed fetch."""
        ...


class Poller:
    """
    Drives *conversation* in a daemon thread.

    Args:
        conversation: What to ask.
        fetcher: Who asks; used by this poller alone, because `stop` cancels what it does.
        clock: Where the conversation's time comes from.
        prepare: Completes each request.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        fetcher: Fetcher,
        clock: Clock,
        prepare: Prepare | None = None,
    ) -> None:
        """Remember the parts; the thread begins with `start`."""
        self._conversation = conversation
        self._fetcher = fetcher
        self._clock = clock
        self._prepare = prepare
        self._wanted = False
        self.errors = 0
        self.orphaned = False
        self._renew()
        renew_after_fork(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Forget the thread that the child does not have; `revive` starts another."""
        self._renew()
        self.orphaned = self._wanted

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread unless it runs already."""
        with self._lock:
            self._wanted, self.orphaned = True, False
            if not self.running:
                name = f"tokenry-{self._conversation.name}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def revive(self) -> None:
        """Start the thread again in a forked child whose parent had one."""
        if self.orphaned:
            self.start()

    def wake(self) -> None:
        """Let the conversation be asked at once for its next request."""
        self._wake.set()

    def stop(self, *, timeout: float = 2.0) -> None:
        """End the thread; a request that is under way is cut off. *timeout* is in seconds."""
        with self._lock:
            thread, self._thread, self._wanted = self._thread, None, False
        self._wake.set()
        self._fetcher.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def step(self) -> float:
        """
        Perform one turn of the conversation: at most one exchange.

        Returns:
            Seconds for which there is nothing to do.
        """
        started = Moment.of(self._clock)
        step = self._conversation.next_request(started)
        if isinstance(step, Wait):
            return step.seconds
        try:
            request = self._prepare(step) if self._prepare is not None else step
            response = self._fetcher.fetch(request)
        except FetchFailed as failure:
            if failure.failure is Failure.CANCELLED and not self._wanted:
                return 0.0  # by `stop`: nothing that anybody has to know
            self._conversation.on_failure(failure, started=started, at=Moment.of(self._clock))
        except TokenryError as error:
            refused = FetchFailed(Failure.UNAUTHENTICATED, str(error))
            self._conversation.on_failure(refused, started=started, at=Moment.of(self._clock))
        else:
            self._conversation.on_response(response, started=started, at=Moment.of(self._clock))
        return 0.0

    def _run(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            self._wake.clear()
            seconds = self._guarded_step()
            if seconds > 0 and self._thread is me:
                self._wake.wait(min(seconds, LONGEST_WAIT_SECONDS))

    def _guarded_step(self) -> float:
        started = Moment.of(self._clock)
        try:
            return self.step()
        except Exception as error:
            self.errors += 1
            log.exception("tokenry: a defect in %s; it will be tried again", self._conversation.name)
            failure = FetchFailed(Failure.INTERNAL, f"a defect: {type(error).__name__}")
            return self._give_up(failure, started)

    def _give_up(self, failure: FetchFailed, started: Moment) -> float:
        try:
            self._conversation.on_failure(failure, started=started, at=Moment.of(self._clock))
        except Exception:
            log.exception("tokenry: a defect in %s while handling another", self._conversation.name)
        return 1.0  # never a busy loop, whatever the conversation says
