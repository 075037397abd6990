"""The composition root: the only place that reads the environment, builds the parts and runs them."""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING

from tokenry.clock import SystemClock
from tokenry.serving.server import command
from tokenry_console.app import SERVICE, create_app
from tokenry_console.outgoing import HttpCalls
from tokenry_console.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from aiohttp import web

ID_BYTES = 32


def compose(settings: Settings) -> Callable[[], web.Application]:
    """Return what makes the application of *settings*, inside the event loop."""

    def make() -> web.Application:
        calls = HttpCalls()
        app = create_app(settings, clock=SystemClock(), calls=calls, random=lambda: secrets.token_urlsafe(ID_BYTES))
        # First to begin and last to end: everything else makes calls.
        app.cleanup_ctx.insert(0, _opened(calls))
        return app

    return make


def _opened(calls: HttpCalls) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with calls:
            yield

    return context


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the service and return the exit code of the process."""
    return command(
        sys.argv[1:] if argv is None else argv,
        os.environ if environ is None else environ,
        service=SERVICE,
        settings_class=Settings,
        compose=compose,
    )


if __name__ == "__main__":
    sys.exit(main())
