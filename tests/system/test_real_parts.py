"""The three services as processes, on S3 over HTTP and a real Cassandra; stopped, killed and cut off."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tests.system.conftest import until

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from tests.support.s3 import S3Server

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: "S3Server",
    s3_client: "S3Client",
    cassandra: CassandraEndpoint,
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    processes = Processes(folder / "processes")
    deployment = Deployment(folder, processes)
    deployment.use_s3(s3_server, s3_client)
    deployment.use_cassandra(cassandra)
    deployment.start()
    yield deployment
    processes.end()


def test_the_story_holds_on_s3_and_cassandra(deployment: Deployment) -> None:
    token = deployment.token()
    assert deployment.tokeninfo(token) == 200
    assert deployment.revoke_token(token).status == 201
    until(lambda: deployment.tokeninfo(token) == 401, seconds=31)
    assert deployment.tokeninfo(deployment.token()) == 200


def test_F36_an_acknowledged_revocation_outlives_a_killed_service(deployment: Deployment) -> None:
    token = deployment.token()
    deployment.stop("tokeninfo")  # so that nobody has read the revocation before the kill
    assert deployment.revoke_token(token).status == 201
    deployment.kill("revocation")
    deployment.start("revocation")
    deployment.start("tokeninfo")
    assert deployment.tokeninfo(token) == 401


@pytest.mark.parametrize("service", ["issuer", "tokeninfo", "revocation"])
def test_F35_sigterm_under_load_loses_nothing(deployment: Deployment, service: str) -> None:
    """A balancer in front asks for readiness every 50 ms, and sends nothing where it is gone."""
    outcomes: list[str] = []
    ready, stopping = threading.Event(), threading.Event()
    token, admin = deployment.token(), deployment.admin_token()

    def balance() -> None:
        while not stopping.is_set():
            (ready.set if deployment.is_ready(service) else ready.clear)()
            stopping.wait(0.05)

    def work(number: int) -> None:
        while not stopping.is_set():
            if not ready.wait(0.05):
                continue
            try:
                outcomes.append(str(deployment.ask(service, token=token, admin=admin, number=number)))
            except OSError as error:
                outcomes.append(repr(error))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in (threading.Thread(target=balance), *workers):
        worker.start()
    until(lambda: len(outcomes) > 40, seconds=30)
    status = deployment.stop(service)
    answered = len(outcomes)
    stopping.set()
    for worker in workers:
        worker.join()
    deployment.start(service)
    assert status == 0
    assert answered > 40
    assert set(outcomes) <= {"200", "201"}, set(outcomes)


def test_s3_away_changes_nothing_for_a_running_issuer(deployment: Deployment, s3_server: "S3Server") -> None:
    s3_server.pause()
    try:
        for _ in range(5):
            began = time.monotonic()
            assert deployment.tokeninfo(deployment.token()) == 200
            assert time.monotonic() - began < 5  # nothing waits for S3, whose time-outs are longer than that
    finally:
        s3_server.resume()


def test_F30_the_issuer_away_changes_nothing_for_tokens_in_use(deployment: Deployment) -> None:
    token, revoked = deployment.token(), deployment.token()
    assert deployment.tokeninfo(token) == 200
    admin = deployment.admin_token()
    deployment.kill("issuer")
    try:
        assert deployment.tokeninfo(token) == 200
        assert deployment.revoke_token(revoked, admin=admin).status == 201
        until(lambda: deployment.tokeninfo(revoked) == 401, seconds=31)
    finally:
        deployment.start("issuer")


def test_F24_F25_F55_without_a_list_tokeninfo_says_neither_yes_nor_no(deployment: Deployment) -> None:
    token = deployment.token()
    deployment.kill("revocation")
    try:
        assert deployment.tokeninfo(token) == 200  # the list held is young enough
        until(lambda: deployment.tokeninfo(token) == 503, seconds=deployment.refuse_age + 20, every=0.2)
        answer = call("GET", deployment.url("tokeninfo", "/oauth2/tokeninfo"), bearer=token)
        assert answer.json["error"] == "temporarily_unavailable"
        assert "retry-after" in answer.headers
        assert call("GET", deployment.url("tokeninfo", "/readyz")).status == 503
        assert call("GET", deployment.url("tokeninfo", "/healthz")).status == 200
        forged = token[:-8] + "AAAAAAAA"
        assert deployment.tokeninfo(forged) == 401  # what is wrong stays wrong
    finally:
        deployment.start("revocation")
    until(lambda: deployment.tokeninfo(token) == 200, seconds=60, every=0.2)


def test_a_start_without_its_neighbours_is_not_ready_and_does_not_end(processes: Processes, tmp_path: Path) -> None:
    alone = Deployment(tmp_path, processes)
    alone.use_folder()
    alone.use_sqlite()
    alone.start("tokeninfo", wait=False)
    alone.wait_alive("tokeninfo")
    assert call("GET", alone.url("tokeninfo", "/readyz")).status == 503
    answer = call("GET", alone.url("tokeninfo", "/oauth2/tokeninfo"), bearer="a.b.c")
    assert answer.status in {401, 503}  # never a yes
    alone.start()
    until(lambda: alone.is_ready("tokeninfo"), seconds=60, every=0.1)
    assert alone.tokeninfo(alone.token()) == 200


@pytest.mark.parametrize("service", ["issuer", "tokeninfo", "revocation"])
def test_wrong_settings_stop_the_start_with_every_fault(processes: Processes, tmp_path: Path, service: str) -> None:
    wrong = processes.start(
        service,
        [Deployment.python, "-m", f"tokenry_{service}"],
        env={
            "TOKENRY_LISTEN_ADDRESS": "nowhere",
            "TOKENRY_DRAIN_SECONDS": "soon",
            "TOKENRY_LOG_FORMAT": "xml",
        },
    )
    assert wrong.wait(seconds=30) == 2
    said = wrong.output()
    for name in ("TOKENRY_LISTEN_ADDRESS", "TOKENRY_DRAIN_SECONDS", "TOKENRY_LOG_FORMAT", "TOKENRY_ISSUER"):
        assert name in said, said
    assert "Traceback" not in said
