"""The main job end to end over HTTP: mint, validate, revoke, refuse."""

import json
import os
import re
import subprocess
import sys
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import call
from tests.system.conftest import TOKENRY, Platform, until

pytestmark = pytest.mark.processes


def payload(token: str) -> dict[str, Any]:
    segment = token.split(".")[1]
    return json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def test_a_token_is_minted_and_told_about_in_plan_bs_shape(platform: Platform) -> None:
    granted = platform.grant(platform.client, scope="orders.write orders.read").json
    assert granted["scope"] == "orders.read orders.write"
    assert granted["realm"] == "/services"
    answer = platform.tokeninfo(granted["access_token"])
    assert answer.status == 200
    told = answer.json
    assert told["access_token"] == granted["access_token"]
    assert told["uid"] == "demo"
    assert told["realm"] == "/services"
    assert sorted(told["scope"]) == ["orders.read", "orders.write"]
    assert told["orders.read"] is True
    assert told["grant_type"] == "password"
    assert told["token_type"] == "Bearer"
    assert 3590 <= told["expires_in"] <= 3600
    assert re.match(r"as_of=\S+, age=\S+", answer.headers["tokenry-list"])


def test_the_standard_profile_writes_scope_as_a_string_and_plan_bs_as_an_array(platform: Platform) -> None:
    assert payload(platform.token(scope="orders.read"))["scope"] == "orders.read"
    plan_b = platform.token(scope="orders.read", realm="/plan-b")
    assert payload(plan_b)["scope"] == ["orders.read"]
    assert platform.tokeninfo(plan_b).json["realm"] == "/plan-b"


@pytest.mark.parametrize("realm", ["/services", "/plan-b"])
def test_a_service_user_gets_a_token_with_the_password_grant(platform: Platform, realm: str) -> None:
    user = platform.ready["user"]
    token = platform.token(grant_type="password", realm=realm, **user)
    assert platform.tokeninfo(token).json["uid"] == user["username"]


def test_a_revoked_token_is_refused_everywhere_within_the_promise(platform: Platform) -> None:
    token, other = platform.token(), platform.token()
    answer = platform.revoke({"type": "TOKEN", "data": {"token": token}})
    assert answer.status == 201
    acknowledged = time.time()
    assert answer.json["propagated_by"] - acknowledged <= 32  # 31 s, told in whole seconds
    until(lambda: platform.tokeninfo(token).status == 401, seconds=answer.json["propagated_by"] - acknowledged)
    introspected = call(
        "POST", platform.url("tokeninfo", "/oauth2/introspect"), form={"token": token}, basic=platform.admin
    )
    assert introspected.body == b'{"active":false}'
    forwarded = call("GET", platform.url("tokeninfo", "/auth?scope=orders.read"), bearer=token)
    assert forwarded.status == 401
    assert platform.tokeninfo(other).status == 200


def test_a_claim_revocation_hits_older_tokens_and_spares_newer_ones(platform: Platform) -> None:
    user = platform.ready["user"]
    old = platform.token(grant_type="password", **user)
    answer = platform.revoke({"type": "CLAIM", "data": {"claims": {"sub": user["username"]}}})
    assert answer.status == 201
    until(lambda: platform.tokeninfo(old).status == 401, seconds=31)
    assert platform.tokeninfo(platform.token()).status == 200  # another subject

    # Until the cut-off has passed the issuer mints nothing for that subject; a token that it minted before it had heard
    # of the revocation is refused like the old one.
    def served() -> bool:
        answer = platform.grant(platform.client, grant_type="password", **user)
        assert answer.status in {200, 503}, answer
        if answer.status == 503:
            assert "retry-after" in answer.headers
            return False
        return platform.tokeninfo(str(answer.json["access_token"])).status == 200

    until(served, seconds=30)
    assert platform.tokeninfo(old).status == 401


def test_a_client_revokes_its_own_token_and_no_other(platform: Platform) -> None:
    own, other = platform.token(), platform.token(platform.admin)
    url = platform.url("revocation", "/oauth2/revoke")
    foreign = call("POST", url, form={"token": other}, basic=platform.client)
    assert (foreign.status, foreign.json["error"]) == (400, "unauthorized_client")
    assert call("POST", url, form={"token": own}, basic=platform.client).status == 200
    until(lambda: platform.tokeninfo(own).status == 401, seconds=31)
    assert platform.tokeninfo(other).status == 200


def test_the_client_of_plan_b_works_unchanged(platform: Platform, tmp_path: Path) -> None:
    client_id, secret = platform.client
    user = platform.ready["user"]
    (tmp_path / "client.json").write_text(json.dumps({"client_id": client_id, "client_secret": secret}))
    (tmp_path / "user.json").write_text(
        json.dumps({"application_username": user["username"], "application_password": user["password"]})
    )
    script = "import tokens; tokens.manage('t', ['orders.read']); tokens.start(); print(tokens.get('t'))"
    token = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={
            **os.environ,
            "OAUTH2_ACCESS_TOKEN_URL": platform.url("issuer", "/oauth2/access_token?realm=/plan-b"),
            "CREDENTIALS_DIR": str(tmp_path),
        },
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    ).stdout.strip()
    assert platform.tokeninfo(token).json["uid"] == user["username"]


def test_the_command_line_gets_inspects_and_revokes(platform: Platform, tmp_path: Path) -> None:
    context = tmp_path / "context.json"
    context.write_text(json.dumps(platform.ready))

    def tokenry(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TOKENRY, *arguments, "--context", str(context)],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    got = tokenry("token", "get", "--scope", "orders.read")
    assert got.returncode == 0, got.stderr
    token = got.stdout.strip()
    inspected = tokenry("token", "inspect", "-", "-o", "json", stdin=token)
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["verdict"].startswith("valid signature")
    revoked = tokenry("revoke", "token", "-", "--reason", "leak", "--ticket", "SEC-1", stdin=token)
    assert revoked.returncode == 0, revoked.stderr
    until(lambda: platform.tokeninfo(token).status == 401, seconds=31)
    refused = tokenry("revoke", "token", "-", "--identity", "client", stdin=token)
    assert refused.returncode == 4, refused.stderr


def test_no_token_and_no_secret_is_in_any_log_or_metric(platform: Platform) -> None:
    token = platform.token()
    user = platform.ready["user"]
    platform.tokeninfo(token)
    platform.tokeninfo(token[:-4] + "AAAA")
    call("GET", platform.url("tokeninfo", f"/oauth2/tokeninfo?access_token={token}"))
    call("GET", platform.url("tokeninfo", f"/no/such/path/{token}"))
    call("POST", platform.url("issuer", f"/oauth2/token?client_secret={platform.client[1]}"), form={"a": "b"})
    platform.grant(platform.client, grant_type="password", username=user["username"], password=user["password"] + "x")
    platform.revoke({"type": "TOKEN", "data": {"token": token}})
    metrics = b"".join(
        call("GET", platform.url(name, "/metrics")).body for name in ("issuer", "tokeninfo", "revocation")
    )
    logs = b"".join(path.read_bytes() for path in (platform.folder / "logs").iterdir())
    assert b"tokenry_" in metrics
    assert logs
    secrets = [platform.client[1], platform.admin[1], user["password"], platform.ready["salt"]]
    for needle in (*token.split("."), *secrets):
        assert needle.encode() not in logs
        assert needle.encode() not in metrics


def test_the_demo_tells_the_whole_story() -> None:
    told = subprocess.run([TOKENRY, "demo"], capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    seconds = re.search(r"refused \(401\) (\d+\.\d+) s after the answer", told.stdout)
    assert seconds is not None, told.stdout
    assert float(seconds[1]) < 31


def test_the_command_line_waits_until_every_validator_enforces_a_revocation(platform: Platform, tmp_path: Path) -> None:
    context = tmp_path / "context.json"
    context.write_text(json.dumps(platform.ready))

    def tokenry(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(TOKENRY), *words, "--context", str(context)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)

    result = tokenry("revoke", "claim", "sub=somebody", "--wait=40", "-o", "json")
    assert result.returncode == 0, result.stderr
    # the issuer and token info, which have reported the moment themselves
    assert "2 of 2 validators enforce it" in result.stderr, result.stderr
    slowest = float(result.stderr.rsplit("slowest ", 1)[1].split()[1])
    assert slowest < 5, result.stderr  # they hold a request open; a poll would take up to half a minute
    name = json.loads(result.stdout)["id"]
    assert json.loads(tokenry("revoke", "show", name, "-o", "json").stdout)["in_force"] is True
    assert name in tokenry("revoke", "list").stdout
    assert tokenry("revoke", "undo", name, "--reason", "drill").returncode == 0
    assert name not in tokenry("revoke", "list").stdout
    assert tokenry("revoke", "approve", name).returncode == 5
    assert len(json.loads(tokenry("validators", "list", "-o", "json").stdout)["validators"]) == 2
    flown = tokenry("canary", "--flights", "1", "--metrics-port", "0")
    assert flown.returncode == 0, flown.stderr
    assert float(flown.stderr.split("refused after ")[1].split()[0]) < 5
