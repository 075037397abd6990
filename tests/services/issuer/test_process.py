"""The issuer as a process of its own, over S3: start, outage, rotation by hand, stop."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.services.issuer.support import PASSWORD, SECRET, weak_argon2
from tests.support.foreign_tokens import foreign_key
from tests.support.http import call
from tests.support.processes import free_port
from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE
from tokenry_registry import bootstrap

pytestmark = pytest.mark.processes

DAY = 86_400
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def folder(tmp_path):
    """Credentials in a folder, as an administrator makes them."""
    root, now = tmp_path / "credentials", int(time.time())
    envelope = bootstrap.create_envelope_key(tmp_path / "envelope.key")
    for offset in (0, 30 * DAY):
        bootstrap.create_signing_key(
            root,
            envelope,
            publish_at=now - DAY,
            activate_at=now - DAY + offset,
            retire_at=now + 60 * DAY,
        )
    both = ("client_credentials", "password")
    bootstrap.write_realm(root, "services", environment="test", grant_types=both)
    bootstrap.write_client(
        root, "services", "orders", hashes=[bootstrap.hash_secret(SECRET)], created_at=now, scopes=["uid"],
        grant_types=both,
    )  # fmt: skip
    bootstrap.write_user(root, "services", "robot", hashes=[weak_argon2(PASSWORD)], created_at=now, scopes=["uid"])
    return root


class Started:
    def __init__(self, processes, folder, credentials_url, environment):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = processes.start_module(
            "tokenry_issuer",
            env={
                "TOKENRY_ISSUER": self.url,
                "TOKENRY_LISTEN_ADDRESS": self.url.removeprefix("http://"),
                "TOKENRY_CREDENTIALS_URL": credentials_url,
                "TOKENRY_ENVELOPE_KEY_FILE": str(folder.parent / "envelope.key"),
                "TOKENRY_ENVIRONMENT": "test",
                "TOKENRY_CREDENTIALS_REFRESH_INTERVAL": "1s",
                "TOKENRY_DRAIN_SECONDS": "0",
                **environment,
            },
        )

    def ready(self):
        self.process.wait_until_http(f"{self.url}/readyz")
        return self

    def token(self, secret=SECRET, **members):
        return call("POST", f"{self.url}/oauth2/token", form=GRANT | members, basic=("orders", secret))

    def eventually(self, condition):
        self.process.wait_until(condition, seconds=20)


def upload(s3_client, bucket, folder):
    for path in folder.rglob("*.json"):
        key = f"live/{path.relative_to(folder).as_posix()}"
        s3_client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def test_it_issues_from_a_folder_and_stops_on_sigterm_with_0(processes, folder):
    issuer = Started(processes, folder, folder.as_uri() + "/", {}).ready()
    assert issuer.token().status == 200
    user = {"grant_type": "password", "username": "robot", "password": PASSWORD}
    assert issuer.token(**user).status == 200
    assert issuer.process.terminate() == 0
    output = issuer.process.output()
    assert SECRET not in output
    assert PASSWORD not in output
    assert "eyJ" not in output


def test_it_issues_from_s3_follows_changes_and_survives_an_outage(processes, folder, s3_server, s3_client, s3_bucket):
    upload(s3_client, s3_bucket, folder)
    issuer = Started(processes, folder, f"s3://{s3_bucket}/live/", dict(s3_server.environment)).ready()
    assert issuer.token().status == 200
    # a rotation: another secret takes effect within a refresh, the old one ends
    new = bootstrap.new_secret()
    bootstrap.write_client(
        folder, "services", "orders", hashes=[bootstrap.hash_secret(new)], created_at=1, scopes=["uid"]
    )
    upload(s3_client, s3_bucket, folder)
    issuer.eventually(lambda: issuer.token().status == 401)
    assert issuer.token(new).status == 200
    # an outage: S3 answers nothing, the issuer goes on
    s3_server.pause()
    try:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            asked = time.monotonic()
            assert issuer.token(new).status == 200
            assert time.monotonic() - asked < 1
            time.sleep(0.2)
    finally:
        s3_server.resume()
    assert issuer.process.terminate() == 0


def test_F09_it_starts_without_its_store_and_is_ready_when_that_is_back(processes, folder):
    missing = folder.with_name("later")
    issuer = Started(processes, folder, missing.as_uri() + "/", {})
    issuer.process.wait_until_http(f"{issuer.url}/healthz")
    issuer.process.wait_until_http(f"{issuer.url}/readyz", status=503)
    assert issuer.token().status == 503
    assert issuer.token().headers.get("Retry-After", issuer.token().headers.get("retry-after"))
    folder.rename(missing)
    issuer.process.wait_until_http(f"{issuer.url}/readyz", seconds=10)
    assert issuer.token().status == 200


def test_F09_with_a_snapshot_it_starts_and_issues_while_s3_is_away(
    processes, folder, tmp_path, s3_server, s3_client, s3_bucket
):
    upload(s3_client, s3_bucket, folder)
    environment = {**s3_server.environment, "TOKENRY_CREDENTIALS_SNAPSHOT_FOLDER": str(tmp_path / "snapshots")}
    first = Started(processes, folder, f"s3://{s3_bucket}/live/", environment).ready()
    assert first.process.terminate() == 0
    nobody = {"TOKENRY_S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    # The snapshot is the issuer's own: another one does not open it.
    second = Started(processes, folder, f"s3://{s3_bucket}/live/", environment | nobody)
    second.process.wait_until_http(f"{second.url}/healthz")
    second.process.wait_until_http(f"{second.url}/readyz", status=503)
    second.process.kill()
    environment |= {"TOKENRY_ISSUER": first.url, "TOKENRY_CREDENTIALS_REFRESH_INTERVAL": "1s"}
    third = Started(processes, folder, f"s3://{s3_bucket}/live/", environment | nobody)
    third.process.wait_until_http(f"{third.url}/readyz", seconds=30)
    assert third.token().status == 200
    checks = call("GET", f"{third.url}/readyz?verbose").json["checks"]
    assert checks["credentials"]["status"] == checks["keys"]["status"] == "degraded"
    assert "from the snapshot" in checks["credentials"]["detail"]
    assert third.process.terminate() == 0


def test_C10_two_processes_with_a_shared_store_let_an_assertion_through_once(
    processes, folder, s3_server, s3_client, s3_bucket
):
    key, now = foreign_key("orders-1"), int(time.time())
    members = {"client_id": "orders", "jwks": key.jwks, "scopes": ["uid"]}
    (folder / "realms/services/clients/orders.json").write_text(json.dumps(members))
    environment = {**s3_server.environment, "TOKENRY_ASSERTION_REPLAY_URL": f"s3://{s3_bucket}/used/"}
    url = f"http://127.0.0.1:{free_port()}"  # both are replicas of one issuer
    environment["TOKENRY_ISSUER"] = url
    started = [Started(processes, folder, folder.as_uri() + "/", environment).ready() for _ in range(2)]

    def present(issuer, jti):
        claims = {"iss": "orders", "sub": "orders", "aud": url, "exp": now + 240, "iat": now, "jti": jti}
        form = GRANT | {"client_assertion_type": CLIENT_ASSERTION_TYPE, "client_assertion": key.sign(claims)}
        return call("POST", f"{issuer.url}/oauth2/token", form=form).status

    assert [present(issuer, "one") for issuer in started] == [200, 401]
    with ThreadPoolExecutor(4) as pool:
        for number in range(3):  # one of both may lose all of them: six failures, which are not limited yet
            statuses = list(pool.map(present, started * 2, [f"at once {number}"] * 4))
            assert sorted(statuses) == [200, 401, 401, 401]
    assert len(s3_client.list_objects_v2(Bucket=s3_bucket, Prefix="used/")["Contents"]) == 4
    s3_server.pause()
    try:
        assert present(started[0], "two") == 503
    finally:
        s3_server.resume()
