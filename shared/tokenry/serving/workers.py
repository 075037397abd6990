"""
Several processes of one service on one port (`--processes N`): the kernel spreads connections over them
(SO_REUSEPORT).

The parent only supervises. It holds no connection and no key, so that nothing that a caller sends can reach it.

* A child that ends unasked is replaced, after a pause that doubles with every early death, up to
  `MAX_PAUSE_SECONDS`; the others serve on meanwhile.
* SIGTERM and SIGINT are passed on to all children; the parent ends when the last of them has drained.
* A child whose parent is gone drains and ends, too: nobody would ever stop it.
* Each child exports its own metrics: the configured port of `metrics_listen_address` is that of the first, the
  second has the next one, and so on. A scraper sums them up; a merge in here could only hide a sick one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenry.errors import ConfigurationError
from tokenry.serving.addresses import MAX_PORT, ListenAddress, parse_listen_address
from tokenry.serving.notify import SOCKET_VARIABLE, WATCHDOG_VARIABLE, Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tokenry.serving.settings import ServiceSettings

MAX_PROCESSES = 256  # more than any machine has processors worth using for this
PARENT_VARIABLE = "TOKENRY_SUPERVISED_BY"  # tells a child who its parent is
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a child that lived that long did not fail at its start
_TICK_SECONDS = 0.2


def check_processes(settings: ServiceSettings, count: int) -> None:
    """
    See whether *count* processes can share what *settings* say.

    Raises:
        ConfigurationError: They cannot.
    """
    faults = []
    if not 1 <= count <= MAX_PROCESSES:
        faults.append(f"--processes: write a number from 1 to {MAX_PROCESSES}")
    address = parse_listen_address(settings.listen_address)
    if count > 1 and (address.path is not None or address.port == 0):
        faults.append("TOKENRY_LISTEN_ADDRESS: several processes need a TCP port that is fixed")
    metrics = settings.metrics_listen_address
    if count > 1 and metrics is None:
        faults.append("TOKENRY_METRICS_LISTEN_ADDRESS: several processes need one; each has its own metrics")
    elif count > 1 and metrics is not None:
        first = parse_listen_address(metrics)
        if first.path is not None or first.port == 0 or first.port + count - 1 > MAX_PORT:
            faults.append("TOKENRY_METRICS_LISTEN_ADDRESS: several processes need as many TCP ports from there on")
        elif first.port <= address.port < first.port + count:
            faults.append("TOKENRY_METRICS_LISTEN_ADDRESS: one of the ports from there on is the service's own")
    if faults:
        raise ConfigurationError(faults)


def environment_of(number: int, settings: ServiceSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of child *number* (from 0)."""
    changed = {name: value for name, value in environ.items() if name not in _REPLACED}
    changed |= {
        "TOKENRY_REUSE_PORT": "true",
        PARENT_VARIABLE: str(os.getpid()),
        "TOKENRY_INSTANCE": f"{settings.instance or socket.gethostname()}-{number}",
    }
    if settings.metrics_listen_address is not None:
        first = parse_listen_address(settings.metrics_listen_address)
        changed["TOKENRY_METRICS_LISTEN_ADDRESS"] = _written(first, first.port + number)
    folder = environ.get("TOKENRY_STATE_FOLDER")
    if folder:
        changed["TOKENRY_STATE_FOLDER"] = os.path.join(folder, str(number))  # noqa: PTH118 -- text in, text out
    return changed


_REPLACED = frozenset(
    {
        "METRICS_LISTEN_ADDRESS",
        "METRICS_LISTEN_ADDRESS_FILE",
        "TOKENRY_METRICS_LISTEN_ADDRESS_FILE",
        "TOKENRY_INSTANCE_FILE",
        "TOKENRY_REUSE_PORT_FILE",
        SOCKET_VARIABLE,  # the service manager hears the parent
        WATCHDOG_VARIABLE,
    }
)


def _written(address: ListenAddress, port: int) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{port}"


@dataclass(slots=True)
class _Worker:
    """One place among the children, and who holds it now."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS


class Supervisor:
    """The parent."""

    def __init__(
        self, commands: Sequence[tuple[Sequence[str], Mapping[str, str]]], *, notifier: Notifier | None = None
    ) -> None:
        """Keep one process running for each of *commands*, a command line with its environment."""
        self._notifier = notifier or Notifier({})
        self._beat_due = 0.0
        self._commands = list(commands)
        self._workers = [_Worker(number) for number in range(len(self._commands))]
        self._stopping = False

    def run(self) -> int:
        """
        Run until a signal stops it.

        Returns:
            The exit code of the process: 0 stopped as asked; else that of a child that could not start at all.
        """
        with _signals() as signalled:
            self._start_due(time.monotonic())
            self._notifier.send("READY=1")  # its children are that one by one; each is replaced when it ends
            while any(worker.process is not None for worker in self._workers) or not self._stopping:
                for number in signalled(_TICK_SECONDS):
                    self._stop(number)
                self._beat(time.monotonic())
                code = self._look(time.monotonic())
                if code is not None:
                    self._stop(signal.SIGTERM)
                    self._wait()
                    return code
        return 0

    def _beat(self, now: float) -> None:
        """Let the service manager's watchdog know that this loop runs, where one is set."""
        if self._notifier.watchdog_seconds is not None and now >= self._beat_due:
            self._notifier.send("WATCHDOG=1")
            self._beat_due = now + self._notifier.watchdog_seconds

    def _look(self, now: float) -> int | None:
        """Take note of children that ended and start others; return an exit code to end with."""
        for worker in self._workers:
            code = None if worker.process is None else worker.process.poll()
            if code is None:
                continue
            worker.process = None
            if self._stopping:
                continue
            if code == _CONFIGURATION:  # it will never start; its faults are on standard error
                return code
            lived = now - worker.started
            worker.pause = FIRST_PAUSE_SECONDS if lived > STEADY_SECONDS else min(2 * worker.pause, MAX_PAUSE_SECONDS)
            worker.due = now + worker.pause
            _say("process ended", number=worker.number, status=code, again_in_seconds=worker.pause)
        if not self._stopping:
            self._start_due(now)
        return None

    def _start_due(self, now: float) -> None:
        for worker in self._workers:
            if worker.process is None and now >= worker.due:
                command, environ = self._commands[worker.number]
                worker.process = subprocess.Popen(command, env=dict(environ))  # noqa: S603 -- our own command line
                worker.started = now
                _say("process started", number=worker.number, child=worker.process.pid)

    def _stop(self, number: int) -> None:
        self._stopping = True
        self._notifier.send("STOPPING=1")
        for worker in self._workers:
            if worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.send_signal(number)

    def _wait(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.wait()


_CONFIGURATION = 2


def _say(event: str, **members: object) -> None:
    import json

    line = {"event": event, "level": "info", "service": "supervisor", **members}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class _signals:  # noqa: N801 -- used like a function
    """Signals that ask for a stop, as numbers that can be waited for."""

    def __enter__(self) -> Callable[[float], Iterator[int]]:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
        self._wakeup = signal.set_wakeup_fd(self._write)
        return self._waited

    def _waited(self, seconds: float) -> Iterator[int]:
        if select.select([self._read], [], [], seconds)[0]:
            yield from os.read(self._read, 16)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)


def _ignore(*_: object) -> None:
    """Let the wake-up descriptor tell."""


def parent_of(environ: Mapping[str, str]) -> int | None:
    """Return the process id of the supervisor, for a process that has one."""
    text = environ.get(PARENT_VARIABLE, "")
    return int(text) if text.isdecimal() else None


def supervise(module: str, settings: ServiceSettings, count: int, environ: Mapping[str, str]) -> int:
    """
    Run *count* processes of *module* until a signal stops them.

    Returns:
        The exit code of the process.
    """
    command = [sys.executable, "-m", module]
    children = [(command, environment_of(number, settings, environ)) for number in range(count)]
    return Supervisor(children, notifier=Notifier(environ)).run()
