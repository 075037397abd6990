"""The protected service of the demo: another team's service, with the library in its own process."""

from __future__ import annotations

from typing import Annotated

import typer
from aiohttp import web

from tokenry import TokenValidator
from tokenry.aiohttp import TOKEN, auth_middleware, public, require


@require("orders.read")
async def list_orders(request: web.Request) -> web.Response:
    """Answer a caller that may read orders."""
    return web.json_response({"caller": request[TOKEN].sub, "orders": ["42"]})


@public
async def readyz(_: web.Request) -> web.Response:
    """Say that keys and the first revocation list are there: the server starts after them."""
    return web.Response(text="ok\n")


def create_app(issuer: str) -> web.Application:
    """Return the service, closed by default, for tokens of *issuer*."""
    validator = TokenValidator(issuer, audience=issuer)
    app = web.Application(middlewares=[auth_middleware(validator)])
    app.cleanup_ctx.append(validator.aiohttp_ctx)
    app.add_routes([web.get("/orders", list_orders), web.get("/readyz", readyz)])
    return app


def demo_service(
    issuer: Annotated[str, typer.Option(envvar="TOKENRY_ISSUER", help="Issuer whose tokens are accepted.")],
    port: Annotated[int, typer.Option(envvar="TOKENRY_DEMO_PORT", help="Port on loopback.")],
) -> None:
    """Run the protected service of the demo."""
    web.run_app(create_app(issuer), host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    typer.run(demo_service)
