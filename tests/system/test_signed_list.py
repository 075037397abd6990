"""The signed list, end to end on real processes: token info goes on judging, and starts, without the service."""

import json
import time

import pytest

from tests.support.http import call
from tests.support.platform import Deployment

pytestmark = pytest.mark.processes


@pytest.fixture
def platform(tmp_path, processes):
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    deployment.use_signed_list(seconds=1)
    return deployment


def until(condition, *, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_a_validator_starts_and_refuses_revoked_tokens_while_the_revocation_service_is_away(platform):
    platform.start("issuer", "revocation")
    token, admin = platform.token(), platform.admin_token()
    good = platform.token()
    assert platform.revoke_token(token, admin=admin).status == 201
    posted = time.time()

    def is_published():
        answer = call("GET", platform.url("revocation", "/revocations/signed"))
        if answer.status != 200:
            return False
        from tokenry.jose.encoding import parse_json_object
        from tokenry.jose.jws import split

        issue = parse_json_object(split(answer.body.decode(), max_bytes=1 << 20).payload)
        return issue["as_of"] > posted

    until(is_published, seconds=20, what="the list was not published")
    platform.kill("revocation")
    platform.start("tokeninfo")  # returns when it is ready: by the signed list alone
    assert platform.tokeninfo(token) == 401
    answer = call("GET", platform.url("tokeninfo", "/oauth2/tokeninfo"), bearer=good)
    assert answer.status == 200
    stamps = [value for name, value in answer.headers.items() if name.lower() == "tokenry-list"]
    assert "seq=" in stamps[0]


def test_the_metadata_name_the_keys_of_the_list(platform):
    platform.start("issuer")
    metadata = call("GET", platform.url("issuer", "/.well-known/oauth-authorization-server")).json
    keys = json.loads(call("GET", metadata["revocation_list_jwks_uri"]).body)["keys"]
    tokens = json.loads(call("GET", metadata["jwks_uri"]).body)["keys"]
    assert len(keys) == 1
    assert keys[0]["kid"] not in {key["kid"] for key in tokens}
