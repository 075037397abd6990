"""What is answered at once is what the ordinary way answers, counts and records, and nothing else."""

import asyncio
import re

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from structlog.testing import capture_logs

from tests.services.issuer.support import FORM, OTHER_SECRET, PASSWORD, SECRET, basic, encoded, running
from tests.support.garbage import frames_left
from tokenry.serving.keys import HEALTH
from tokenry.serving.quick import QUICK_FORMS

PLAIN = {"grant_type": "client_credentials", "realm": "/services"}
# What differs from answer to answer, or only because the other connection is closed.
CHANGING = {"x-request-id", "date", "connection"}


@pytest.fixture
async def issuer():
    async with running() as issuer:
        yield issuer


class Transport:
    """A connection as far as a quick answer looks at it."""

    def __init__(self, peer=("192.0.2.7", 4711)):
        self.peer = peer

    def get_extra_info(self, name, default=None):
        return self.peer if name == "peername" else default


def quick(
    issuer, form=PLAIN, *, path="/oauth2/token", method="POST", transport=None, client=("orders", SECRET), **more
):
    fields = CIMultiDict({"Content-Type": FORM, "Host": "localhost"})
    if client is not None:
        fields["Authorization"] = basic(*client)
    fields.update(more)
    forms = issuer.app[QUICK_FORMS]
    if not forms.takes(method, path):
        return None
    return forms(path, CIMultiDictProxy(fields), encoded(form), transport or Transport())


def steady(headers):
    return {name.lower(): value for name, value in headers.items() if name.lower() not in CHANGING}


def without_token(body):
    return re.sub(rb'"access_token": ?"[^"]*"', b"", body)


REQUESTS = [
    (PLAIN, ("orders", SECRET)),
    (PLAIN | {"scope": "orders.read"}, ("orders", SECRET)),
    (PLAIN | {"scope": "not.allowed"}, ("orders", SECRET)),
    (PLAIN | {"scope": 'a "quoted" scope'}, ("orders", SECRET)),
    (PLAIN | {"resource": "https://elsewhere.example.org"}, ("orders", SECRET)),
    (PLAIN | {"realm": "/nowhere"}, ("orders", SECRET)),
    (PLAIN | {"client_id": "orders", "client_secret": SECRET}, None),
    (PLAIN | {"client_id": "orders", "client_secret": SECRET}, ("orders", SECRET)),
    (PLAIN, ("orders", OTHER_SECRET)),
    (PLAIN, ("nobody", SECRET)),
    (PLAIN, None),
]


@pytest.mark.parametrize(("form", "client"), REQUESTS)
async def test_it_is_the_answer_of_the_ordinary_way_with_the_same_record(issuer, form, client):
    # A wrong secret costs the realm's slow hash, whoever it is said to be of.
    assert (quick(issuer, form, client=client) is None) is (client in {("orders", OTHER_SECRET), ("nobody", SECRET)})
    answers, records = [], []
    for extra in ({}, {"Connection": "close"}):  # what closes its connection is never quick
        headers = {"Content-Type": FORM} | ({} if client is None else {"Authorization": basic(*client)}) | extra
        with capture_logs() as logs:
            answers.append(await issuer.call("POST", "/oauth2/token", headers=headers, data=encoded(form)))
        records.append([{k: v for k, v in each.items() if k not in {"jti", "seconds"}} for each in logs])
    at_once, ordinary = answers
    assert at_once.status == ordinary.status
    assert without_token(at_once.body) == without_token(ordinary.body)
    assert steady(at_once.headers) == steady(ordinary.headers)
    assert "Date" in at_once.headers
    assert at_once.headers["X-Request-Id"] != ordinary.headers["X-Request-Id"]
    assert records[0] == records[1]
    assert {each["event"] for each in records[0]} >= {"request"}


@pytest.mark.parametrize("extra", [{}, {"Connection": "close"}])  # at once, and the ordinary way
@pytest.mark.parametrize(("form", "client"), REQUESTS)
async def test_no_request_leaves_its_secrets_to_the_garbage_collector(issuer, form, client, extra):
    headers = {"Content-Type": FORM} | ({} if client is None else {"Authorization": basic(*client)}) | extra
    with frames_left() as left:
        await issuer.call("POST", "/oauth2/token", headers=headers, data=encoded(form))
        await asyncio.sleep(0.02)  # until the connection has ended
    assert left == []


async def test_both_ways_count_the_same(issuer):
    def counted():
        text = issuer.app[HEALTH] and issuer.issuer.metrics.render().decode()
        lines = [line for line in text.splitlines() if line.startswith(("tokenry_token", "http_server_request"))]
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if "_bucket" not in line and "_sum" not in line and "_created" not in line
        }

    def grown(before, after):
        return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}

    grew = []
    for extra in ({}, {"Connection": "close"}):
        before = counted()
        for form, client in REQUESTS:
            headers = {"Content-Type": FORM} | ({} if client is None else {"Authorization": basic(*client)}) | extra
            await issuer.call("POST", "/oauth2/token", headers=headers, data=encoded(form))
        grew.append(grown(before, counted()))
    assert grew[0] == grew[1]
    assert grew[0]


@pytest.mark.parametrize(
    ("form", "how"),
    [
        (PLAIN, {"method": "GET"}),
        (PLAIN, {"path": "/oauth2/token?realm=services"}),
        (PLAIN, {"path": "/oauth2/introspect"}),
        (PLAIN, {"Content-Type": "application/json"}),
        (PLAIN, {"Content-Type": FORM + "; charset=utf-8"}),
        (PLAIN, {"Content-Encoding": "gzip"}),
        (PLAIN, {"Expect": "100-continue"}),
        (PLAIN, {"dpop": "x"}),
        (PLAIN | {"grant_type": "password", "username": "robot", "password": PASSWORD}, {}),
        (PLAIN | {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": "x"}, {}),
        (PLAIN | {"client_assertion": "x", "client_assertion_type": "y"}, {"client": None}),
        (b"grant_type=client_credentials&realm=%ff", {}),
        (b"grant_type=client_credentials&grant_type=client_credentials", {}),
    ],
)
async def test_what_is_not_plain_goes_the_ordinary_way(issuer, form, how):
    with capture_logs() as logs:
        assert quick(issuer, form, **how) is None
    assert logs == []


async def test_nothing_is_begun_while_the_service_drains(issuer):
    assert quick(issuer) is not None
    issuer.app[HEALTH].drain()
    assert quick(issuer) is None


async def test_what_has_to_wait_is_broken_off_and_begins_again_the_ordinary_way(issuer):
    with capture_logs() as logs:
        assert quick(issuer, client=("slow", SECRET)) is None
    assert logs == []
    with capture_logs() as logs:
        answer = await issuer.token(PLAIN, client=("slow", SECRET))
    assert answer.status == 200
    assert [each["event"] for each in logs if each["event"] != "request"] == ["token_issued"]
    # The secret is remembered now, so that the next token need not wait.
    assert quick(issuer, client=("slow", SECRET)) is not None


async def test_a_wrong_secret_of_a_slow_client_never_gets_an_answer_without_the_work(issuer):
    for _ in range(3):
        assert quick(issuer, client=("slow", OTHER_SECRET)) is None
        assert (await issuer.token(PLAIN, client=("slow", OTHER_SECRET))).status == 401


async def test_limits_on_failures_hold_here_too(issuer):
    for _ in range(10):
        assert (await issuer.token(PLAIN, client=("orders", OTHER_SECRET))).status == 401
    # Refused also with the right secret, from this address alone.
    assert quick(issuer, transport=Transport(("127.0.0.1", 1))).startswith(b"HTTP/1.1 429 ")
    assert quick(issuer, transport=Transport(("192.0.2.8", 1))).startswith(b"HTTP/1.1 200 ")


async def test_pipelined_requests_are_answered_in_their_order(issuer):
    def request(scope):
        body = encoded(PLAIN | {"scope": scope})
        head = (
            f"POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: {basic('orders', SECRET)}\r\n"
            f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    host, port = issuer.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    scopes = ["orders.read", "orders.write", "orders.read orders.write", "orders.read"]
    whole = b"".join(map(request, scopes))
    # In two pieces of which neither ends where a request does.
    writer.write(whole[: len(whole) // 2 + 20])
    await writer.drain()
    await asyncio.sleep(0)
    writer.write(whole[len(whole) // 2 + 20 :])
    granted = []
    for _ in scopes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 200 ")
        length = int(re.search(r"(?i)content-length: (\d+)", head)[1])
        granted.append(re.search(rb'"scope":"([^"]*)"', await reader.readexactly(length))[1].decode())
    writer.close()
    assert granted == scopes
