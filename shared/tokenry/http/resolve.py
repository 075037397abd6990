"""
Name resolution with a deadline.

The system's resolver cannot be given one and may block for half a minute when its servers do not answer;
so it runs in a thread of its own, and the addresses that it found last serve while it does not.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Addresses = tuple[tuple[socket.AddressFamily, Any], ...]

REMEMBER_SECONDS: Final = 600.0  # long enough for an outage of DNS, short enough for a host that has moved


class Resolver:
    """Finds the addresses of a host; remembers the last good ones for when the resolver fails."""

    def __init__(
        self, *, system: Callable[..., Any] = socket.getaddrinfo, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Know nothing yet; ask *system*, which may block, and tell the time in seconds by *monotonic*."""
        self._system = system
        self._monotonic = monotonic
        self._known: dict[tuple[str, int], tuple[float, Addresses]] = {}

    def resolve(self, host: str, port: int, *, timeout: float) -> Addresses:
        """
        Return the addresses of *host*, asked now or, if that fails, found in the last 10 minutes.

        Half of *timeout* (seconds) at most is spent on asking, so that the rest is left for connecting.

        Raises:
            socket.gaierror: The name cannot be resolved in time.
        """
        key = (host, port)
        answer: Future[Addresses] = Future()
        threading.Thread(target=self._look_up, args=(answer, host, port), name="tokenry-resolve", daemon=True).start()
        try:
            addresses = answer.result(timeout / 2)
        except (FutureTimeout, OSError, UnicodeError):
            return self._remembered(key)
        if len(self._known) >= 64:  # noqa: PLR2004 -- a fetcher talks to a handful of hosts
            self._known.clear()
        self._known[key] = (self._monotonic(), addresses)
        return addresses

    def _remembered(self, key: tuple[str, int]) -> Addresses:
        found, addresses = self._known.get(key, (0.0, ()))
        if not addresses or self._monotonic() - found > REMEMBER_SECONDS:
            raise socket.gaierror(socket.EAI_AGAIN, "the host name cannot be resolved in time")
        return addresses

    def _look_up(self, answer: Future[Addresses], host: str, port: int) -> None:
        try:
            found = self._system(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)
        else:
            answer.set_result(tuple((family, address) for family, _, _, _, address in found))
