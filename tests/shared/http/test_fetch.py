"""The fetcher against peers that misbehave, on loopback."""

import gzip
import os
import random
import socket
import threading
import time

import pytest

from tokenry.http.fetch import Failure, FetchFailed, Headers, HttpFetcher, Request, check_url

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """A server that plays one scripted action per request; it counts connections and keeps the requests."""

    def __init__(self, *actions):
        self.actions = list(actions)
        self.requests = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.actions:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with wire:
                while self.actions and (request := self.read_request(wire)):
                    self.requests.append(request)
                    if self.play(wire, self.actions.pop(0)) == "close":
                        break

    @staticmethod
    def read_request(wire):
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                chunk = wire.recv(65536)
            except OSError:
                return b""
            if not chunk:
                return b""
            data += chunk
        return data

    @staticmethod
    def play(wire, action):
        try:
            if callable(action):
                return action(wire)
            wire.sendall(action)
        except OSError:
            return "close"
        return None

    def close(self):
        self.actions.clear()
        self.listener.close()


@pytest.fixture
def peer():
    peers = []

    def start(*actions):
        peers.append(Peer(*actions))
        return peers[-1]

    yield start
    for each in peers:
        each.close()


@pytest.fixture
def fetcher():
    fetcher = HttpFetcher()
    yield fetcher
    fetcher.close()


def failure_of(fetcher, request):
    with pytest.raises(FetchFailed) as caught:
        fetcher.fetch(request)
    return caught.value


def test_it_returns_status_headers_and_body_of_any_answer(peer, fetcher):
    server = peer(b"HTTP/1.1 404 Not Found\r\nX-One: a\r\nx-one: b\r\nContent-Length: 3\r\n\r\nabc")
    response = fetcher.fetch(Request(url=server.url + "/path?q=1", headers={"X-Mine": "1"}))
    assert (response.status, response.body, response.headers["X-ONE"]) == (404, b"abc", "a, b")
    assert server.requests[0].startswith(b"GET /path?q=1 HTTP/1.1\r\n")
    assert b"X-Mine: 1\r\n" in server.requests[0]


def test_it_reuses_a_connection(peer, fetcher):
    server = peer(OK, OK, OK)
    for _ in range(3):
        assert fetcher.fetch(Request(url=server.url)).body == b"ok"
    assert server.connections == 1


def test_it_does_not_reuse_a_connection_that_the_server_will_close(peer, fetcher):
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

    def answer_and_close(wire):
        wire.sendall(closing)
        return "close"

    server = peer(answer_and_close, answer_and_close)
    assert [fetcher.fetch(Request(url=server.url)).body for _ in range(2)] == [b"ok", b"ok"]
    assert server.connections == 2


def test_a_stale_connection_is_replaced_once_at_once(peer, fetcher):
    def answer_and_close(wire):
        wire.sendall(OK)
        return "close"

    server = peer(answer_and_close, OK)
    assert fetcher.fetch(Request(url=server.url)).body == b"ok"
    assert fetcher.fetch(Request(url=server.url)).body == b"ok"
    assert server.connections == 2


def test_a_request_that_must_not_be_repeated_is_not(peer, fetcher):
    def answer_and_close(wire):
        wire.sendall(OK)
        return "close"

    server = peer(answer_and_close, OK)
    fetcher.fetch(Request(url=server.url))
    failed = failure_of(fetcher, Request(url=server.url, method="POST", body=b"x", repeatable=False))
    assert failed.failure is Failure.DISCONNECTED


def test_a_new_connection_that_dies_is_not_retried(peer, fetcher):
    server = peer(lambda wire: "close", OK)
    assert failure_of(fetcher, Request(url=server.url)).failure is Failure.DISCONNECTED
    assert len(server.requests) == 1


def test_redirects_are_not_followed(peer, fetcher):
    server = peer(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    assert fetcher.fetch(Request(url=server.url)).status == 302


def test_a_peer_that_says_nothing_is_given_up_at_the_deadline(peer, fetcher):
    hold = threading.Event()
    server = peer(lambda wire: hold.wait(5) and "close")
    begun = time.monotonic()
    failed = failure_of(fetcher, Request(url=server.url, deadline_seconds=0.2))
    hold.set()
    assert failed.failure is Failure.TIMEOUT
    assert time.monotonic() - begun < 1.5


def test_a_peer_that_drips_bytes_is_given_up_at_the_same_deadline(peer, fetcher):
    stop = threading.Event()

    def drip(wire):
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.02):
            wire.sendall(b"x")
        return "close"

    server = peer(drip)
    begun = time.monotonic()
    failed = failure_of(fetcher, Request(url=server.url, deadline_seconds=0.3))
    stop.set()
    assert failed.failure is Failure.TIMEOUT
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 2000,
    ],
    ids=["declared", "chunked", "until it closes"],
)
def test_a_body_above_the_bound_is_refused(peer, fetcher, answer):
    def play(wire):
        wire.sendall(answer)
        return "close"

    server = peer(play)
    assert failure_of(fetcher, Request(url=server.url, max_bytes=100)).failure is Failure.TOO_LARGE


def test_a_body_of_just_the_bound_is_taken(peer, fetcher):
    server = peer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100)
    assert len(fetcher.fetch(Request(url=server.url, max_bytes=100)).body) == 100


def gzipped(body, *, cut=0, extra=b""):
    packed = gzip.compress(body)
    packed = packed[: len(packed) - cut] + extra
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    return head.encode() + packed


def test_a_gzipped_body_is_unpacked(peer, fetcher):
    server = peer(gzipped(b"hello" * 100))
    assert fetcher.fetch(Request(url=server.url)).body == b"hello" * 100
    assert b"Accept-Encoding: gzip\r\n" in server.requests[0]


LONG = random.Random(1).randbytes(200_000)  # noqa: S311 -- the same ones in every run; gzip cannot shorten them


def test_a_gzipped_body_of_several_portions_and_just_the_bound_is_unpacked(peer, fetcher):
    server = peer(gzipped(LONG))
    assert fetcher.fetch(Request(url=server.url, max_bytes=len(LONG))).body == LONG


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (gzipped(b"\0" * 10_000_000), Failure.TOO_LARGE),
        (gzipped(LONG[:100_001]), Failure.TOO_LARGE),
        (gzipped(LONG[:90_000], cut=5), Failure.MALFORMED),
        (gzipped(b"hello", extra=LONG[:90_000]), Failure.MALFORMED),
        (gzipped(b"hello", extra=bytes(65_536 - len(gzip.compress(b"hello"))) + b"more"), Failure.MALFORMED),
        (gzipped(b"hello" * 100, cut=5), Failure.MALFORMED),
        (gzipped(b"hello", extra=b"more"), Failure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", Failure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nxx", Failure.MALFORMED),
    ],
    ids=[
        "bomb",
        "one byte more",
        "cut in the second portion",
        "trailing portions",
        "trailing portion",
        "cut",
        "trailing bytes",
        "not gzip",
        "unasked encoding",
    ],
)
def test_a_bad_encoding_is_refused(peer, fetcher, answer, failure):
    server = peer(answer)
    assert failure_of(fetcher, Request(url=server.url, max_bytes=100_000)).failure is failure


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
    ids=["declared", "chunked"],
)
def test_a_body_that_is_cut_short_is_refused(peer, fetcher, answer):
    def play(wire):
        wire.sendall(answer)
        return "close"

    server = peer(play)
    assert failure_of(fetcher, Request(url=server.url)).failure is Failure.DISCONNECTED


def test_garbage_is_refused_and_not_repeated_in_the_error(peer, fetcher):
    server = peer(lambda wire: wire.sendall(b"secret-garbage\r\n\r\n") or "close")
    failed = failure_of(fetcher, Request(url=server.url + "/p?token=secret-query"))
    assert failed.failure is Failure.MALFORMED
    assert "secret" not in str(failed)
    assert failed.__cause__ is None


def test_nobody_there_is_a_connect_failure(fetcher):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert failure_of(fetcher, Request(url=f"http://127.0.0.1:{port}")).failure is Failure.CONNECT


def test_a_name_that_does_not_exist_is_a_resolve_failure(fetcher):
    failed = failure_of(fetcher, Request(url="https://does-not-exist.invalid/", deadline_seconds=4))
    assert failed.failure is Failure.RESOLVE


def test_cancel_ends_a_held_request_at_once(peer, fetcher):
    arrived, hold = threading.Event(), threading.Event()

    def play(wire):
        arrived.set()
        hold.wait(10)
        return "close"

    server = peer(play)
    failures = []
    thread = threading.Thread(
        target=lambda: failures.append(failure_of(fetcher, Request(url=server.url, deadline_seconds=30)))
    )
    thread.start()
    assert arrived.wait(5)
    begun = time.monotonic()
    fetcher.cancel()
    thread.join(5)
    hold.set()
    assert [failed.failure for failed in failures] == [Failure.CANCELLED]
    assert time.monotonic() - begun < 1


def test_it_works_again_after_a_cancel(peer, fetcher):
    server = peer(OK, OK)
    fetcher.fetch(Request(url=server.url))
    fetcher.cancel()
    assert fetcher.fetch(Request(url=server.url)).body == b"ok"


def test_a_child_process_does_not_share_the_parents_connection(peer, fetcher):
    server = peer(OK, OK, OK)
    fetcher.fetch(Request(url=server.url))
    fetcher.after_fork()
    assert fetcher._idle == {}


def test_tls_is_verified(fetcher, peer):
    server = peer(b"not tls at all\r\n\r\n")
    failed = failure_of(fetcher, Request(url=server.url.replace("http:", "https:"), deadline_seconds=3))
    assert failed.failure in {Failure.TLS, Failure.TIMEOUT, Failure.DISCONNECTED}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "file:///etc/passwd",
        "host/path",
        "https://",
        "https://user:secret@host/",
        "https://host:99999/",
        "https://host/with space",
        "https://host/\r\nX-Injected: 1",
        "https://hóst/",
        "https://host\\@other/",
        "https://[::1",
        "http://issuer.internal/",
        "http://127.0.0.1.evil.example/",
        "https://host/" + "a" * 5000,
    ],
)
def test_a_url_that_we_would_not_fetch_is_refused(fetcher, url):
    failed = failure_of(fetcher, Request(url=url))
    assert failed.failure is Failure.BAD_URL
    assert "secret" not in str(failed)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/", "http://[::1]/", "http://localhost:1/", "https://issuer.internal/a?b=c"]
)
def test_a_good_url_is_taken(url):
    assert check_url(url).geturl() == url


def test_plain_http_over_a_network_must_be_allowed_by_name():
    assert check_url("http://issuer:8080/", allow_plain_http=True).hostname == "issuer"


def test_a_proxy_in_the_environment_is_not_used(peer, fetcher, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert fetcher.fetch(Request(url=peer(OK).url)).body == b"ok"
    assert os.environ["http_proxy"]


def test_a_repr_shows_no_values():
    request = Request(url="https://h/", headers={"Authorization": "Bearer secret"}, body=b"secret")
    assert "secret" not in repr(request)
    assert "secret" not in repr(Headers([("Set-Cookie", "secret")]))
