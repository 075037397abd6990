"""Running services as processes of one foreground command, with nothing left behind when it ends."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_PROBE_SECONDS = 0.5  # a service on loopback answers in a millisecond, or is busy starting
_STEP_SECONDS = 0.05  # how often a start is looked at
# Below the range that the kernel takes the ports of outgoing connections from: one of those could get in between.
_FIRST_PORT, _EPHEMERAL_PORT = 10_000, 32_000
_TRIES = 100


class ServiceFailed(Exception):
    """
    A service did not start, or ended by itself.

    Attributes:
        log: Where its own words are.
    """

    def __init__(self, message: str, *, log: Path) -> None:
        """Say which service it was, and show the end of its *log*."""
        self.log = log
        super().__init__(f"{message}\n{_tail(log)}\nthe whole log: {log}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    One process to run.

    Attributes:
        name: What people call it.
        module: What `python -m` runs.
        environment: Its settings; nothing else of our environment that starts with TOKENRY_ reaches it.
        url: Base URL at which it listens.
        log: File that its output is written to, anew at each start.
    """

    name: str
    module: str
    environment: Mapping[str, str]
    url: str
    log: Path


class Supervisor:
    """Starts services, waits until they are ready, and ends them."""

    def __init__(self, services: Sequence[Service], *, echo: bool = False) -> None:
        """Prepare to run *services*; with *echo* their output goes to standard error instead of files."""
        self._services = services
        self._echo = echo
        self._running: list[tuple[Service, subprocess.Popen[bytes], IO[bytes] | None]] = []

    def start(self) -> None:
        """Start every service; none is waited for."""
        for service in self._services:
            output = None if self._echo else service.log.open("wb")
            process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module
                # Bound to us in the child: code between fork and exec is unsafe where there are threads.
                [sys.executable, "-m", "tokenry_cli.bound", str(os.getpid()), service.module],
                env=_environment(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if output is None else output,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal reaches us alone; we end them in order.
                start_new_session=True,
            )
            self._running.append((service, process, output))

    def wait_ready(self, *, timeout: float, interrupted: Callable[[], bool]) -> bool:
        """
        Return True when all are ready, or False as soon as *interrupted* says so.

        Args:
            timeout: Seconds to wait at most.
            interrupted: Asked every few milliseconds.

        Raises:
            ServiceFailed: One ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout
        waiting = list(self._services)
        while waiting and not interrupted():
            self.check()
            waiting = [service for service in waiting if not is_ready(service.url)]
            if waiting and time.monotonic() > deadline:
                message = f"{waiting[0].name} was not ready within {timeout:.0f} s"
                raise ServiceFailed(message, log=waiting[0].log)
            if waiting:
                time.sleep(_STEP_SECONDS)
        return not waiting

    def check(self) -> None:
        """
        Do nothing while all services run.

        Raises:
            ServiceFailed: One has ended by itself.
        """
        for service, process, _ in self._running:
            if (status := process.poll()) is not None:
                message = f"{service.name} ended by itself with status {status}"
                raise ServiceFailed(message, log=service.log)

    def pause(self) -> None:
        """Let every service stand still: its port stays open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for _, process, _ in self._running:
            if process.poll() is None:
                process.send_signal(number)

    def stop(self, *, timeout: float = 20.0) -> None:
        """End every service: ask first, and kill after *timeout* seconds what has not gone."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # what stands still does not hear the first
        deadline = time.monotonic() + timeout
        for _, process, output in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if output is not None:
                output.close()
        self._running.clear()


def is_ready(url: str) -> bool:
    """Tell whether the service at *url* says that it can do its job."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Tell whether nobody listens on *port*."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port_base(count: int, *, host: str = "127.0.0.1") -> int:
    """Return the first of *count* adjacent ports of *host* that nobody listens on."""
    for _ in range(_TRIES):
        base = _FIRST_PORT + secrets.randbelow(_EPHEMERAL_PORT - _FIRST_PORT - count)
        if all(is_free(port, host=host) for port in range(base, base + count)):
            return base
    message = f"no {count} adjacent free ports were found on {host}"
    raise OSError(message)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    # Settings of another deployment in the caller's shell must not leak into this one.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENRY_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings}


def _tail(log: Path, *, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
