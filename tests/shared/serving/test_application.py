import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from tokenry.errors import InsufficientScope, InvalidToken, Reason, Unready, ValidatorNotReady
from tokenry.oauth.errors import invalid_client, invalid_scope
from tokenry.serving.application import authorization_values, create_base_app, deadline, read_body
from tokenry.serving.health import Health, failed
from tokenry.serving.keys import CLIENT_ADDRESS, HEALTH, METRICS, REQUEST_ID
from tokenry.serving.metrics import Metrics
from tokenry.serving.problem import Problem
from tokenry.serving.server import serve
from tokenry.serving.settings import ServiceSettings
from tokenry.testing.clock import FakeClock

CANARY = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2ln"


def make_app(**settings):
    app = create_base_app(
        service="example",
        clock=FakeClock(),
        health=Health(),
        metrics=Metrics(service="example"),
        settings=ServiceSettings(**settings),
        openapi={"openapi": "3.1.0"},
        problem_prefixes=("/things",),
        new_request_id=lambda: "generated-id",
    )

    def raising(error):
        async def handler(_request):
            raise error

        return handler

    async def echo(request):
        body = await read_body(request, limit=1000, deadline=0.3)
        return web.json_response({"bytes": len(body), "authorizations": len(authorization_values(request))})

    @deadline(0.05)
    async def slow(_request):
        await asyncio.sleep(10)

    async def inner_timeout(_request):
        raise TimeoutError

    async def who(request):
        return web.json_response({"id": request[REQUEST_ID], "address": request[CLIENT_ADDRESS]})

    app.router.add_post("/echo", echo)
    app.router.add_get("/slow", slow)
    app.router.add_get("/inner-timeout", inner_timeout)
    app.router.add_get("/who", who)
    for prefix in ("/oauth2", "/things"):
        app.router.add_get(f"{prefix}/oauth", raising(invalid_scope(["a.b"])))
        app.router.add_get(f"{prefix}/client", raising(invalid_client(realm="x")))
        app.router.add_get(f"{prefix}/problem", raising(Problem(409, "it is so", members={"id": "r1"})))
        app.router.add_get(f"{prefix}/busy", raising(Problem(429, "wait", retry_after=0)))
        app.router.add_get(f"{prefix}/token", raising(InvalidToken(Reason.EXPIRED)))
        app.router.add_get(f"{prefix}/scope", raising(InsufficientScope(["b", "a"])))
        app.router.add_get(f"{prefix}/unready", raising(ValidatorNotReady(Unready.NO_LIST, retry_after=7)))
        app.router.add_get(f"{prefix}/bug", raising(RuntimeError(CANARY)))
        app.router.add_get(f"{prefix}/gone", raising(web.HTTPGone(text=CANARY)))
        app.router.add_get(f"{prefix}/away", raising(web.HTTPFound("/elsewhere")))
    return app


@asynccontextmanager
async def running(**settings):
    app = make_app(**settings)
    async with serve(app, ["127.0.0.1:0"]) as server, aiohttp.ClientSession(server.url) as session:
        yield app, session


async def get(path, *, method="GET", settings=None, **more):
    async with (
        running(**(settings or {})) as (app, session),
        session.request(method, path, allow_redirects=False, **more) as answer,
    ):
        return answer.status, answer.headers, await answer.read(), app


async def raw(text, *, wait=3.0, **settings):
    """Send bytes as they are; return everything that came back until the connection was closed."""
    async with serve(make_app(**settings), ["127.0.0.1:0"]) as server:
        host, _, port = server.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(text)
        async with asyncio.timeout(wait):
            answer = await reader.read()
        writer.close()
        return answer


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/oauth2/oauth", 400, "invalid_scope"),
        ("/oauth2/client", 401, "invalid_client"),
        ("/oauth2/problem", 409, "invalid_request"),
        ("/oauth2/busy", 429, "temporarily_unavailable"),
        ("/oauth2/token", 401, "invalid_token"),
        ("/oauth2/scope", 403, "insufficient_scope"),
        ("/oauth2/unready", 503, "temporarily_unavailable"),
        ("/oauth2/bug", 500, "server_error"),
        ("/oauth2/gone", 410, "invalid_request"),
        ("/nowhere", 404, "invalid_request"),
    ],
)
async def test_a_refusal_is_an_oauth_error_outside_the_problem_prefixes(path, status, error):
    got, headers, body, _ = await get(path)
    assert (got, headers["Content-Type"], json.loads(body)["error"]) == (status, "application/json", error)
    assert headers["Cache-Control"] == "no-store"
    assert headers["Pragma"] == "no-cache"
    assert set(json.loads(body)) == {"error", "error_description"}


@pytest.mark.parametrize(
    ("path", "status"),
    [("/things/oauth", 400), ("/things/problem", 409), ("/things/token", 401), ("/things/unready", 503),
     ("/things/bug", 500), ("/things/gone", 410), ("/things/nowhere", 404)],
)  # fmt: skip
async def test_a_refusal_is_a_problem_document_below_them(path, status):
    got, headers, body, _ = await get(path)
    document = json.loads(body)
    assert (got, headers["Content-Type"], document["status"]) == (status, "application/problem+json", status)
    assert {"type", "title", "status", "detail"} <= set(document)


async def test_a_fault_of_ours_tells_its_request_id_and_nothing_else():
    for path in ("/oauth2/bug", "/things/bug", "/oauth2/gone"):
        _, headers, body, _ = await get(path)
        assert b"canary" not in body
        assert "eyJ" not in body.decode() + str(headers)
    assert b"generated-id" in (await get("/oauth2/bug"))[2]


async def test_challenges_and_retry_after_come_with_their_refusal():
    assert (await get("/oauth2/client"))[1]["WWW-Authenticate"] == 'Basic realm="x"'
    assert 'error="invalid_token"' in (await get("/things/token"))[1]["WWW-Authenticate"]
    assert 'scope="a b"' in (await get("/oauth2/scope"))[1]["WWW-Authenticate"]
    assert (await get("/oauth2/unready"))[1]["Retry-After"] == "7"
    assert (await get("/things/busy"))[1]["Retry-After"] == "1"


async def test_a_redirect_stays_a_redirect():
    status, headers, _, _ = await get("/oauth2/away")
    assert (status, headers["Location"]) == (302, "/elsewhere")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "PATCH", "PROPFIND"])
async def test_a_wrong_method_names_the_right_one_and_echoes_nothing(method):
    status, headers, body, _ = await get("/echo", method=method, headers={"Authorization": f"Bearer {CANARY}"})
    assert (status, headers["Allow"], json.loads(body)["error"]) == (405, "POST", "invalid_request")
    assert "eyJ" not in body.decode()


async def test_a_request_that_takes_too_long_is_answered_503():
    status, headers, body, _ = await get("/slow")
    assert (status, json.loads(body)["error"]) == (503, "temporarily_unavailable")
    assert "Retry-After" in headers


async def test_a_timeout_inside_a_handler_is_a_fault_of_ours():
    assert (await get("/inner-timeout"))[0] == 500


# --- bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 1000, {}, 200),
        (b"x" * 1001, {}, 413),
        (b"x" * 900_000, {}, 413),
        (b"x", {"Content-Encoding": "gzip"}, 415),
        (b"x", {"Content-Encoding": "bogus"}, 415),
        (b"x", {"Content-Encoding": "identity"}, 200),
        (b"x", {"Content-Type": "text/plain; charset=bogus"}, 200),
        (b"--b\r\n\r\nx\r\n--b--", {"Content-Type": "multipart/form-data; boundary=b"}, 200),
    ],
)
async def test_bodies_are_taken_as_they_are_within_their_limit(body, headers, status):
    assert (await get("/echo", method="POST", data=body, headers=headers))[0] == status


async def test_a_chunked_body_has_the_same_limit():
    async def chunks():
        for _ in range(20):
            yield b"x" * 100

    assert (await get("/echo", method="POST", data=chunks()))[0] == 413


async def test_a_body_that_does_not_come_is_given_up():
    answer = await raw(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", wait=5)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"Connection: close" in answer


async def test_every_authorization_header_is_seen():
    answer = await raw(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: a\r\nAuthorization: b\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert b'"authorizations": 2' in answer


# --- what is not HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"GET /who HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + CANARY.encode() * 400 + b"\r\n\r\n",
        b"GET /who HTTP/1.1\r\nHost: x\r\nbad header " + CANARY.encode() + b"\r\n\r\n",
        b"GET /" + CANARY.encode() * 400 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /who HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET /who HTTP/1.1\r\nHost: x\r\nA: b\r\n folded: " + CANARY.encode() + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY.encode() + b"\r\n\r\n",
        b"GET /who HTTP/1.1\r\nHost: x\r\nExpect: " + CANARY.encode() + b"\r\nConnection: close\r\n\r\n",
    ],
    ids=["long header", "no colon", "long line", "200 headers", "two lengths", "length and chunked", "xchunked",
         "folded", "TLS", "expectation"],
)  # fmt: skip
async def test_what_is_not_a_request_is_refused_and_closed_and_not_repeated(text, capsys):
    answer = await raw(text)
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 417"))
    assert b"eyJ" not in answer
    assert b"Server" not in answer
    captured = capsys.readouterr()
    assert "eyJ" not in captured.out + captured.err


async def test_a_head_that_does_not_come_closes_the_connection():
    for text in (b"", b"GET / HTTP/1.1\r\nHost:"):
        assert await raw(text, head_deadline=0.1) == b""


async def test_the_clock_of_a_second_head_starts_with_its_first_byte():
    async with serve(make_app(head_deadline=0.3), ["127.0.0.1:0"]) as server:
        host, _, port = server.addresses[0].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(2):  # idle for longer than the deadline in between: the connection stays
            writer.write(request)
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.5)
        writer.write(request[:10])
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()


# --- around every request -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("abc-1.2_3", "abc-1.2_3"),
        ("a b", "generated-id"),
        ("x" * 65, "generated-id"),
        ('a"}', "generated-id"),
    ],
)
async def test_a_request_id_is_taken_over_only_if_it_is_sane(given, used):
    _, headers, body, _ = await get("/who", headers={"X-Request-Id": given})
    assert (headers["X-Request-Id"], json.loads(body)["id"]) == (used, used)


async def test_the_callers_address_comes_from_trusted_proxies_alone():
    for proxies, address in (((), "127.0.0.1"), ("127.0.0.0/8", "5.6.7.8")):
        _, _, body, _ = await get("/who", headers={"X-Forwarded-For": "5.6.7.8"}, settings={"trusted_proxies": proxies})
        assert json.loads(body)["address"] == address


async def test_no_answer_names_the_server():
    for path in ("/healthz", "/nowhere", "/oauth2/bug"):
        assert "Server" not in (await get(path))[1]


async def test_metrics_count_by_route_template_and_never_by_path():
    async with running() as (app, session):
        for path in ("/who?secret=1", "/nowhere/secret", "/healthz"):
            (await session.get(path)).close()
        (await session.request("PROPFIND", "/who")).close()
        text = app[METRICS].render().decode()
    counted = 'http_server_request_duration_seconds_count{http_request_method="GET"'
    assert f'{counted},http_response_status_code="200",http_route="/who"}} 1.0' in text
    assert 'http_route="unmatched"' in text
    assert 'http_request_method="_OTHER"' in text
    assert "secret" not in text.lower().replace("secret_", "")


async def test_the_access_log_has_the_route_and_no_query(capsys):
    await get("/who?token=hunter2")
    out = capsys.readouterr().out
    assert "/who" in out
    assert "hunter2" not in out


# --- operations ---------------------------------------------------------------------------------------------


async def test_alive_depends_on_nothing_and_ready_on_the_checks():
    async with running() as (app, session):
        app[HEALTH].add("store", lambda: failed("gone"))
        async with session.get("/healthz") as alive, session.get("/readyz") as ready:
            assert (alive.status, ready.status) == (200, 503)
        async with session.get("/readyz?verbose") as verbose:
            document = await verbose.json()
    assert document["checks"]["store"] == {"status": "failed", "detail": "gone"}
    assert document["checks"]["event_loop"]["status"] == "ok"


async def test_metrics_move_to_their_own_port_when_there_is_one():
    assert (await get("/metrics"))[0] == 200
    assert (await get("/metrics", settings={"metrics_listen_address": "127.0.0.1:0"}))[0] == 404


async def test_the_openapi_document_is_served():
    status, headers, body, _ = await get("/openapi.json")
    assert (status, headers["Content-Type"], json.loads(body)) == (
        200,
        "application/json",
        {"openapi": "3.1.0"},
    )


async def test_while_draining_each_answer_closes_its_connection():
    async with running() as (app, session):
        async with session.get("/healthz") as answer:
            assert "Connection" not in answer.headers
        app[HEALTH].drain()
        async with session.get("/healthz") as answer, session.get("/readyz") as ready:
            assert (answer.status, answer.headers["Connection"], ready.status) == (200, "close", 503)
