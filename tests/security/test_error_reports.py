"""
What a report of an error shows that has the values of all local variables, as collectors of errors make them.

Our own logs have none: names of functions and lines only. But a team may put such a collector into the process, and
then what our frames hold is sent away. So a fault is made at the bottom of each kind of request, with as many frames
above it as can be, and the report is searched for what the caller has sent.
"""

import json
import random
import traceback
from base64 import b64encode
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import pytest
import structlog
from aiohttp import ClientSession

from tests.services.issuer.support import NOW, PASSWORD, SECRET, MemoryStore, settings, usual_objects
from tokenry.serving.server import serve
from tokenry.testing.clock import FakeClock
from tokenry_issuer.app import ISSUER, Chance, create_app

GRANT = {"grant_type": "client_credentials", "realm": "services"}


class Broken(Exception):
    """The fault of ours that is reported."""


class BreakingRandomness:
    """Gives random bytes until it is told to break: the last thing that a token needs before it is signed."""

    def __init__(self) -> None:
        self.broken = False
        self._source = random.Random(3)  # noqa: S311 -- a test's

    def __call__(self, count: int) -> bytes:
        if self.broken:
            raise Broken
        return self._source.randbytes(count)


@asynccontextmanager
async def breaking_issuer():
    clock, store, randomness = FakeClock(start=float(NOW)), MemoryStore(), BreakingRandomness()
    objects, envelope = usual_objects()
    for key, body in objects.items():
        store.put(key, body)
    app = create_app(
        settings(),
        clock=clock,
        store=store,
        envelope=envelope,
        revocations=None,
        chance=Chance(uniform=random.Random(7), random_bytes=randomness),  # noqa: S311 -- jitter
        refresh_in_background=False,
    )
    async with serve(app, ["127.0.0.1:0"], finish_seconds=1.0) as served, ClientSession() as http:
        for each in (app[ISSUER].credentials, app[ISSUER].keyring):
            await each.refresh()
        randomness.broken = True
        yield served.url, http


async def report_of(url: str, http: ClientSession, form: dict, headers: dict) -> str:
    """Make one request that ends in a fault of ours; return its report with the values of all local variables."""
    with structlog.testing.capture_logs() as logs:
        body = urlencode(form).encode()
        fields = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        async with http.post(f"{url}/oauth2/token", data=body, headers=fields) as answer:
            assert answer.status == 500
            told = await answer.text()
    (error,) = [line["exc_info"] for line in logs if "exc_info" in line]
    assert isinstance(error, Broken)
    report = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "tokenry_issuer/issuance.py" in report  # our frames are in it, with their variables
    return report + told + json.dumps([{k: str(v) for k, v in line.items()} for line in logs])


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()}


@pytest.mark.parametrize(
    ("form", "headers", "secrets"),
    [
        (GRANT, basic("orders", SECRET), [SECRET, basic("orders", SECRET)["Authorization"][6:]]),
        (GRANT | {"client_id": "orders", "client_secret": SECRET}, {}, [SECRET]),
        (
            GRANT | {"grant_type": "password", "username": "robot", "password": PASSWORD},
            basic("orders", SECRET),
            [SECRET, PASSWORD, urlencode({"p": PASSWORD})[2:]],
        ),
    ],
    ids=["Basic", "client_secret in the form", "password"],
)
async def test_a_report_with_all_variables_shows_no_secret_of_the_request(form, headers, secrets):
    async with breaking_issuer() as (url, http):
        report = await report_of(url, http, form, headers)
    for secret in secrets:
        assert secret not in report, around(report, secret)


def around(report: str, secret: str) -> str:
    """Return where in *report* it is, without telling it again."""
    place = report.index(secret)
    return report[max(0, place - 600) : place].replace(secret, "***") + "*** "
