"""
A TCP proxy on loopback that breaks the network when told to: delays, cuts, black holes, half-open and narrow lines.

    proxy = FaultProxy(("127.0.0.1", 9042))
    proxy.address                     give this to whoever shall be disturbed
    proxy.delay(0.5)                  every byte comes half a second later
    proxy.throttle(10_000)            bytes a second
    proxy.blackhole("down")           half open: requests arrive, answers do not
    proxy.cut()                       connections are reset, new ones refused
    proxy.pass_()                     nothing is wrong any more

All proxies of one interpreter share one thread with an event loop; the switches may be thrown from any thread, and act
on connections that are open as well. What a black hole or a delay holds back arrives when it is lifted, as it does on
a network that loses packets for a while: TCP sends them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

Direction: TypeAlias = Literal["up", "down"]
"""`up`: from the client to the target; `down`: the answers."""

_CHUNK: Final = 65_536
_HELD_BYTES: Final = 1_048_576  # of each direction of a connection; then the sender feels it, as with a full window
_CONNECT_SECONDS: Final = 5.0
_STEPS_A_SECOND: Final = 20  # of a throttled line
_SWITCH_SECONDS: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


@dataclass(frozen=True, slots=True)
class _Line:
    """What is wrong with one direction."""

    black: bool = False
    delay: float = 0.0
    rate: float | None = None


class _LoopThread:
    """One event loop for all proxies; made when the first one is, and ended with the interpreter."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="fault-proxies", daemon=True).start()

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in the loop, and return or raise when it has ended."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_SWITCH_SECONDS)


@functools.cache
def _loop_thread() -> _LoopThread:
    return _LoopThread()


class FaultProxy:
    """
    One proxy; it listens as soon as it is made, and passes everything on.

    Args:
        target: Host and port that connections are passed on to. Nobody has to listen there yet.
        host: Loopback address to listen on.
        port: Port to listen on; None: a free one.
    """

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int | None = None) -> None:
        self.target = target
        self.address = (host, free_port(host) if port is None else port)
        self._lines: dict[Direction, _Line] = {"up": _Line(), "down": _Line()}
        self._pipes: set[_Pipe] = set()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._in_loop(self._listen())

    @property
    def url(self) -> str:
        """Return the address as the beginning of an HTTP URL."""
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._links)

    # --- switches -----------------------------------------------------------------------------------------------

    def pass_(self) -> None:
        """Mend everything: what was held back is delivered at once, and connections are accepted."""
        self._in_loop(self._mend())

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._in_loop(self._cut())

    def blackhole(self, direction: Direction | None = None) -> None:
        """
        Deliver nothing any more in *direction*, or in neither for None; connections stay open, new ones seem to open.

        With one direction, connections are half open. The other direction stays as it was.
        """
        self._set(direction, black=True)

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Deliver everything *seconds* later; the line stays as wide as it was."""
        self._set(direction, delay=seconds)

    def throttle(self, bytes_per_second: float, direction: Direction | None = None) -> None:
        """Deliver at most so many bytes a second, for each connection and direction."""
        if bytes_per_second <= 0:
            raise ValueError("use blackhole() for a line that delivers nothing")
        self._set(direction, rate=bytes_per_second)

    def reset(self) -> None:
        """Reset all connections; new ones are accepted as before."""
        self._in_loop(self._reset())

    def close(self) -> None:
        """End it; a closed proxy cannot be used again."""
        self._in_loop(self._cut())

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    # --- in the loop --------------------------------------------------------------------------------------------

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        _loop_thread().call(work)

    def _set(self, direction: Direction | None, **changes: Any) -> None:
        self._in_loop(self._change(direction, **changes))

    async def _change(self, direction: Direction | None, **changes: Any) -> None:
        for each in ("up", "down") if direction is None else (direction,):
            self._lines[each] = replace(self._lines[each], **changes)
        self._tell()

    async def _mend(self) -> None:
        self._lines = {"up": _Line(), "down": _Line()}
        self._tell()
        if self._server is None:
            await self._listen()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        for pipe in tuple(self._pipes):
            pipe.abort()
        for link in tuple(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def _tell(self) -> None:
        for pipe in self._pipes:
            pipe.changed()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self.address, limit=_CHUNK, reuse_address=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            connecting = asyncio.open_connection(*self.target, limit=_CHUNK)
            back, forth = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
            there = forth
            await self._pump(_Pipe(lambda: self._lines["up"], reader, forth),
                             _Pipe(lambda: self._lines["down"], back, writer))  # fmt: skip
        except (OSError, TimeoutError):
            pass  # the other side is told below, as it would be without a proxy
        finally:
            for each in (writer, there):
                if each is not None:
                    _abort(each)

    async def _pump(self, *pipes: _Pipe) -> None:
        self._pipes.update(pipes)
        tasks = [asyncio.ensure_future(work) for pipe in pipes for work in (pipe.take(), pipe.give())]
        try:
            # When one side is reset, the other one is; when both have ended in order, everything was delivered.
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._pipes.difference_update(pipes)
            for pipe in pipes:
                with contextlib.suppress(OSError):
                    if pipe.complete:
                        await pipe.close()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, line: Callable[[], _Line], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._line = line
        self._reader = reader
        self._writer = writer
        self._held: deque[tuple[float, bytes]] = deque()  # when it arrived here; empty bytes: the end
        self._bytes = 0
        self._event = asyncio.Event()
        self.complete = False

    def changed(self) -> None:
        """Look at the switches again."""
        self._event.set()

    def abort(self) -> None:
        """Reset the connection to the receiver."""
        _abort(self._writer)

    async def close(self) -> None:
        """End the connection to the receiver in order."""
        self._writer.close()
        await self._writer.wait_closed()

    async def take(self) -> None:
        """Take what the sender sends, until it ends."""
        loop = asyncio.get_running_loop()
        while True:
            data = await self._reader.read(_CHUNK)
            self._held.append((loop.time(), data))
            self._bytes += len(data)
            self._event.set()
            if not data:
                return
            while self._bytes > _HELD_BYTES:
                await self._something()

    async def give(self) -> None:
        """Give the receiver what was taken, as the switches allow."""
        while True:
            line = self._line()
            if line.black or not self._held:
                await self._something()
                continue
            arrived, data = self._held[0]
            wait = arrived + line.delay - asyncio.get_running_loop().time()
            if wait > 0:
                await self._something(wait)
                continue
            self._held.popleft()
            if not data:
                with contextlib.suppress(OSError):
                    self._writer.write_eof()
                self.complete = True
                return
            if line.rate is not None:
                step = max(1, int(line.rate / _STEPS_A_SECOND))
                data, rest = data[:step], data[step:]
                if rest:
                    self._held.appendleft((arrived, rest))
            self._bytes -= len(data)
            self._event.set()
            self._writer.write(data)
            await self._writer.drain()
            if line.rate is not None:
                await asyncio.sleep(len(data) / line.rate)

    async def _something(self, seconds: float | None = None) -> None:
        """Return when a switch was thrown or something came or went, or after *seconds*."""
        self._event.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)


def _abort(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    if transport.is_closing():
        return
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
