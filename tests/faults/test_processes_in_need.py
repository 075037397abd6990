"""A process has no disk, no descriptors, no processor, slow callers, or does not run at all (F36 to F44)."""

import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.attacked import Talker
from tests.support.faulted import FaultedPlatform, until
from tests.support.http import call
from tests.support.processes import Process

pytestmark = pytest.mark.processes

Back = Callable[..., float]
FILES = 256
CROWD = 1_000
SLOW = 2_000
SERVICE_FOR_TESTS = Path(__file__).parents[1] / "shared/serving/service_for_tests.py"
_LIMITED = """
import os, resource, sys
limit, value = getattr(resource, sys.argv[1]), int(sys.argv[2])
resource.setrlimit(limit, (value, value))
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextlib.contextmanager
def replica(platform: FaultedPlatform, service: str, name: str, *limit: str | int, **environment: str) -> Iterator[str]:
    """Run one more replica of *service*, under a limit of the kernel's where one is given, until it is not needed."""
    prefix = [sys.executable, "-c", _LIMITED, *map(str, limit)] if limit else []
    started = platform.another(service, name, environment, prefix=prefix)
    started.wait_until_http(platform.url(name, "/readyz"), seconds=60)
    yield name
    started.kill()


def judged(platform: FaultedPlatform, name: str, token: str) -> int:
    return call("GET", platform.url(name, "/oauth2/tokeninfo"), bearer=token).status


def test_F36_a_killed_service_is_ready_again_soon_and_knows_what_it_knew(platform: FaultedPlatform, back: Back) -> None:
    token, good, admin = platform.token(), platform.token(), platform.admin_token()
    assert platform.revoke(token, admin=admin).status == 201
    for service in ("tokeninfo", "revocation"):
        platform.kill(service)
        assert platform.grant().status == 200
        platform.start(service, wait=False)
        back("F36", lambda service=service: platform.is_ready(service))
        assert platform.tokeninfo(token) == 401
    until(lambda: platform.tokeninfo(good) == 200, seconds=31)


def test_F37_without_a_disk_to_write_to_everything_goes_on_and_lost_lines_are_counted(
    platform: FaultedPlatform, tmp_path: Path
) -> None:
    """Every write to a file fails, that of the log and that of the kept list as well."""
    token, revoked, admin = platform.token(), platform.token(), platform.admin_token()
    with replica(
        platform, "tokeninfo", "no-disk", "RLIMIT_FSIZE", 0, TOKENRY_STATE_FOLDER=str(tmp_path / "state")
    ) as name:
        assert judged(platform, name, token) == 200
        assert platform.revoke(revoked, admin=admin).status == 201
        until(lambda: judged(platform, name, revoked) == 401, seconds=31)  # each refusal would be a line of the log
        until(lambda: platform.metric(name, "tokenry_log_lines_dropped") > 0, seconds=10)
        assert judged(platform, name, token) == 200
    with replica(platform, "issuer", "no-disk-issuer", "RLIMIT_FSIZE", 0) as name:
        assert platform.grant(service=name).status == 200


def test_F38_a_crowd_cannot_take_the_descriptors_that_a_service_needs_itself(
    platform: FaultedPlatform, back: Back
) -> None:
    token, revoked, admin = platform.token(), platform.token(), platform.admin_token()
    with replica(platform, "tokeninfo", "few-files", "RLIMIT_NOFILE", FILES) as name, contextlib.ExitStack() as crowd:
        address = ("127.0.0.1", int(platform.url(name, "").rpartition(":")[2]))
        kept = Talker(address)  # a caller that was there before
        assert kept.ask("GET", "/healthz").status == 200
        for _ in range(CROWD):
            wire = crowd.enter_context(contextlib.closing(socket.socket()))
            wire.setblocking(False)
            wire.connect_ex(address)
        refused = "tokenry_http_connections_refused_total"
        # Asked on the connection that was there: nobody gets a new one.
        until(lambda: f"{refused} 0.0" not in kept.ask("GET", "/metrics").body.decode(), seconds=20, every=0.2)
        assert kept.ask("GET", "/oauth2/tokeninfo", headers={"Authorization": f"Bearer {token}"}).status == 200
        assert platform.revoke(revoked, admin=admin).status == 201  # its own connections go on
        asks = {"headers": {"Authorization": f"Bearer {revoked}"}}
        until(lambda: kept.ask("GET", "/oauth2/tokeninfo", **asks).status == 401, seconds=31)
        assert open_files(platform.process(name)) < FILES
        crowd.close()
        back("F38", lambda: judged(platform, name, token) == 200)
        kept.close()


def open_files(process: Process) -> int:
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


def test_F39_two_thousand_slow_callers_are_cut_off_and_disturb_nobody(platform: FaultedPlatform, back: Back) -> None:
    token = platform.token()
    address = ("127.0.0.1", int(platform.url("tokeninfo", "").rpartition(":")[2]))
    before = open_files(platform.process("tokeninfo"))
    malformed = platform.metric("tokeninfo", "tokenry_http_malformed_requests_total")
    alone = slowest(platform, token)
    with contextlib.ExitStack() as stack:
        for number in range(SLOW):
            wire = stack.enter_context(contextlib.closing(socket.create_connection(address, timeout=20)))
            wire.sendall(b"GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\n" if number % 2 else
                         b"POST /oauth2/introspect HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\na")  # fmt: skip
        among = slowest(platform, token)
        assert among < max(2.0, 20 * alone), (alone, among)
        back("F39", lambda: open_files(platform.process("tokeninfo")) < before + 50, every=0.5)
    assert platform.metric("tokeninfo", "tokenry_http_malformed_requests_total") > malformed


def slowest(platform: FaultedPlatform, token: str) -> float:
    """Return the longest of twenty good requests on new connections."""
    longest = 0.0
    for _ in range(20):
        began = time.monotonic()
        assert platform.tokeninfo(token) == 200
        longest = max(longest, time.monotonic() - began)
    return longest


def test_F41_the_service_names_what_holds_its_loop_and_whoever_asks_meanwhile_is_told_not_ready(
    platform: FaultedPlatform,
) -> None:
    """A small service on the same base, with a handler that does not give the loop back."""
    url = platform.url_of_another("held")
    held = platform._processes.start(
        "held",
        [sys.executable, SERVICE_FOR_TESTS],
        env={"TOKENRY_LISTEN_ADDRESS": url.removeprefix("http://"), "TOKENRY_DRAIN_SECONDS": "0"},
        ready_url=f"{url}/readyz",
    )
    holding = threading.Thread(target=lambda: call("GET", f"{url}/hold"))
    holding.start()
    time.sleep(0.3)  # so that the loop is held when the next request comes
    assert call("GET", f"{url}/readyz").status == 503
    holding.join()
    until(lambda: call("GET", f"{url}/readyz").status == 200, seconds=5)
    until(lambda: "the event loop is held" in held.output(), seconds=5)
    line = next(line for line in held.output().splitlines() if "the event loop is held" in line)
    assert "holds_the_loop" in line
    metrics = call("GET", f"{url}/metrics").body.decode()
    assert 'tokenry_event_loop_held_total{by="loop"} 1.0' in metrics
    held.kill()


def test_F42_a_validator_that_did_not_run_for_seconds_goes_on_without_a_storm_of_polls(
    platform: FaultedPlatform, back: Back
) -> None:
    good, revoked, admin = platform.token(), platform.token(), platform.admin_token()
    process = platform.process("tokeninfo")
    process.pause()
    try:
        assert platform.revoke(revoked, admin=admin).status == 201
        time.sleep(5)
    finally:
        woken = time.monotonic()
        process.resume()
    back("F42", lambda: platform.tokeninfo(revoked) == 401)
    assert platform.tokeninfo(good) == 200
    until(lambda: platform.metric("tokeninfo", "tokenry_event_loop_held_total", by="process") > 0, seconds=10)
    time.sleep(max(0.0, woken + 3 - time.monotonic()))
    asked = platform.list_answers.since(woken)
    assert len(asked) <= 3 * 5, asked  # at most four times a second while there are news, a report, and one more


def timed(platform: FaultedPlatform, token: str) -> tuple[int, float]:
    """Return the status of one request, and how many seconds it took."""
    began = time.monotonic()
    status = platform.tokeninfo(token)
    return status, time.monotonic() - began


def test_F44_with_a_tenth_of_a_processor_answers_come_or_are_refused_within_seconds(
    platform: FaultedPlatform, back: Back
) -> None:
    token = platform.token()
    process, ended = platform.process("tokeninfo"), threading.Event()

    def starve() -> None:
        while not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait(0.09)
            process.send_signal(signal.SIGCONT)
            ended.wait(0.01)

    starving = threading.Thread(target=starve)
    starving.start()
    try:
        with ThreadPoolExecutor(max_workers=16) as crowd:
            answers = list(crowd.map(lambda _: timed(platform, token), range(800)))
    finally:
        ended.set()
        starving.join()
        process.resume()
    assert {status for status, _ in answers} <= {200, 503}
    assert max(seconds for _, seconds in answers) < 5
    back("F44", lambda: platform.is_ready("tokeninfo"))
