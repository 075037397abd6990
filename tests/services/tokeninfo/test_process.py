"""The service as a process of its own, beside a platform on loopback."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.support.http import call
from tokenry.http.fetch import Response
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer

pytestmark = pytest.mark.processes


@pytest.fixture
def platform():
    with FakeIssuer() as issuer:
        issuer.serve()
        yield issuer


@contextmanager
def tokeninfo(**environ):
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenry_tokeninfo"],
        env={
            "PATH": os.environ["PATH"], "TOKENRY_LISTEN_ADDRESS": "127.0.0.1:0", "TOKENRY_DRAIN_SECONDS": "0",
            "TOKENRY_EVENT_LOOP": "asyncio", **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "listening":
                break
        yield process, f"http://{event['addresses'][0]}"
    finally:
        process.kill()
        process.communicate()


def wait_until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_it_finds_keys_and_list_by_itself_and_enforces_a_revocation(platform):
    with tokeninfo(TOKENRY_ISSUER=platform.issuer) as (process, url):
        wait_until(lambda: call("GET", f"{url}/readyz").status == 200)
        token = platform.token("basket", scope="orders.read")
        answer = call("GET", f"{url}/oauth2/tokeninfo", bearer=token)
        assert (answer.status, answer.json["uid"]) == (200, "basket")
        assert call("GET", f"{url}/auth?scope=orders.read", bearer=token).status == 200
        platform.revoke(token)
        wait_until(lambda: call("GET", f"{url}/oauth2/tokeninfo", bearer=token).status == 401)
        metrics = call("GET", f"{url}/metrics").body.decode()
        assert 'tokenry_jwks_poll_total{result="200"}' in metrics
        assert 'tokenry_revocation_poll_total{result="200"}' in metrics
        assert "tokenry_revocation_propagation_seconds_count 1.0" in metrics
        assert 'tokenry_revocation_propagation_seconds_bucket{le="1.0"} 1.0' in metrics  # the request was held
        process.terminate()
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out.splitlines()[-1])["event"] == "stopped"
        assert token.split(".")[1] not in out


def test_it_starts_without_its_platform_not_ready_and_becomes_ready(platform):
    platform.down = True
    with tokeninfo(TOKENRY_ISSUER=platform.issuer) as (_, url):
        assert call("GET", f"{url}/healthz").status == 200
        assert call("GET", f"{url}/readyz").status == 503
        assert call("GET", f"{url}/oauth2/tokeninfo", bearer=platform.token()).status == 503
        platform.down = False
        wait_until(lambda: call("GET", f"{url}/readyz").status == 200, seconds=30)


def test_client_credentials_are_exchanged_at_the_issuer(platform):
    with tokeninfo(TOKENRY_ISSUER=platform.issuer) as (_, url):
        wait_until(lambda: call("GET", f"{url}/readyz").status == 200)
        token = platform.token("basket")
        for secret, status in (("test-secret", 200), ("wrong", 401)):
            answer = call("POST", f"{url}/oauth2/introspect", form={"token": token}, basic=("test-client", secret))
            assert answer.status == status, answer.body


def test_it_reports_as_its_client_what_it_enforces_and_how_often_it_has_refused(platform):
    reports = []

    def revocation_service(request):
        if urlsplit(request.url).path == "/validators/reports":
            reports.append((request.headers.get("Authorization", ""), json.loads(request.body)))
            return Response(status=204)
        return platform.revocations.answer(request.url, {}, hold=True)

    server = LoopbackServer(revocation_service)
    client = {"TOKENRY_LIST_CLIENT_ID": "test-client", "TOKENRY_LIST_CLIENT_SECRET": "test-secret"}
    try:
        with tokeninfo(TOKENRY_ISSUER=platform.issuer, TOKENRY_REVOCATION_URL=server.url, **client) as (_, url):
            wait_until(lambda: call("GET", f"{url}/readyz").status == 200)
            token = platform.token("basket")
            name = platform.revoke(token)
            wait_until(lambda: call("GET", f"{url}/oauth2/tokeninfo", bearer=token).status == 401)
            wait_until(lambda: any(name in body["enforced"] for _, body in reports), seconds=30)
            wait_until(lambda: sum(sum(body["refusals"].values()) for _, body in reports) >= 1, seconds=60)
    finally:
        server.close()
    bearers = {authorization.partition(" ")[2] for authorization, _ in reports}
    validator = platform.validator(audience=platform.issuer)  # of which the revocation service is a part
    assert {validator.validate(bearer).client_id for bearer in bearers} == {"test-client"}


def test_a_kept_connection_gets_its_answers(platform):
    with tokeninfo(TOKENRY_ISSUER=platform.issuer) as (_, url):
        wait_until(lambda: call("GET", f"{url}/readyz").status == 200)
        connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
        for _ in range(50):
            connection.request("GET", "/oauth2/tokeninfo", headers=platform.headers("basket"))
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["uid"]) == (200, "basket")
        connection.close()
