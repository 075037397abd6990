"""
Processes that tests start: with an environment of their own, an output file, and no way to be left behind.

Each process leads its own session (a Ctrl-C in the terminal does not reach it; its group can be signalled as
a whole) and is bound to this process by `deathsig`, so that it ends even when pytest is killed.
"""

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO
from urllib.parse import urlsplit

_DEATHSIG = Path(__file__).with_name("deathsig.py")

# All that a child sees of our environment. Settings, credentials and proxies from outside must not decide a
# test.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")


class ProcessFailed(Exception):
    """A process ended, or did not become ready in time; the text has the end of its output."""


def free_port(address: str = "127.0.0.1") -> int:
    """
    Return a TCP port of *address* that nobody listens on now and that was not given out by this process
    before.

    It lies below the range that the kernel takes the ports of outgoing connections from, so that none of those
    gets in between.
    """
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            port = random.randrange(_FIRST_PORT, _EPHEMERAL_PORT)  # noqa: S311 - not a secret
            try:
                probe.bind((address, port))
            except OSError:
                continue
        if port not in _given_ports:
            _given_ports.add(port)
            return port


_given_ports: set[int] = set()
_FIRST_PORT, _EPHEMERAL_PORT = 10_000, 32_000


def base_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the small environment that every child gets, with *extra* on top."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"} | dict(extra or {})


class _Spawner:
    """
    One thread that starts all processes.

    The kernel takes the end of the *thread* that forked for the end of the parent. A test may start a process
    from a worker thread that soon ends; this one lives as long as the interpreter.
    """

    def __init__(self) -> None:
        self._requests: SimpleQueue[tuple[Future[subprocess.Popen[bytes]], Callable[[], subprocess.Popen[bytes]]]]
        self._requests = SimpleQueue()
        self._lock = threading.Lock()
        self._started = False

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if not self._started:
                threading.Thread(target=self._run, name="test-process-spawner", daemon=True).start()
                self._started = True
        future: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((future, start))
        return future.result()

    def _run(self) -> None:
        while True:
            future, start = self._requests.get()
            try:
                future.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                future.set_exception(error)


_spawner = _Spawner()


class Process:
    """
    A program started by a test.

    Args:
        name: For messages.
        command: Program and arguments.
        output: File that receives standard output and error; appended to.
        env: Added to `base_environment`.
        cwd: Working directory; default is the current one.
        on_orphan: Signal that the process gets if this one dies.
            SIGTERM for programs with children of their own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        output: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_orphan: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.output_file = output
        self._env = base_environment(env)
        self._cwd = cwd
        self._on_orphan = on_orphan
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. May be called again after it ended."""
        if self.running:
            raise ProcessFailed(f"{self.name} runs already")
        self.output_file.parent.mkdir(parents=True, exist_ok=True)
        guarded = [
            *(sys.executable, "-I", "-S", str(_DEATHSIG), str(int(self._on_orphan)), str(os.getpid())),
            *self.command,
        ]
        with self.output_file.open("ab") as output:
            self._popen = _spawner.spawn(lambda: self._start(guarded, output))

    def _start(self, command: list[str], output: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._started.poll()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._popen

    def output(self, *, last_bytes: int | None = None) -> str:
        """Return what it has written so far, or the last *last_bytes* of it."""
        data = self.output_file.read_bytes() if self.output_file.exists() else b""
        return data[-last_bytes:].decode(errors="replace") if last_bytes else data.decode(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process itself, not its children."""
        self._started.send_signal(number)

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP): it keeps its sockets and answers nothing."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self.send_signal(signal.SIGCONT)

    def wait(self, *, seconds: float) -> int:
        """
        Return its exit status.

        Raises:
            ProcessFailed: It still runs after *seconds*.
        """
        try:
            return self._started.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} still runs after {seconds} s\n{self.output(last_bytes=4000)}") from None

    def terminate(self, *, seconds: float = 15.0) -> int:
        """
        Ask it to end (SIGTERM) and return its exit status; raises `ProcessFailed` if it has not within
        *seconds*.
        """
        if self.running:
            self.send_signal(signal.SIGTERM)
        return self.wait(seconds=seconds)

    def kill(self) -> int:
        """End it and everything in its session at once (SIGKILL)."""
        # The group may hold children although its leader has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait(seconds=10)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float, every: float = 0.05) -> float:
        """
        Wait until *ready* returns true, and return the seconds that took.

        Raises:
            ProcessFailed: The process ended first, or *seconds* passed. Has the end of its output.
        """
        started = time.monotonic()
        while True:
            if not self.running:
                reason = f"ended with status {self.returncode} before it was ready"
                raise ProcessFailed(f"{self.name} {reason}\n{self.output(last_bytes=4000)}")
            if ready():
                return time.monotonic() - started
            if time.monotonic() - started > seconds:
                raise ProcessFailed(f"{self.name} was not ready within {seconds} s\n{self.output(last_bytes=4000)}")
            time.sleep(every)

    def wait_until_http(self, url: str, *, status: int = 200, seconds: float = 20.0) -> float:
        """Wait until a GET of *url* is answered with *status*; see `wait_until`."""
        return self.wait_until(lambda: http_status(url) == status, seconds=seconds)


def http_status(url: str, *, seconds: float = 2.0) -> int | None:
    """Return the status of a GET of the plain-HTTP *url*, or None if nobody answers within *seconds*."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Processes:
    """The processes of one test; all are ended with it, in reverse order."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Process] = []

    def __iter__(self) -> Iterator[Process]:
        return iter(self._all)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready_url: str | None = None,
        seconds: float = 20.0,
    ) -> Process:
        """
        Start *command*; with *ready_url*, return only once a GET of it is answered with 200 (within
        *seconds*).
        """
        process = self.make(name, command, env=env, cwd=cwd)
        process.start()
        if ready_url is not None:
            process.wait_until_http(ready_url, seconds=seconds)
        return process

    def make(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Return a process that the test starts by itself, as often as it likes; it is ended like the others."""
        output = self._directory / f"{name}-{len(self._all)}.log"
        process = Process(name, command, output=output, env=env, cwd=cwd)
        self._all.append(process)
        return process

    def start_module(self, module: str, *arguments: str, **options: object) -> Process:
        """
        Start `python -m module arguments…`, as in `start_module("tokenry_issuer", env={…}, ready_url=…)`.
        """
        return self.start(module, [sys.executable, "-m", module, *arguments], **options)  # type: ignore[arg-type]

    def end(self) -> None:
        """Kill whatever of them, or of their children, still runs."""
        for process in reversed(self._all):
            if process._popen is not None:
                process.kill()
