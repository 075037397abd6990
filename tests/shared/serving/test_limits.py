"""What one caller, and all of them together, may take of a server: each limit is crossed here."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tokenry.serving.application import create_base_app, deadline, read_body
from tokenry.serving.health import Health
from tokenry.serving.metrics import Metrics
from tokenry.serving.server import serve
from tokenry.serving.settings import ServiceSettings
from tokenry.testing.clock import FakeClock

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 8 << 20  # more than the buffers of two sockets on loopback take


@asynccontextmanager
async def served(**settings):
    """Yield a function that connects to a service with *settings*, and the service's metrics."""
    metrics = Metrics(service="example")
    app = create_base_app(
        service="example",
        clock=FakeClock(),
        health=Health(),
        metrics=metrics,
        settings=ServiceSettings(**settings),
        openapi={},
    )

    async def large(_request):
        return web.Response(body=bytes(LARGE))

    async def echo(request):
        return web.Response(body=await read_body(request))

    @deadline(None)
    async def forever(_request):
        await asyncio.sleep(60)

    app.router.add_get("/forever", forever)
    app.router.add_get("/large", large)
    app.router.add_post("/echo", echo)
    writers = []
    async with serve(app, ["127.0.0.1:0"], finish_seconds=0.5) as server:
        host, _, port = server.addresses[0].rpartition(":")

        async def connect():
            reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
            writers.append(writer)
            return reader, writer

        yield connect, metrics
        for writer in writers:
            writer.close()


async def asked(reader, writer, text=HEALTHZ):
    writer.write(text)
    async with asyncio.timeout(5):
        return await reader.read(1000)


async def closed(reader, *, seconds=5.0):
    """Return what still came before the other side closed, which it must within *seconds*."""
    async with asyncio.timeout(seconds):
        try:
            return await reader.read(-1)
        except ConnectionError:
            return b""


async def test_connections_beyond_the_limit_are_closed_and_those_that_are_there_are_served():
    async with served(max_connections=3) as (connect, metrics):
        present = [await connect() for _ in range(3)]
        for pair in present:
            assert (await asked(*pair)).startswith(b"HTTP/1.1 200")
        for _ in range(5):
            assert await closed((await connect())[0]) == b""
        assert b"tokenry_http_connections_refused_total 5.0" in metrics.render()
        for pair in present:
            assert (await asked(*pair)).startswith(b"HTTP/1.1 200")


async def test_a_connection_that_is_closed_makes_room():
    async with served(max_connections=1) as (connect, _):
        for _ in range(20):
            reader, writer = await connect()
            assert (await asked(reader, writer)).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.02)


async def test_a_caller_that_does_not_read_its_answer_is_cut_off():
    async with served(send_deadline=0.3) as (connect, metrics):
        reader, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1.0)
        assert len(await closed(reader)) < LARGE
        assert b"tokenry_http_malformed_requests_total 1.0" in metrics.render()


async def test_a_caller_that_reads_gets_a_large_answer_whole():
    async with served(send_deadline=5) as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(await closed(reader)) > LARGE


async def test_an_idle_connection_is_closed():
    async with served(idle_timeout=0.2) as (connect, _):
        reader, writer = await connect()
        assert (await asked(reader, writer)).startswith(b"HTTP/1.1 200")
        assert await closed(reader) == b""


async def test_a_body_that_does_not_come_is_answered_408_and_the_connection_closed():
    async with served(body_deadline=0.2) as (connect, _):
        reader, writer = await connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert (await closed(reader)).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + HEALTHZ,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\nabc",
    ],
    ids=["a malformed body", "another protocol", "a coding"],
)
async def test_a_connection_is_closed_where_nobody_knows_where_the_next_request_begins(head):
    async with served() as (connect, _):
        reader, writer = await connect()
        writer.write(head)
        assert (await closed(reader)).count(b"HTTP/1.") == 1


async def test_a_request_without_a_version_is_refused():
    async with served() as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET /healthz\r\n\r\n")
        assert b" 400 " in await closed(reader)


async def test_a_stop_cuts_what_does_not_finish_in_time():
    async with served() as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
    assert 0.4 < asyncio.get_running_loop().time() - began < 10
    assert await closed(reader) == b""
