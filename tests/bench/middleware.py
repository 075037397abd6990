"""
What the middleware adds to a request of aiohttp's, without sockets: CPU microseconds a request.

`python -m tests.bench.middleware` prints JSON. Three applications take turns in one process: one without a middleware,
one whose middleware does nothing, one with ours. Each gets the same requests, with 1,000 tokens, as bytes from a
transport that sends nothing. Between processes what is looked for is smaller than what two runs differ by.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from typing import Any, Final, Generic, TypeVar

import uvloop
from aiohttp import web

from tests.bench.in_process import POLICY, list_of
from tests.bench.references import pass_on
from tests.bench.report import BARE, OURS
from tests.support.access_tokens import KEYS, LIFETIME, token
from tokenry.aiohttp import TOKEN, auth_middleware
from tokenry.clock import SystemClock
from tokenry.token_validator import TokenValidator
from tokenry.validation.snapshots import Snapshot

T = TypeVar("T")

NOTHING: Final = "aiohttp request with a middleware that does nothing, in process"
TOKENS, ROUNDS = 1000, 25


class Held(Generic[T]):
    """A source whose snapshot is at hand, as that of a source that runs is."""

    def __init__(self, value: T) -> None:
        now, monotonic = time.time(), time.monotonic()
        self._snapshot = Snapshot(value=value, as_of=now, age_at_request=0.0, requested_at=monotonic)

    def snapshot(self) -> Snapshot[T]:
        return self._snapshot


class Sink(asyncio.Transport):
    """A connection that counts what is written and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, data: object) -> None:
        self.written += 1

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 4711) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


def application(*middlewares: Any, guarded: bool = False) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        if guarded:
            assert request[TOKEN].sub
        return web.Response(body=b"x" * 100, content_type="application/json")

    app = web.Application(middlewares=middlewares)
    app.router.add_get("/orders", handler)
    return app


async def measured(validator: TokenValidator, requests: list[bytes]) -> dict[str, list[float]]:
    """Return the CPU microseconds of one request in each round, by case."""
    apps = {
        BARE: application(),
        NOTHING: application(pass_on),
        OURS: application(auth_middleware(validator), guarded=True),
    }
    connections = {}
    for name, app in apps.items():
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        assert runner.server is not None
        connections[name] = (runner.server(), Sink())
        connections[name][0].connection_made(connections[name][1])
    found: dict[str, list[float]] = {name: [] for name in apps}
    gc.collect()
    gc.freeze()
    for number in range(ROUNDS + 3):
        for name, (connection, sink) in connections.items():
            began = time.thread_time_ns()
            for request in requests:
                answered = sink.written
                connection.data_received(request)
                while sink.written == answered:  # noqa: ASYNC110 -- a transport sets no event
                    await asyncio.sleep(0)
                await asyncio.sleep(0)  # until it waits for the next one
            if number >= 3:  # by then every token has been seen often enough to be remembered
                found[name].append((time.thread_time_ns() - began) / len(requests) / 1000)
    return found


def main() -> None:
    """Measure, and print JSON."""
    now = int(time.time())
    tokens = [token(jti=f"{number:027}", iat=now, exp=now + LIFETIME) for number in range(TOKENS)]
    sources: dict[str, Any] = {"keys": Held(KEYS), "revocations": Held(list_of(0))}
    validator = TokenValidator.from_sources(POLICY, **sources, clock=SystemClock())
    requests = [f"GET /orders HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {each}\r\n\r\n" for each in tokens]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measured(validator, [request.encode() for request in requests]))
    print(json.dumps({name: statistics.median(values) for name, values in found.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
