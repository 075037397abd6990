"""A service as small as can be, run as a process by test_server.py."""

import asyncio
import os
import sys
import time

from aiohttp import web

from tokenry.clock import SystemClock
from tokenry.serving.application import create_base_app
from tokenry.serving.health import Health
from tokenry.serving.metrics import Metrics
from tokenry.serving.server import command
from tokenry.serving.settings import ServiceSettings


def compose(settings):
    def make():
        app = create_base_app(
            service="example",
            clock=SystemClock(),
            health=Health(),
            metrics=Metrics(service="example"),
            settings=settings,
            openapi={},
        )

        async def slow(_request):
            await asyncio.sleep(1.0)
            return web.Response(text="finished")

        async def holds_the_loop(_request):
            time.sleep(1.5)  # noqa: ASYNC251 -- that is the fault
            return web.Response(text="held")

        app.router.add_get("/slow", slow)
        app.router.add_get("/hold", holds_the_loop)
        return app

    return make


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:], os.environ, service="example", settings_class=ServiceSettings, compose=compose))
