"""What the histories on real parts are made with: the balancer that spoils lists, the turned clock, the table."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.proof.history import Fault, Outcome, Result, Revoke, Validate
from tests.support.history_lists import ListProxy, Spoiling
from tests.support.history_process import SteppedClock, write_offset
from tests.support.history_report import _Calm, _During, _row, _Until
from tests.support.processes import free_port


class Upstream:
    """A service whose answers are numbered."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.paths: list[str] = []
        self.status = 200
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, port = self.url.removeprefix("http://").split(":")
        await web.TCPSite(self._runner, host, int(port)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def answer(self, request: web.Request) -> web.Response:
        self.paths.append(request.raw_path)
        entries = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
        body = {"epoch": 7, "number": len(self.paths), "by": self.url, "entries": entries}
        headers = {"Tokenry-List": f"epoch=7, as_of={len(self.paths)}.000, age=0.100"}
        return web.json_response(body, status=self.status, headers=headers)


class Balanced:
    """Two services behind one balancer."""

    def __init__(self, proxy: ListProxy, services: list[Upstream], session: aiohttp.ClientSession) -> None:
        self.proxy, self.services, self.session = proxy, services, session

    async def get(self, path: str = "/revocations/changes?after=x&wait=25") -> tuple[bytes, Any]:
        url = f"http://{self.proxy.address[0]}:{self.proxy.address[1]}{path}"
        async with self.session.get(url) as answer:
            return await answer.read(), answer.headers

    async def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.get())[0])
        return found


@pytest.fixture
async def balanced() -> AsyncIterator[Balanced]:
    services = [Upstream(), Upstream()]
    for service in services:
        await service.start()
    proxy = ListProxy([service.url for service in services], random.Random(1))  # noqa: S311
    await proxy.start()
    async with aiohttp.ClientSession() as session:
        yield Balanced(proxy, services, session)
    await proxy.stop()
    for service in services:
        await service.stop()
    await asyncio.sleep(0)


async def test_the_first_service_is_asked_while_it_answers_and_then_the_second(balanced: Balanced) -> None:
    first, second = balanced.services
    assert [(await balanced.document())["by"] for _ in range(3)] == [first.url] * 3
    first.status = 503
    assert (await balanced.document())["by"] == second.url
    await first.stop()
    assert (await balanced.document())["by"] == second.url
    await second.stop()
    with pytest.raises(aiohttp.ClientError):
        await balanced.get()


async def test_it_alternates_or_is_pinned_or_forbids_to_hold_when_told(balanced: Balanced) -> None:
    balanced.proxy.alternates = True
    assert len({(await balanced.document())["by"] for _ in range(2)}) == 2
    balanced.proxy.pinned = 1
    assert {(await balanced.document())["by"] for _ in range(2)} == {balanced.services[1].url}
    balanced.proxy.polls = True
    await balanced.get()
    assert balanced.services[1].paths[-1].endswith("after=x&wait=0")


async def test_answers_are_spoiled_as_told_and_otherwise_left_alone(balanced: Balanced) -> None:
    clean, headers = await balanced.get()
    assert headers["Tokenry-List"].startswith("epoch=7, as_of=1.000")
    balanced.proxy.spoiling = Spoiling(truncates=1.0)
    part, _ = await balanced.get()
    assert len(part) < len(clean)
    balanced.proxy.spoiling = Spoiling(duplicates=1.0)
    assert [each["id"] for each in (await balanced.document())["entries"]] == ["a", "b", "c", "a", "b", "c"]
    balanced.proxy.spoiling = Spoiling(reorders=1.0)
    orders = {tuple(each["id"] for each in (await balanced.document())["entries"]) for _ in range(20)}
    assert len(orders) > 1
    balanced.proxy.spoiling = Spoiling(earlier_store=1.0)
    body, headers = await balanced.get()
    assert (json.loads(body)["epoch"], json.loads(body)["entries"]) == (6, [])
    assert headers["Tokenry-List"].startswith("epoch=6, ")
    balanced.proxy.spoiling = Spoiling(replays=1.0)
    asked = len(balanced.services[0].paths)
    assert {(await balanced.document())["number"] for _ in range(20)} & set(range(1, asked + 1))


def test_a_clock_is_turned_from_outside_and_only_its_wall_time(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    write_offset(path, -90.0)
    clock = SteppedClock(path)
    assert clock.now() == pytest.approx(time.time() - 90, abs=5)
    before = clock.monotonic()
    write_offset(path, 3600.0)
    assert clock.now() == pytest.approx(time.time() + 3600, abs=5)
    assert 0 <= clock.monotonic() - before < 60


def test_the_table_counts_what_happened_while_a_fault_lasted() -> None:
    from collections import Counter

    from tests.proof.history import History
    from tests.support.history_driver import Spread

    fault = Fault(name="node killed: 127.0.0.1", start=100.0, end=120.0)

    def post(at: float, outcome: Outcome) -> Revoke:
        return Revoke(number=1, target=("all",), invoked=at, returned=at + 1, outcome=outcome)

    def ask(at: float, result: Result) -> Validate:
        return Validate(process="info-1", memory="m", run=1, token="t", invoked=at, returned=at, result=result)

    events = [post(50, Outcome.OK), post(99.5, Outcome.UNKNOWN), post(110, Outcome.FAIL), post(190, Outcome.OK)]
    judged = [ask(60, Result.ACCEPT), ask(110, Result.UNAVAILABLE), ask(170, Result.ERROR)]
    history = History(events=[*events, *judged, fault])
    spread = [Spread("info-1", 50.0, 0.25), Spread("info-2", 110.0, 20.0), Spread("info-1", 115.0, None)]
    broken = Counter({id(judged[1]): 1})

    during = _row("node killed", history, spread, broken, _During([fault]))
    assert (during.times, during.seconds, during.operations) == (1, 20.0, 3)
    assert (during.acknowledged, during.refused, during.unavailable, during.cannot_tell) == (0, 1, 1, 1)
    assert (during.violations, during.held, during.polling, during.unseen) == (1, None, (20.0, 20.0, 20.0), 1)

    before = _row("before", history, spread, broken, _Until(100.0))
    assert (before.operations, before.acknowledged, before.held) == (2, 1, (0.25, 0.25, 0.25))
    later = _row("later", history, spread, broken, _Calm([fault], 100.0))
    assert (later.operations, later.acknowledged) == (1, 1)  # the other one was within the minute after the fault
