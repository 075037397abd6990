"""
What the services are compared to, each a process of its own: `python -m tests.bench.references NAME PORT BYTES`.

* `aiohttp`: a handler on uvloop that answers a finished body of so many bytes, and does nothing else.
* `protocol`: an `asyncio.Protocol` on uvloop that parses with httptools and writes a finished answer: the bottom.
* `verifying`: the first, with one bare verification by the cryptography in the handler.
* `service`, `passed` and `protected`: an aiohttp service without middleware, with one that does nothing, and with
  `auth_middleware` (BYTES is then the platform's URL).
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import httptools
import uvloop
from aiohttp import web

from tests.bench.in_process import bare_sign, bare_verify
from tests.support.access_tokens import token
from tokenry.aiohttp import TOKEN, auth_middleware
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def bare(size: int, *, work: Callable[[], object] = lambda: None) -> web.Application:
    body = b"x" * size

    async def handler(request: web.Request) -> web.Response:
        work()
        if request.method == "POST":
            await request.read()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/oauth2/tokeninfo", handler)
    for path in ("/oauth2/introspect", "/oauth2/token", "/auth"):
        app.router.add_route("*", path, handler)
    return app


def service(issuer: str | None) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        if issuer is not None:
            assert request[TOKEN].sub
        return web.Response(body=b"x" * 100, content_type="application/json")

    app = web.Application()
    if issuer is not None:
        validator = TokenValidator(issuer, audience=ANY_AUDIENCE)
        app.middlewares.append(auth_middleware(validator))
        app.cleanup_ctx.append(validator.aiohttp_ctx)
    app.router.add_get("/orders", handler)
    return app


@web.middleware
async def pass_on(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    return await handler(request)


async def serve(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


class Fixed(asyncio.Protocol):
    """Answers each request, as soon as httptools has its end."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(self.answer)  # type: ignore[attr-defined]  # a transport that writes


async def serve_protocol(size: int, port: int) -> None:
    Fixed.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    )
    server = await asyncio.get_running_loop().create_server(Fixed, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    name, port, last = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    match name:
        case "aiohttp":
            running = serve(bare(int(last)), port)
        case "verifying":
            running = serve(bare(int(last), work=bare_verify(token())), port)
        case "signing":
            sign = bare_sign(token())
            running = serve(bare(int(last), work=lambda: (sign(), sign())), port)
        case "protocol":
            running = serve_protocol(int(last), port)
        case "service":
            running = serve(service(None), port)
        case "passed":
            app = service(None)
            app.middlewares.append(pass_on)
            running = serve(app, port)
        case _:
            running = serve(service(last), port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(running)


if __name__ == "__main__":
    main()
