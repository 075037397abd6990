"""
The load generator, a process of its own: reads orders from standard input, writes what it measured.

Each line in is a JSON object (`address`, `requests`: a file with a JSON array of whole HTTP requests, `first`, `count`,
`connections`), each line out another one. Every connection sends its next request when it has the whole answer to the
last one: no think time, no pipelining.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections import Counter
from pathlib import Path

import uvloop

_HEAD_END = b"\r\n\r\n"


class Run:
    """One order: which requests are left, and what came back."""

    def __init__(self, requests: list[bytes], *, first: int, count: int) -> None:
        self.requests = requests
        self.next = first
        self.end = first + count
        self.latencies = array("d")
        self.statuses: Counter[str] = Counter()
        self.answer_bytes = 0
        self.connections = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self) -> bytes | None:
        number = self.next
        if number >= self.end:
            return None
        self.next = number + 1
        return self.requests[number % len(self.requests)]

    def lost(self) -> None:
        self.connections -= 1
        if not self.connections and not self.done.done():
            self.done.set_result(None)


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.buffer = b""
        self.needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.run.connections += 1
        self.send()

    def send(self) -> None:
        request = self.run.take()
        if request is None:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

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


async def perform(order: dict[str, object], requests: list[bytes]) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    run = Run(requests, first=int(str(order["first"])), count=int(str(order["count"])))
    host, _, port = str(order["address"]).rpartition(":")
    began = time.perf_counter()
    for _ in range(int(str(order["connections"]))):
        await loop.create_connection(lambda: Caller(run), host, int(port))
    await run.done
    seconds = time.perf_counter() - began
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
    }


def main() -> None:
    files: dict[str, list[bytes]] = {}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            order = json.loads(line)
            path = order["requests"]
            if path not in files:
                files[path] = [text.encode("latin-1") for text in json.loads(Path(path).read_text())]
            print(json.dumps(runner.run(perform(order, files[path]))), flush=True)  # noqa: T201 -- the answer


if __name__ == "__main__":
    main()
