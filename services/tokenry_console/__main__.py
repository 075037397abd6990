"""The composition root: the only place that reads the environment, builds the parts and runs them."""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING

from tokenry.clock import SystemClock
from tokenry.serving.outgoing import HttpCalls
from tokenry.serving.server import command
from tokenry_console.app import SERVICE, create_app
from tokenry_console.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp import web

ID_BYTES = 32
MAX_CONNECTIONS = 100  # a page makes some thirty calls at a time


def compose(settings: Settings) -> Callable[[], web.Application]:
    """Return what makes the application of *settings*, inside the event loop."""

    def make() -> web.Application:
        calls = HttpCalls(max_connections=MAX_CONNECTIONS)
        app = create_app(settings, clock=SystemClock(), calls=calls, random=lambda: secrets.token_urlsafe(ID_BYTES))
        # First to begin and last to end: everything else makes calls.
        app.cleanup_ctx.insert(0, calls.running)
        return app

    return make


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
