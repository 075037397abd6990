"""Keys in a key management service, with processes: made by the command, used by issuers, away and back."""

import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from tests.services.issuer.support import SECRET
from tests.support.http import call
from tests.support.processes import base_environment, free_port
from tokenry_registry import bootstrap

pytestmark = pytest.mark.processes

TOKENRY = Path(sys.executable).with_name("tokenry")


def test_F34_tokens_are_signed_elsewhere_and_an_outage_there_is_told_and_over_by_itself(processes, tmp_path, s3_server):
    root, now = tmp_path / "credentials", int(time.time())
    bootstrap.create_envelope_key(tmp_path / "envelope.key")
    bootstrap.write_realm(root, "services", environment="test")
    bootstrap.write_client(root, "services", "orders", hashes=[bootstrap.hash_secret(SECRET)], created_at=now)
    kms = {
        **s3_server.environment,
        "TOKENRY_CREDENTIALS_URL": root.as_uri() + "/",
        "TOKENRY_ENVELOPE_KEY_FILE": str(tmp_path / "envelope.key"),
        "TOKENRY_KMS_ENDPOINT_URL": s3_server.endpoint_url,
        "TOKENRY_KMS_REGION": s3_server.region,
    }
    made = subprocess.run(
        [TOKENRY, "keys", "rotate", "--if-due"],
        env=base_environment(kms | {"TOKENRY_KEY_CUSTODY": "kms"}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert ['"sealed"' in path.read_text() for path in (root / "keys").iterdir()] == [False, False]

    def start():
        url = f"http://127.0.0.1:{free_port()}"
        own = {
            "TOKENRY_ISSUER": url,
            "TOKENRY_LISTEN_ADDRESS": url.removeprefix("http://"),
            "TOKENRY_ENVIRONMENT": "test",
            "TOKENRY_DRAIN_SECONDS": "0",
        }
        return url, processes.start_module("tokenry_issuer", env=kms | own)

    def token(url):
        form = {"grant_type": "client_credentials"}
        return call("POST", f"{url}/oauth2/token", form=form, basic=("orders", SECRET))

    def why(url):
        return call("GET", f"{url}/readyz?verbose").body.decode()

    running, process = start()
    process.wait_until_http(f"{running}/readyz")
    answer, keys = token(running).json["access_token"], call("GET", f"{running}/.well-known/jwks.json").json["keys"]
    jwk = next(key for key in keys if key["kid"] == jwt.get_unverified_header(answer)["kid"])
    assert jwt.decode(answer, jwt.PyJWK(jwk), algorithms=["ES256"], audience=running)["sub"] == "orders"

    s3_server.pause()
    try:
        refused = token(running)
        assert (refused.status, refused.json["error"]) == (503, "temporarily_unavailable")
        assert {name.lower() for name in refused.headers} >= {"retry-after"}, refused
        assert call("GET", f"{running}/readyz").status == 503
        assert "the key management service does not sign" in why(running)
        assert call("GET", f"{running}/.well-known/jwks.json").status == 200
        late, late_process = start()
        late_process.wait_until_http(f"{late}/healthz")
        late_process.wait_until(lambda: "key management service" in why(late), seconds=20)
        assert call("GET", f"{late}/readyz").status == 503
    finally:
        s3_server.resume()
    for url, each in ((running, process), (late, late_process)):
        each.wait_until(lambda url=url: call("GET", f"{url}/readyz").status == 200, seconds=30)
        assert token(url).status == 200
