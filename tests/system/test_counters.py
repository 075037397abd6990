"""Live tokens are counted by the issuer and known to the revocation service, end to end on real processes."""

import time

import pytest

from tests.support.http import call
from tests.support.platform import Deployment

pytestmark = pytest.mark.processes


def test_a_dry_run_tells_how_many_live_tokens_a_rule_would_hit(tmp_path, processes):
    platform = Deployment(tmp_path, processes)
    platform.use_folder()
    platform.use_sqlite()
    platform.start("issuer", "revocation")
    for _ in range(3):
        platform.token()
    admin, client = platform.admin_token(), platform.identities.client["client_id"]

    def preview():
        rule = {"type": "CLAIM", "data": {"claims": {"client_id": client}}}
        url = platform.url("revocation", "/revocations?dry_run=true")
        return call("POST", url, document=rule, bearer=admin).json

    end = time.monotonic() + 30
    while (told := preview())["live_tokens"] != 3:
        assert time.monotonic() < end, told
        time.sleep(0.5)
    assert (told["clients"], told["all_live_tokens"]) == (1, 4)
    assert told["complete"] is False  # the platform is younger than a token may be old
