"""D86 and beyond: what is not HTTP, nearly HTTP, too much HTTP, and HTTP that never ends."""

import contextlib
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.attacked import AttackedPlatform, raw_exchange
from tests.support.http import call

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

SERVICES = ("issuer", "tokeninfo", "revocation")
POST = {
    "issuer": "/oauth2/token",
    "tokeninfo": "/oauth2/tokeninfo",
    "revocation": "/oauth2/revoke",
    "console": "/login",  # see test_console.py
}
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
CANARY = "canary-5cb5fdc2a1f94bd0a4f3e7d1"
CLOSED_SECONDS = 13.0  # 10 for a head or a body, 2 to let the refusal be read, and the machine may be busy


def post(service: str, fields: str, body: str = "") -> str:
    return f"POST {POST[service]} HTTP/1.1\r\nHost: x\r\n{FORM}{fields}\r\n{body}"


def smuggled(service: str) -> str:
    return f"GET /healthz?{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n"


# name -> (bytes after the connection is made, what the answer may be); "" is a connection closed without one
MALFORMED: dict[str, tuple[object, set[str]]] = {
    "CL and TE": (
        lambda s: post(s, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + smuggled(s)), {"400"},
    ),
    "TE and CL": (
        lambda s: post(s, "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n", "0\r\n\r\n" + smuggled(s)), {"400"},
    ),
    "two CL": (lambda s: post(s, "Content-Length: 3\r\nContent-Length: 4\r\n", "a=b&"), {"400"}),
    "two CL that agree": (lambda s: post(s, "Content-Length: 3\r\nContent-Length: 3\r\n", "a=b"), {"400"}),
    "a list of CL": (lambda s: post(s, "Content-Length: 3, 3\r\n", "a=b"), {"400"}),
    "CL with a sign": (lambda s: post(s, "Content-Length: +3\r\n", "a=b"), {"400"}),
    "negative CL": (lambda s: post(s, "Content-Length: -3\r\n", "a=b"), {"400"}),
    "CL in hexadecimal": (lambda s: post(s, "Content-Length: 0x3\r\n", "a=b"), {"400"}),
    "CL with an underscore": (lambda s: post(s, "Content-Length: 1_0\r\n", "a=b&c=d&e="), {"400"}),
    "CL in other digits": (lambda s: post(s, "Content-Length: \u0663\r\n", "a=b"), {"400"}),
    "CL of 400 digits": (lambda s: post(s, f"Content-Length: {'9' * 400}\r\n", "a=b"), {"400", "413"}),
    "CL beyond 64 bits": (lambda s: post(s, f"Content-Length: {2**64 + 3}\r\n", "a=b"), {"400", "413"}),
    "TE xchunked": (lambda s: post(s, "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), {"400"}),
    "TE chunked, identity": (lambda s: post(s, "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), {"400"}),
    "TE twice": (
        lambda s: post(s, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), {"400"},
    ),
    "TE chunked, chunked": (lambda s: post(s, "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), {"400"}),
    "TE with a space before the colon": (
        lambda s: post(s, "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n", "0\r\n\r\n" + smuggled(s)), {"400"},
    ),
    "TE in HTTP/1.0": (
        lambda s: post(s, "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "a=b").replace("/1.1", "/1.0"),
        {"400"},
    ),
    "chunk size with a sign": (lambda s: post(s, "Transfer-Encoding: chunked\r\n", "+3\r\na=b\r\n0\r\n\r\n"), {"400"}),
    "chunk size 0x3": (lambda s: post(s, "Transfer-Encoding: chunked\r\n", "0x3\r\na=b\r\n0\r\n\r\n"), {"400"}),
    "chunk size of 20 digits": (
        lambda s: post(s, "Transfer-Encoding: chunked\r\n", "F" * 20 + "\r\na"), {"400", "413"},
    ),
    "chunk without its end": (lambda s: post(s, "Transfer-Encoding: chunked\r\n", "3\r\na=bXX0\r\n\r\n"), {"400"}),
    "chunk that ends with a bare line feed": (
        lambda s: post(s, "Transfer-Encoding: chunked\r\n", "3\na=b\n0\n\n" + smuggled(s)), {"400"},
    ),
    "a chunk extension of 100 kB": (  # its bytes are counted by nobody, and kept by nobody
        lambda s: post(
            s, "Connection: close\r\nTransfer-Encoding: chunked\r\n", "3;" + "x" * 100_000 + "\r\na=b\r\n0\r\n\r\n"
        ),
        {"400", "401"},
    ),
    "an endless trailer": (
        lambda s: post(s, "Transfer-Encoding: chunked\r\n", "0\r\nX: " + "x" * 100_000 + "\r\n\r\n"), {"400"},
    ),
    "obs-fold": (lambda s: f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\r\n {CANARY}\r\n\r\n", {"400"}),
    "a space in front of the first field": (lambda s: "GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n", {"400"}),
    "a field without a colon": (lambda s: f"GET /healthz HTTP/1.1\r\nHost: x\r\n{CANARY}\r\n\r\n", {"400"}),
    "a field without a name": (lambda s: "GET /healthz HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", {"400"}),
    "a field name with a space": (lambda s: "GET /healthz HTTP/1.1\r\nHost: x\r\nX A: a\r\n\r\n", {"400"}),
    "NUL in a value": (lambda s: f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\0{CANARY}\r\n\r\n", {"400"}),
    "a bare carriage return": (lambda s: f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: a\r{CANARY}\r\n\r\n", {"400"}),
    "two hosts": (lambda s: "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", {"400"}),
    "200 fields": (
        lambda s: "GET /healthz HTTP/1.1\r\nHost: x\r\n" + "".join(f"X-{n}: a\r\n" for n in range(200)) + "\r\n",
        {"400"},
    ),
    "a field of 20 kB": (
        lambda s: f"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}{'x' * 20_000}\r\n\r\n", {"400"},
    ),
    "a request line of 20 kB": (
        lambda s: f"GET /healthz?access_token={CANARY}{'x' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n", {"400"},
    ),
    "a field name of 20 kB": (lambda s: f"GET /healthz HTTP/1.1\r\nHost: x\r\n{'x' * 20_000}: a\r\n\r\n", {"400"}),
    "a megabyte of fields": (
        lambda s: "GET /healthz HTTP/1.1\r\nHost: x\r\n" + f"X-A: {'x' * 9_000}\r\n" * 120 + "\r\n", {"400"},
    ),
    "no version": (lambda s: "GET /healthz\r\n\r\n", {"400"}),
    "HTTP/9.9": (lambda s: "GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", {"400", "505"}),
    "HTTP/2 by prior knowledge": (lambda s: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {"400", "505"}),
    "a method that is none": (lambda s: "G@T /healthz HTTP/1.1\r\nHost: x\r\n\r\n", {"400"}),
    "a method of 10 kB": (lambda s: "X" * 10_000 + " /healthz HTTP/1.1\r\nHost: x\r\n\r\n", {"400"}),
    "TLS": (lambda s: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {"400"}),
    "PROXY protocol": (
        lambda s: "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", {"400"},
    ),
    "noise": (lambda s: bytes(range(256)) * 20, {"400"}),
}  # fmt: skip


def statuses(answer: bytes) -> list[str]:
    return [
        line.split(b" ")[1].decode() for line in answer.split(b"\r\n") if line.startswith((b"HTTP/1.", b"HTTP/0.9"))
    ]


@pytest.fixture(autouse=True, scope="module")
def canary(platform: AttackedPlatform) -> None:
    platform.sent.add(CANARY)


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("service", SERVICES)
def test_D86_what_is_no_request_is_refused_once_and_the_connection_closed(
    platform: AttackedPlatform, service: str, name: str
) -> None:
    make, allowed = MALFORMED[name]
    sent = make(service)
    raw = sent if isinstance(sent, bytes) else sent.encode("utf-8")
    answer, seconds = raw_exchange(platform.address(service), raw, seconds=CLOSED_SECONDS)
    assert statuses(answer)[:1] in [[status] for status in allowed], answer[:300]
    assert len(statuses(answer)) == 1, answer  # what was smuggled is not answered
    assert CANARY.encode() not in answer
    assert b"aiohttp" not in answer.lower()
    assert b"python" not in answer.lower()
    assert seconds < 8


def head_of(service: str) -> bytes:
    return f"POST {POST[service]} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 1000\r\n\r\n".encode()


def slow_body(platform, service: str) -> None:
    answer, seconds = raw_exchange(
        platform.address(service), head_of(service), *[b"a"] * 5, pause=3.0, seconds=CLOSED_SECONDS + 4
    )
    assert statuses(answer) in (["408"], ["401"], []), answer
    assert seconds < CLOSED_SECONDS + 2


def slow_head(platform, service: str) -> None:
    line = f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: {CANARY}".encode()
    answer, seconds = raw_exchange(platform.address(service), line, *[b"a"] * 5, pause=3.0, seconds=CLOSED_SECONDS + 4)
    assert statuses(answer) == []
    assert seconds < CLOSED_SECONDS


def silent(platform, service: str) -> None:
    answer, seconds = raw_exchange(platform.address(service), seconds=CLOSED_SECONDS)
    assert (answer, seconds < CLOSED_SECONDS) == (b"", True)


def half_a_body(platform, service: str) -> None:
    answer, seconds = raw_exchange(platform.address(service), head_of(service) + b"a=b", half_close=True)
    assert all(status.startswith("4") for status in statuses(answer)), answer
    assert seconds < CLOSED_SECONDS


def many_half_open(platform, service: str) -> None:
    """Slowloris, in small: good callers are served while the half-open connections are there."""
    with contextlib.ExitStack() as stack:
        wires = [
            stack.enter_context(contextlib.closing(socket.create_connection(platform.address(service), timeout=20)))
            for _ in range(100)
        ]
        for wire in wires:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert call("GET", platform.url(service, "/healthz")).status == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 5.0
        deadline = time.monotonic() + CLOSED_SECONDS + 2
        for wire in wires:
            wire.settimeout(max(0.1, deadline - time.monotonic()))
            assert wire.recv(100) == b""


@pytest.mark.parametrize(
    "attack", [slow_body, slow_head, silent, half_a_body, many_half_open], ids=lambda f: f.__name__
)
def test_D86_who_is_slow_is_cut_off_and_disturbs_nobody(slowly, attack) -> None:
    for outcome in slowly[attack.__name__]:
        outcome.result()


@pytest.fixture(scope="module")
def slowly(platform: AttackedPlatform):
    """All slow attacks on all services at the same time: each takes as long as the limit that it waits for."""
    attacks = (slow_body, slow_head, silent, half_a_body, many_half_open)
    pool = ThreadPoolExecutor(max_workers=len(attacks) * len(SERVICES))
    outcomes = {attack.__name__: [pool.submit(attack, platform, service) for service in SERVICES] for attack in attacks}
    yield outcomes
    pool.shutdown()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip"])
def test_D86_F40_compressed_bodies_are_refused_unread(platform: AttackedPlatform, service: str, coding: str) -> None:
    bomb = gzip.compress(bytes(30 << 20))
    before = platform.resident_bytes(service)
    fields = f"Content-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n"
    answer, _ = raw_exchange(platform.address(service), post(service, fields).encode() + bomb)
    assert statuses(answer)[0] in {"400", "401", "413", "415"}, answer[:200]
    assert platform.resident_bytes(service) - before < 10 << 20


@pytest.mark.parametrize("service", SERVICES)
def test_F40_ten_thousand_pipelined_requests_are_answered_in_order_or_cut(
    platform: AttackedPlatform, service: str
) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer, _ = raw_exchange(platform.address(service), one * 2_000 + last, seconds=60)
    assert set(statuses(answer)) == {"200"}
    assert len(statuses(answer)) <= 2_001


def test_pipelined_tokens_get_their_own_answers(platform: AttackedPlatform) -> None:
    """Answers that are given at once must not overtake, or be mixed up with, those that take a moment."""
    forge = platform.forge()
    good, bad, other = forge.token(), forge.token(exp=forge.now - 1), forge.token(sub="other-subject")
    line = "GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n"
    tokens = [good, good, good, bad, other, other, good, bad, other, good] * 20
    sent = "".join(line.format(token) for token in tokens)
    last = line.format(good).replace("Host", "Connection: close\r\nHost")
    answer, _ = raw_exchange(platform.address("tokeninfo"), (sent + last).encode(), seconds=30)
    heads = answer.split(b"HTTP/1.1 ")[1:]
    assert len(heads) == len(tokens) + 1
    for token, head in zip(tokens, heads, strict=False):
        assert head.startswith(b"401" if token == bad else b"200")
        assert token == bad or token.encode() in head


@pytest.mark.parametrize(
    "fields",
    [
        "Authorization: Bearer {bad}\r\nAuthorization: Bearer {good}",
        "Authorization: Bearer {good}\r\nauthorization: Bearer {good}",
        "Authorization: Bearer {good}\r\nContent-Length: 5",
        "Authorization: Bearer {good}\r\nExpect: 100-continue\r\nContent-Length: 5",
        "Authorization: Bearer {good}\r\nUpgrade: h2c\r\nConnection: upgrade",
        "Authorization: Bearer {good}, Bearer {good}",
    ],
)
def test_odd_requests_with_a_good_token_never_break_the_connection_of_the_next(platform, fields) -> None:
    forge = platform.forge()
    good, bad = forge.token(), forge.token(exp=forge.now - 1)
    head = "GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\n" + fields.format(good=good, bad=bad) + "\r\n\r\n"
    following = (
        f"GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {good}\r\nConnection: close\r\n\r\n"
    )
    body = "a=b&c" if "Content-Length" in fields else ""
    # Twice, so that the token is known from before, and is answered the quick way where that is allowed.
    for _ in range(3):
        answer, _ = raw_exchange(platform.address("tokeninfo"), (head + body + following).encode())
        found = [status for status in statuses(answer) if status != "100"]
        assert found[0] in {"200", "400", "401", "417"}, answer
        if "uthorization: Bearer {good}\r\nauth" in fields or "{bad}" in fields:
            assert found[0] == "400"
        assert len(found) <= 2


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "//evil.example/oauth2/tokeninfo",
        "http://evil.example/healthz",
        "/%",
        "/%zz",
        "/../../etc/passwd",
        "/\xff",
        "/healthz;x=1",
        "/healthz%2f..",
        "/oauth2%2ftokeninfo",
        "http://[::1",
        "http://x:99999/",
        "/?%",
        "?",
        "#",
    ],
)
@pytest.mark.parametrize("service", SERVICES)
def test_an_odd_target_is_no_fault_of_ours(platform: AttackedPlatform, service: str, target: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        request = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        answer, _ = raw_exchange(platform.address(service), request.encode("latin-1"))
        assert statuses(answer)[0][0] in "24", answer


@pytest.mark.parametrize("service", SERVICES)
def test_the_host_field_is_not_believed(platform: AttackedPlatform, service: str) -> None:
    """Metadata, keys and lists say what is configured, whatever Host and the X-Forwarded fields say."""
    paths = {"issuer": ["/.well-known/openid-configuration"], "tokeninfo": [], "revocation": ["/revocations/snapshot"]}
    for path in [*paths[service], "/openapi.json"]:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n"
            "Forwarded: host=evil.example\r\n"
            "X-Forwarded-Proto: gopher\r\nX-Forwarded-For: 10.1.2.3\r\nConnection: close\r\n\r\n"
        )
        answer, _ = raw_exchange(platform.address(service), request.encode())
        assert statuses(answer) == ["200"]
        assert b"evil.example" not in answer


def test_a_reader_that_does_not_read_is_given_up(platform: AttackedPlatform) -> None:
    """A list is large, and a reader that takes its connection and nothing else must not be kept for ever."""
    # The kernel's buffers take a small answer, so many are asked for on one connection.
    with contextlib.closing(socket.socket()) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(platform.address("revocation"))
        wire.settimeout(5)
        sent = 0
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        before = platform.resident_bytes("revocation")
        stop = threading.Event()
        with contextlib.suppress(OSError):
            while sent < 20_000_000 and not stop.is_set():
                wire.sendall(request * 100)
                sent += 100 * len(request)
        assert platform.resident_bytes("revocation") - before < 30 << 20
        assert call("GET", platform.url("revocation", "/healthz")).status == 200
