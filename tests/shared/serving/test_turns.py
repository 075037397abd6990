"""What takes long is begun a few at a time; what is quick goes first, and each connection keeps its order."""

import asyncio
import gc
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from aiohttp import web

from tokenry.clock import SystemClock
from tokenry.serving.application import create_base_app
from tokenry.serving.health import Health
from tokenry.serving.metrics import Metrics
from tokenry.serving.protocol import _KEPT_BYTES, Connection
from tokenry.serving.quick import QUICK
from tokenry.serving.server import serve
from tokenry.serving.settings import ServiceSettings
from tokenry.serving.turns import Turns


async def turn_over():
    await asyncio.sleep(0)


# --- turns ---


async def test_a_few_begin_in_a_turn_and_as_many_in_the_next():
    turns = Turns(per_turn=2)
    assert [turns.take() for _ in range(4)] == [True, True, False, False]
    await turn_over()
    assert [turns.take() for _ in range(3)] == [True, True, False]


async def test_they_are_counted_over_several_turns_and_never_more_begin_in_one():
    turns, waited = Turns(per_turn=3), []
    for number in range(12):  # one a turn: nobody but the loop is asked for anything before the third
        if not turns.take():
            turns.wait(lambda number=number: waited.append(number))
        await turn_over()
    for _ in range(3):
        await turn_over()
    assert waited == []
    assert turns.take()
    await turn_over()
    assert [turns.take() for _ in range(4)] == [True, True, False, False], "one of them began in the turn before"
    await turn_over()
    assert [turns.take() for _ in range(4)] == [True, True, True, False]


async def test_those_who_wait_begin_in_their_order_and_before_those_who_come_later():
    turns, begun = Turns(per_turn=2), []
    assert turns.take()
    assert turns.take()
    for number in range(5):
        assert not turns.take()
        turns.wait(lambda number=number: begun.append(number))
    steps = []
    while len(begun) < 5:
        assert not len(turns) or not turns.take(), "whoever comes later waits, too"
        await turn_over()
        steps.append(len(begun))
    assert begun == [0, 1, 2, 3, 4]
    assert all(later - earlier <= 2 for earlier, later in pairwise(steps))
    for _ in range(3):
        await turn_over()
    assert turns.take()


async def test_one_that_fails_stops_no_other():
    turns, begun, reported = Turns(per_turn=1), [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    assert turns.take()
    turns.wait(lambda: 1 / 0)
    turns.wait(lambda: begun.append(1))
    for _ in range(6):
        await turn_over()
    assert begun == [1]
    assert [type(each) for each in reported] == [ZeroDivisionError]
    assert turns.take()


async def test_tasks_come_in_their_order_and_one_that_is_cancelled_holds_nobody_up():
    turns, came = Turns(per_turn=1), []

    async def comes(name):
        await turns.come()
        came.append(name)

    tasks = [asyncio.ensure_future(comes(name)) for name in "abcd"]
    await turn_over()
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert came == ["a", "b", "d"]


# --- connections ---


class ByHand(Turns):
    """Turns that a test gives."""

    def take(self):
        return False

    def next(self):
        self._waiting.popleft()()


class Answers:
    """Answers `/known` at once and `/new…` in its turn; `/ordinary` it leaves to the application."""

    def __init__(self):
        self.turns = ByHand()

    def __call__(self, _method, path, _headers, _transport, *, waited=False):
        if path.startswith("/ordinary"):
            return None
        if path.startswith("/new") and not waited and not self.turns.take():
            return self.turns
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path.encode())


@asynccontextmanager
async def served(answers, **limits):
    app = create_base_app(
        service="example",
        clock=SystemClock(),
        health=Health(),
        metrics=Metrics(service="example"),
        settings=ServiceSettings(environment="test", **limits),
        openapi={},
    )
    app[QUICK] = answers

    async def ordinary(request):
        return web.Response(text=request.path)

    for path in ("/ordinary", "/new/{number}", "/known/{number}"):
        app.router.add_get(path, ordinary)
    async with serve(app, ["127.0.0.1:0"], finish_seconds=2) as server:
        host, port = server.addresses[0].rsplit(":", 1)
        writers = []

        async def connect():
            reader, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
            return reader, writer

        yield connect
    for writer in writers:
        writer.close()


def request(path):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def answer(reader):
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return (await reader.readexactly(length)).decode()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- what comes over a socket sets no event of ours
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_what_stands_behind_one_that_waits_is_answered_behind_it(pieces):
    paths = ["/new/1", "/known/1", "/new/2", "/ordinary", "/known/2", "/new/3", "/known/3"]
    answers = Answers()
    async with served(answers) as connect:
        reader, writer = await connect()
        whole = b"".join(map(request, paths))
        step = -(-len(whole) // pieces)
        for start in range(0, len(whole), step):
            writer.write(whole[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.005)  # pieces arrive one by one
        found = []
        for path in paths:
            if path.startswith("/new") and path != "/new/3":
                await until(lambda: len(answers.turns) == 1)
                assert not reader._buffer, "nothing overtakes it"
                answers.turns.next()
            if path == "/new/3":  # behind an ordinary answer it may wait, or go the ordinary way
                await until(lambda: len(answers.turns) == 1 or reader._buffer)
                if len(answers.turns):
                    answers.turns.next()
            found.append(await answer(reader))
        assert found == paths
        writer.close()


async def test_others_are_answered_meanwhile():
    answers = Answers()
    async with served(answers) as connect:
        (slow, slow_writer), (reader, writer) = await connect(), await connect()
        slow_writer.write(request("/new"))
        await until(lambda: len(answers.turns) == 1)
        for _ in range(3):
            writer.write(request("/known"))
            assert await answer(reader) == "/known"
        answers.turns.next()
        assert await answer(slow) == "/new"
        slow_writer.close()
        writer.close()


async def test_a_connection_that_is_lost_while_it_waits_harms_nobody():
    answers = Answers()
    async with served(answers) as connect:
        (_, gone), (reader, writer) = await connect(), await connect()
        gone.write(request("/new"))
        await until(lambda: len(answers.turns) == 1)
        gone.transport.abort()
        await until(lambda: not waiting())
        answers.turns.next()
        writer.write(request("/known"))
        assert await answer(reader) == "/known"
        writer.close()


async def test_what_waits_is_answered_before_the_service_ends():
    answers = Answers()
    async with served(answers) as connect:
        reader, writer = await connect()
        writer.write(request("/new/1") + request("/new/2"))
        await until(lambda: len(answers.turns) == 1)
    assert await answer(reader) == "/new/1"
    assert await answer(reader) == "/new/2"
    writer.close()


async def test_a_caller_that_sends_on_while_it_waits_is_not_read_without_end():
    answers = Answers()
    async with served(answers) as connect:
        reader, writer = await connect()
        many = 100_000
        writer.write(request("/new") + many * request("/known"))
        await until(lambda: len(answers.turns) == 1)
        (connection,) = waiting()
        await until(lambda: connection._buffer_paused)
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert len(connection._parser.kept) <= _KEPT_BYTES + 512 * 1024  # and what one read takes
        answers.turns.next()
        assert await answer(reader) == "/new"
        for _ in range(many):
            assert await answer(reader) == "/known"
        writer.close()


def waiting():
    return [each for each in gc.get_objects() if type(each) is Connection and each._is_waiting()]


async def test_a_head_that_has_come_is_not_waited_for_any_more():
    answers = Answers()
    async with served(answers, head_deadline=2) as connect:
        reader, writer = await connect()
        writer.write(request("/new"))
        await until(lambda: len(answers.turns) == 1)
        await asyncio.sleep(2.3)  # beyond the deadline of a head
        answers.turns.next()
        assert await answer(reader) == "/new"
        writer.close()
