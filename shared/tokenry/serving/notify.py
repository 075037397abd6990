"""
Telling the service manager how we are: the notification protocol of systemd (sd_notify(3)), `Type=notify`.

* `READY=1` goes out when the service is ready for the first time, not when it listens: what comes after it may ask.
* `STOPPING=1` goes out when it begins to drain.
* `WATCHDOG=1` goes out from the event loop while that runs, where a watchdog is set: one that is stuck gets restarted.

Without `NOTIFY_SOCKET` in the environment nothing is sent. What cannot be sent is left out: nothing waits for it.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tokenry.serving.health import Health

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
LOOK_SECONDS: Final = 0.1  # how often it is looked whether the service is ready
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Sends states to the service manager that started this process, if one wants them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Send to the socket that *environ* names."""
        address = environ.get(SOCKET_VARIABLE, "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog = environ.get(WATCHDOG_VARIABLE, "")
        # Twice as often as demanded, as sd_watchdog_enabled(3) advises.
        self.watchdog_seconds = int(watchdog) / _MICROSECONDS / 2 if watchdog.isdecimal() and int(watchdog) else None

    @property
    def wanted(self) -> bool:
        """Tell whether anybody listens."""
        return self._address.startswith(("/", "\0"))

    def send(self, state: str) -> None:
        """Send *state*, such as `READY=1`."""
        if not self.wanted:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), self._address)


@asynccontextmanager
async def notifying(notifier: Notifier, health: Health) -> AsyncIterator[None]:
    """Tell by *notifier* when *health* is ready, that it drains, and all the time that the event loop runs."""
    if not notifier.wanted:
        yield
        return
    health.on_drain(lambda: notifier.send("STOPPING=1"))
    tasks = [asyncio.create_task(_tell_when_ready(notifier, health))]
    if notifier.watchdog_seconds is not None:
        tasks.append(asyncio.create_task(_beat(notifier, notifier.watchdog_seconds)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_when_ready(notifier: Notifier, health: Health) -> None:
    while not health.report().ready:  # noqa: ASYNC110 -- checks are looked at; they tell nobody when they change
        await asyncio.sleep(LOOK_SECONDS)
    notifier.send("READY=1")


async def _beat(notifier: Notifier, seconds: float) -> None:
    while True:
        notifier.send("WATCHDOG=1")
        await asyncio.sleep(seconds)
