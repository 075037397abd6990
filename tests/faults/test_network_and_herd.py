"""Certificates that are wrong, and everybody at once (F50, F52 to F54)."""

import contextlib
import datetime as dt
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import argon2
import pytest

from tests.support.certificates import Identity, make_identity
from tests.support.faulted import FaultedPlatform, until
from tests.support.http import Answer, call
from tokenry.http.fetch import Failure, FetchFailed, HttpFetcher, Request
from tokenry.sources.revocations import RevocationSource

pytestmark = pytest.mark.processes

Back = Callable[..., float]
VALIDATORS = 200
CLIENTS = 50
BUSY_SECONDS = 30.0


# --- certificates of what we depend on ------------------------------------------------------------------------


@contextlib.contextmanager
def dependency(contexts: list[ssl.SSLContext]) -> Iterator[str]:
    """Serve 200 with the last of *contexts*, on a new connection for each request; yield the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), contexts[-1].wrap_socket(plain, server_side=True) as wire:
                wire.recv(10_000)
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_F50_a_dependency_with_a_wrong_certificate_is_away_and_is_back_without_a_restart(
    tmp_path: Path, back: Back
) -> None:
    authority, stranger = (make_identity(f"CN={name}", authority=True) for name in ("ours", "another"))
    past = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
    local = ("127.0.0.1",)
    served = {
        "good": make_identity("CN=a", issuer=authority, ip=local),
        "rotated": make_identity("CN=b", issuer=authority, ip=local),
        "wrong name": make_identity("CN=c", issuer=authority, ip=("127.0.0.9",), dns=("other.example",)),
        "expired": make_identity("CN=d", issuer=authority, ip=local, until=past),
        "another authority": make_identity("CN=e", issuer=stranger, ip=local),
        "self-signed": make_identity("CN=f", ip=local),
    }

    def context(identity: Identity) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity.write(tmp_path, "served"))
        return context

    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    fetcher, contexts = HttpFetcher(tls=trusting), [context(served["good"])]
    with dependency(contexts) as url:
        request = Request(url=url, deadline_seconds=5)
        assert fetcher.fetch(request).body == b"ok"
        for name in ("wrong name", "expired", "another authority", "self-signed"):
            contexts.append(context(served[name]))
            with pytest.raises(FetchFailed) as refused:
                fetcher.fetch(request)
            assert refused.value.failure is Failure.TLS, name
        contexts.append(context(served["rotated"]))
        back("F50", lambda: fetcher.fetch(request).body == b"ok")


# --- everybody at once ----------------------------------------------------------------------------------------


def test_F52_two_hundred_validators_that_start_in_one_second_are_ready_and_cost_the_store_nothing(
    platform: FaultedPlatform, back: Back
) -> None:
    def reads() -> float:
        return platform.metric("revocation", "tokenry_store_operation_duration_seconds_count", operation="read")

    def reads_a_second(seconds: float) -> float:
        before, began = reads(), time.monotonic()
        time.sleep(seconds)
        return (reads() - before) / (time.monotonic() - began)

    alone = reads_a_second(2.0)
    assert alone > 0
    url = platform.url("revocation", "")
    sources = [RevocationSource(url, name=f"herd-{number}") for number in range(VALIDATORS)]
    try:
        for source in sources:
            source.start()
        back("F52", lambda: all(source.snapshot() is not None for source in sources), every=0.2)
        assert reads_a_second(2.0) < 1.5 * alone + 1
        revoked = platform.token()
        assert platform.revoke(revoked, admin=platform.admin_token()).status == 201
        until(lambda: platform.tokeninfo(revoked) == 401, seconds=31)
    finally:
        for source in sources:
            source.stop()


def slow_clients(platform: FaultedPlatform) -> list[tuple[str, str]]:
    """Put clients into the bucket whose secret is hashed slowly; return id and secret of each."""
    secret = "a secret that a person has chosen"
    stored = json.loads(platform.read_object(platform.client_key()))
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=24_576, parallelism=1)
    folder = platform.client_key().rpartition("/")[0]
    names = [f"herd-{number}" for number in range(CLIENTS)]
    for name in names:
        document = stored | {"client_id": name, "secrets": [{"hash": hasher.hash(secret), "created_at": 1}]}
        platform.write_object(f"{folder}/{name}.json", json.dumps(document).encode())
    return [(name, secret) for name in names]


def first_token(platform: FaultedPlatform, client: tuple[str, str]) -> Answer:
    form = {"grant_type": "client_credentials", "realm": "/services"}
    return call("POST", platform.url("issuer", "/oauth2/token"), form=form, basic=client, seconds=BUSY_SECONDS)


def test_F53_F54_an_issuer_that_everybody_asks_serves_what_it_can_and_sends_the_rest_away(
    platform: FaultedPlatform, back: Back
) -> None:
    clients = slow_clients(platform)
    capacity = platform.metric("issuer", "tokenry_secret_checks_capacity")
    assert capacity < CLIENTS
    until(lambda: first_token(platform, clients[-1]).status == 200, seconds=30, every=0.5)
    left = dict(clients[:-1])
    retry_after: set[str] = set()
    rounds = []

    def everybody() -> bool:
        with ThreadPoolExecutor(max_workers=len(clients)) as herd:
            answers = list(herd.map(lambda client: (client[0], first_token(platform, client)), list(left.items())))
        statuses = [answer.status for _, answer in answers]
        assert set(statuses) <= {200, 503}, set(statuses)
        rounds.append(statuses)
        for name, answer in answers:
            if answer.status == 200:
                del left[name]
            else:
                retry_after.add(answer.headers["retry-after"])
        return not left

    calm: list[float] = []
    ended = threading.Event()

    def calmly() -> None:
        while not ended.is_set():
            began = time.monotonic()
            assert platform.grant(seconds=BUSY_SECONDS).status == 200  # a fast secret waits for nobody's slow one
            calm.append(time.monotonic() - began)
            ended.wait(0.1)

    with ThreadPoolExecutor(max_workers=1) as beside:
        watched = beside.submit(calmly)
        back("F53", everybody, every=1.0)
        ended.set()
        watched.result()
    assert 503 in rounds[0], "nobody was sent away: the herd was too small to show anything"
    assert 200 in rounds[0]
    assert all(int(seconds) >= 1 for seconds in retry_after)
    assert max(calm) < BUSY_SECONDS / 3
    assert platform.is_ready("issuer")
