"""The calls that the console makes, over real sockets."""

import asyncio

import pytest
from aiohttp import web

from tests.support.processes import free_port
from tokenry.serving.outgoing import HttpCalls, TimedOut, TooLarge, Unreachable


@pytest.fixture
async def server():
    app, seen = web.Application(), []

    async def answer(request):
        seen.append((request.method, request.path, dict(request.headers)))
        if request.path == "/redirect":
            return web.Response(status=302, headers={"Location": "/elsewhere", "Set-Cookie": "a=b"})
        return web.Response(body=b"x" * int(request.query.get("bytes", "3")))

    async def silent(request):
        seen.append((request.method, request.path, dict(request.headers)))
        await request.read()
        await release.wait()
        return web.Response()

    release = asyncio.Event()
    app.router.add_route("*", "/silent", silent)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}", seen
    release.set()
    await runner.cleanup()


async def call(url, *, seconds=5.0, most=1000):
    async with HttpCalls() as calls:
        return await calls.call(
            "GET", url, headers={"Authorization": "Bearer t"}, deadline_seconds=seconds, max_bytes=most
        )


async def test_a_redirect_is_an_answer_and_the_token_goes_nowhere_else(server):
    url, seen = server
    assert (await call(f"{url}/redirect")).status == 302
    assert [path for _, path, _ in seen] == ["/redirect"]


async def test_an_answer_that_is_too_long_is_cut_off(server):
    url, _ = server
    assert len((await call(f"{url}/a?bytes=1000")).body) == 1000
    with pytest.raises(TooLarge, match="larger than 1000 bytes"):
        await call(f"{url}/a?bytes=1001")


async def test_a_service_that_says_nothing_is_given_up(server):
    url, _ = server
    with pytest.raises(TimedOut, match=r"no answer within 0\.2 s"):
        await call(f"{url}/silent", seconds=0.2)


async def test_nobody_there_is_said_without_repeating_what_was_sent():
    with pytest.raises(Unreachable) as raised:
        await call(f"http://127.0.0.1:{free_port()}/secret-path")
    assert str(raised.value) == "nothing accepts connections there"


async def test_no_cookie_of_one_call_comes_with_the_next(server):
    url, seen = server
    async with HttpCalls() as calls:
        for _ in range(2):
            await calls.call("GET", f"{url}/redirect", headers={}, deadline_seconds=5, max_bytes=100)
    assert not any("Cookie" in headers for _, _, headers in seen)


async def test_the_pool_is_opened_first():
    with pytest.raises(RuntimeError):
        await HttpCalls().call("GET", "http://127.0.0.1:1", headers={}, deadline_seconds=1, max_bytes=1)
