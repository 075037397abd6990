"""
An HTTP proxy between a validator and the revocation services: a balancer, and whoever spoils lists on their way.

It knows what it carries: it can give an old answer in place of the new one, a part of one, one whose entries stand
there twice or in another order. Everything that it gives was once said by a service, but for `earlier_store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.processes import free_port

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

SPOILS: Final = ("replays", "truncates", "duplicates", "reorders", "earlier_store")

_KEPT_ANSWERS: Final = 40
_DOWN_SECONDS: Final = 10.0  # for which a service that did not answer is asked last
_HOP: Final = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "content-encoding"}
_SECONDS: Final = aiohttp.ClientTimeout(total=60, connect=2)


@dataclass(slots=True)
class Spoiling:
    """With which probability each answer is spoiled, and how."""

    replays: float = 0.0
    truncates: float = 0.0
    duplicates: float = 0.0
    reorders: float = 0.0
    earlier_store: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def with_body(self, body: bytes) -> _Answer:
        return _Answer(self.status, self.headers, body)


@dataclass(slots=True)
class ListProxy:
    """
    One validator's way to the services; belongs to one event loop.

    Attributes:
        upstreams: Base URLs of the services; the first one is asked first.
        chance: Of what is spoiled.
        polls: Whether requests are never held, as if a proxy on the way forbade it.
        alternates: Whether each request goes to another service than the one before, as many balancers do it.
        pinned: Number of the only service that can be reached; None: whichever answers.
        spoiling: What is done to answers.
        address: Where it listens.
    """

    upstreams: Sequence[str]
    chance: random.Random
    polls: bool = False
    alternates: bool = False
    pinned: int | None = None
    spoiling: Spoiling = field(default_factory=Spoiling)
    address: tuple[str, int] = field(default_factory=lambda: ("127.0.0.1", free_port()))
    _past: dict[bool, deque[_Answer]] = field(
        default_factory=lambda: {True: deque(maxlen=_KEPT_ANSWERS), False: deque(maxlen=_KEPT_ANSWERS)}
    )
    _asked: int = 0
    _down: dict[str, float] = field(default_factory=dict)
    _runner: web.AppRunner | None = None
    _session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._session = aiohttp.ClientSession(timeout=_SECONDS)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.address).start()

    async def stop(self) -> None:
        """End it."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        path = request.raw_path
        if self.polls:
            path = re.sub(r"wait=\d+", "wait=0", path)
        order = self._order()
        for upstream in order:
            try:
                answer = await self._ask(upstream, request, path, body)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._leave(upstream)
                continue
            except asyncio.CancelledError:
                self._leave(upstream)  # the reader's patience has ended
                raise
            if answer.status == 503 and self.pinned is None and upstream != order[-1]:
                continue  # a balancer looks at readiness, and asks the next one
            if request.method == "GET":
                answer = self._spoiled(answer, is_changes="/changes" in path)
            return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    def _leave(self, upstream: str) -> None:
        self._down[upstream] = time.monotonic() + _DOWN_SECONDS

    def _order(self) -> Sequence[str]:
        if self.pinned is not None:
            return [self.upstreams[self.pinned]]
        now = time.monotonic()
        self._asked += self.alternates
        turn = self._asked % len(self.upstreams)
        return sorted(
            [*self.upstreams[turn:], *self.upstreams[:turn]], key=lambda each: self._down.get(each, 0.0) > now
        )

    async def _ask(self, upstream: str, request: web.Request, path: str, body: bytes) -> _Answer:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = f"{upstream}{path}"
        async with self._session.request(
            request.method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
        ) as got:
            kept = tuple((name, value) for name, value in got.headers.items() if name.lower() not in _HOP)
            return _Answer(got.status, kept, await got.read())

    # --- spoiling -----------------------------------------------------------------------------------------------

    def _spoiled(self, answer: _Answer, *, is_changes: bool) -> _Answer:
        past = self._past[is_changes]
        if answer.status == 200:
            past.append(answer)
        for name in SPOILS:
            rate = getattr(self.spoiling, name)
            if rate and self.chance.random() < rate:
                return self._spoil(name, answer, past)
        return answer

    def _spoil(self, name: str, answer: _Answer, past: Sequence[_Answer]) -> _Answer:
        match name:
            case "replays" if past:
                return self.chance.choice(past)
            case "truncates" if answer.body:
                return answer.with_body(answer.body[: self.chance.randrange(len(answer.body))])
            case "duplicates":
                return _with_entries(answer, lambda entries: [*entries, *entries])
            case "reorders":
                return _with_entries(answer, lambda entries: self.chance.sample(entries, len(entries)))
            case "earlier_store":
                return _of_an_earlier_store(answer)
        return answer


def _with_entries(answer: _Answer, change: Any) -> _Answer:
    with contextlib.suppress(ValueError):
        document = json.loads(answer.body)
        if isinstance(document, dict) and isinstance(document.get("entries"), list):
            document["entries"] = change(document["entries"])
            return answer.with_body(json.dumps(document).encode())
    return answer


def _of_an_earlier_store(answer: _Answer) -> _Answer:
    """Return what a store that was made a second earlier would have said: a backup that nobody announced."""
    headers = tuple(
        (name, _one_less(value) if name.lower() == "tokenry-list" else value) for name, value in answer.headers
    )
    body = answer.body
    with contextlib.suppress(ValueError):
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("epoch"), int):
            body = json.dumps(document | {"epoch": document["epoch"] - 1, "entries": []}).encode()
    return _Answer(answer.status, headers, body)


def _one_less(stamp: str) -> str:
    return re.sub(r"epoch=(\d+)", lambda match: f"epoch={int(match[1]) - 1}", stamp)
