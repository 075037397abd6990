"""
The load generator, a process of its own: reads orders from standard input, writes what it measured.

Each line in is a JSON object (`address`, `requests`: a file with a JSON array of whole HTTP requests, `first`, `count`,
`connections`), each line out another one. Every connection sends its next request when it has the whole answer to the
last one: no think time, no pipelining. It begins when all connections are open, and this process never sleeps while it
waits: to wake it would cost the server some 20 µs for each answer, but only a server that is slower than the generator,
and what servers cost could no longer be compared.

With `rate` (requests a second) requests are due at fixed times, whatever the answers take; a latency counts
from the moment at which its request was due (so that a stall is seen in all that it delayed). They are sent by a loop
on `select`, which waits for microseconds: others wait for whole milliseconds, and would send what is due in bunches.
Between them this process does sleep: the server then does, too, as most servers do most of the time.
With `beside` (an order of its own: `requests`, `rate`, `connections`) others ask at the same time, and are counted by
status only.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

_HEAD_END = b"\r\n\r\n"


class Run:
    """One order: which requests are left, and what came back."""

    def __init__(self, requests: list[bytes], *, first: int, count: int, rate: float = 0.0) -> None:
        self.requests = requests
        self.next = first
        self.end = first + count
        self.interval = 1 / rate if rate else 0.0
        self.due = time.perf_counter()
        self.latencies = array("d")
        self.statuses: Counter[str] = Counter()
        self.answer_bytes = 0
        self.callers: list[Caller] = []
        self.open = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self.due = time.perf_counter()
        for caller in self.callers:
            caller.send()

    def take(self) -> bytes | None:
        number = self.next
        if number >= self.end:
            return None
        self.next = number + 1
        self.due += self.interval
        return self.requests[number % len(self.requests)]

    def lost(self) -> None:
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.buffer = b""
        self.needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.run.open += 1
        self.run.callers.append(self)

    def send(self) -> None:
        request = self.run.take()
        if request is None:
            self.transport.close()
            return
        self.request = request
        self.began = time.perf_counter()
        if self.run.interval:
            wait, self.began = self.run.due - self.began, self.run.due
            if wait > 0:
                asyncio.get_running_loop().call_later(wait, self.write)
                return
        self.write()

    def write(self) -> None:
        self.transport.write(self.request)  # type: ignore[attr-defined]  # a transport that writes

    def data_received(self, data: bytes) -> None:
        self.buffer = data if not self.buffer else self.buffer + data
        if not self.needed:
            head = self.buffer.find(_HEAD_END)
            if head < 0:
                return
            self.needed = head + 4 + _content_length(self.buffer[:head])
        if len(self.buffer) < self.needed:
            return
        run = self.run
        run.latencies.append(time.perf_counter() - self.began)
        run.statuses[self.buffer[9:12].decode()] += 1
        run.answer_bytes = self.needed
        self.buffer, self.needed = b"", 0
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.lost()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = lower.find(b"\r\n", at + 2)
    return int(lower[at + 17 : end if end >= 0 else len(lower)])


async def started(order: dict[str, Any], files: Files, address: str) -> Run:
    run = Run(files.read(order["requests"]), first=order["first"], count=order["count"], rate=order.get("rate", 0.0))
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    for _ in range(order["connections"]):
        await loop.create_connection(lambda: Caller(run), host, int(port))
    return run


def stay_awake(run: Run) -> None:
    """Keep the loop turning until *run* is done."""
    if not run.done.done():
        asyncio.get_running_loop().call_soon(stay_awake, run)


async def perform(order: dict[str, Any], files: Files) -> dict[str, object]:
    beside = order.get("beside")
    other = await started(beside | {"first": 0, "count": sys.maxsize}, files, order["address"]) if beside else None
    run = await started(order, files, order["address"])
    began = time.perf_counter()
    if other is not None:
        other.begin()
    run.begin()
    if not run.interval:
        stay_awake(run)
    await run.done
    seconds = time.perf_counter() - began
    if other is not None:
        other.end = 0
        await other.done
    ordered = sorted(run.latencies)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    return {
        "seconds": seconds,
        "answers": len(ordered),
        "statuses": dict(run.statuses),
        "answer_bytes": run.answer_bytes,
        "p50": at(0.5),
        "p99": at(0.99),
        "p999": at(0.999),
        "beside": dict(other.statuses) if other is not None else {},
    }


class Files:
    """The files with requests, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, list[bytes]] = {}

    def read(self, path: str) -> list[bytes]:
        if path not in self._read:
            self._read[path] = [text.encode("latin-1") for text in json.loads(Path(path).read_text())]
        return self._read[path]


def punctual_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are exact to some microseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    files = Files()
    gc.disable()  # nothing here is a cycle, and a collection is a stall that looks like the server's
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as fast,
        asyncio.Runner(loop_factory=punctual_loop) as punctual,
    ):
        for line in sys.stdin:
            order = json.loads(line)
            runner = punctual if order.get("rate") else fast
            print(json.dumps(runner.run(perform(order, files))), flush=True)  # noqa: T201 -- the answer


if __name__ == "__main__":
    main()
