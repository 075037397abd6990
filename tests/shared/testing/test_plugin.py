"""What users of the library write in their tests, as they write it."""

import os
import subprocess
import sys
import textwrap

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tokenry import ClientCredentials
from tokenry.aiohttp import TOKEN, auth_middleware, require


@require("orders.read")
async def list_orders(request):
    return web.json_response({"caller": request[TOKEN].sub})


def make_app(validator):
    app = web.Application(middlewares=[auth_middleware(validator)])
    app.cleanup_ctx.append(validator.aiohttp_ctx)
    app.add_routes([web.get("/orders", list_orders)])
    return app


@pytest.fixture
async def aiohttp_client():
    clients = []

    async def make(app):
        clients.append(TestClient(TestServer(app)))
        await clients[-1].start_server()
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def test_needs_scope(fake_issuer, aiohttp_client):
    client = await aiohttp_client(make_app(fake_issuer.validator()))
    ok = await client.get("/orders", headers=fake_issuer.headers("basket", scope="orders.read"))
    bad = await client.get("/orders", headers=fake_issuer.headers("basket", scope="other"))
    assert (ok.status, bad.status) == (200, 403)


async def test_revoked(fake_issuer, aiohttp_client):
    client = await aiohttp_client(make_app(fake_issuer.validator()))
    token = fake_issuer.token("basket", scope="orders.read")
    fake_issuer.revoke(token)
    assert (await client.get("/orders", headers={"Authorization": f"Bearer {token}"})).status == 401


def test_survives_issuer_outage(fake_issuer, clock):
    source = ClientCredentials(scope=["orders.read"], clock=clock)
    token = source.get()
    fake_issuer.down = True
    clock.advance(minutes=50)
    assert source.get() == token


@pytest.mark.tokenry("basket", scope="orders.read")
async def test_headers_by_a_marker(fake_issuer, aiohttp_client, auth_headers):
    client = await aiohttp_client(make_app(fake_issuer.validator()))
    response = await client.get("/orders", headers=auth_headers)
    assert await response.json() == {"caller": "basket"}


def test_headers_without_a_marker_are_those_of_any_client(fake_issuer, auth_headers):
    token = auth_headers["Authorization"].removeprefix("Bearer ")
    assert fake_issuer.validator().validate(token).scope == frozenset()


def test_the_clock_is_the_issuers_where_both_are_asked_for(fake_issuer, clock):
    assert fake_issuer.clock is clock


def test_without_a_clock_the_issuer_lives_in_the_present(fake_issuer):
    import time

    assert abs(fake_issuer.clock.now() - time.time()) < 5


def test_the_environment_leads_to_the_fake_and_nowhere_else(fake_issuer, monkeypatch):
    assert os.environ["TOKENRY_ISSUER"] == fake_issuer.issuer
    assert "CREDENTIALS_DIR" not in os.environ


def test_the_plugin_registers_itself_and_its_marker(tmp_path):
    """In a project of its own, without our configuration."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import pytest

            @pytest.mark.tokenry(scope="a")
            def test_it(fake_issuer, auth_headers):
                fake_issuer.validator().validate(auth_headers["Authorization"][7:], scope="a")
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-p", "no:asyncio", str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr
