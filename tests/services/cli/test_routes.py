import json
import textwrap

import pytest
from typer.testing import CliRunner

from tokenry_cli.__main__ import app

SERVICES = {
    "aiohttp": """
        from aiohttp import web
        from tokenry import TokenValidator
        from tokenry.aiohttp import auth_middleware, public, require

        async def handle(request): ...
        @public
        async def healthz(request): ...

        validator = TokenValidator("https://issuer.example", audience="orders")
        app = web.Application(middlewares=[auth_middleware(validator)])
        app.router.add_get("/orders", require("orders.read")(handle))
        app.router.add_get("/healthz", healthz)
    """,
    "flask": """
        import tokenry.flask as auth
        from flask import Flask
        from tokenry import TokenValidator

        app = Flask(__name__, static_folder=None)
        auth.init_app(app, TokenValidator("https://issuer.example", audience="orders"))
        app.add_url_rule("/orders", "orders", auth.require("orders.read")(lambda: "ok"))
        app.add_url_rule("/healthz", "healthz", auth.public(lambda: "ok"))
    """,
    "fastapi": """
        from fastapi import FastAPI, Security
        from tokenry import TokenValidator
        from tokenry.fastapi import Bearer, public

        bearer = Bearer(TokenValidator("https://issuer.example", audience="orders"))
        app = FastAPI(dependencies=[Security(bearer)], openapi_url=None)
        app.get("/orders", dependencies=[Security(bearer, scopes=["orders.read"])])(lambda: "ok")
        app.get("/healthz")(public(lambda: "ok"))
    """,
    "starlette": """
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.routing import Route
        from tokenry import TokenValidator
        from tokenry.starlette import AuthMiddleware, public, require

        async def handle(request): ...
        validator = TokenValidator("https://issuer.example", audience="orders")

        def make():
            return Starlette(
                routes=[Route("/orders", require("orders.read")(handle)), Route("/healthz", public(handle))],
                middleware=[Middleware(AuthMiddleware, validator=validator)],
            )
    """,
    "grpc": """
        from tokenry import TokenValidator
        from tokenry.grpc import ServerInterceptor

        validator = TokenValidator("https://issuer.example", audience="orders")
        app = ServerInterceptor(validator, {"/shop.Orders/Get": "orders.read"}, public=["/health.Health/Check"])
    """,
}


@pytest.fixture(params=SERVICES)
def service(request, tmp_path):
    name = f"routes_of_{request.param}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SERVICES[request.param]))
    return f"{name}:{'make()' if request.param == 'starlette' else 'app'}", str(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(app, ["routes", *arguments])


def test_every_route_is_listed_with_what_it_asks_for(service):
    done = invoke(service[0], "--app-dir", service[1], "--output", "json")
    assert done.exit_code == 0, done.output
    listed = {route["path"]: route for route in json.loads(done.stdout)}
    scoped = listed.get("/orders") or listed["/shop.Orders/Get"]
    is_open = listed.get("/healthz") or listed["/health.Health/Check"]
    assert (scoped["scope"], scoped["public"]) == ("orders.read", False)
    assert (is_open["access"], is_open["public"]) == ("public", True)


def test_a_review_fails_on_what_is_open_and_not_allowed(service):
    arguments = (service[0], "--app-dir", service[1], "--check")
    assert invoke(*arguments).exit_code == 1
    path = "/health.Health/Check" if "grpc" in service[0] else "/healthz"
    done = invoke(*arguments, "--allow-public", path)
    assert done.exit_code == 0, done.output
    assert "orders.read" in done.output


@pytest.mark.parametrize("name", ["json", "json:", "no_such_module:app", "json:nothing", "json:dumps"])
def test_what_is_no_application_is_said_to_be_none(name):
    assert invoke(name).exit_code == 2
