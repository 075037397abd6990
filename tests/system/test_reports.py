"""Reports of validators where nobody is believed without a token: as in production."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tests.system.conftest import until
from tokenry.serving.audit_chain import Head, record_of, verify

pytestmark = pytest.mark.processes


def test_issuer_and_token_info_report_with_tokens_of_their_own(tmp_path: Path, processes: Processes) -> None:
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    deployment.use_client_for_reports()
    deployment.start()
    admin, token = deployment.admin_token(), deployment.token()
    assert deployment.tokeninfo(token) == 200
    answer = deployment.revoke_token(token, admin=admin)
    assert answer.status == 201
    name = answer.json["id"]

    def validators() -> list[dict[str, Any]]:
        url = deployment.url("revocation", f"/validators?revocation={name}")
        return list(call("GET", url, bearer=admin).json["validators"])

    def enforcing() -> set[str]:
        return {each["name"].partition("-")[0] for each in validators() if each["enforced_at"] is not None}

    until(lambda: enforcing() == {"issuer", "tokeninfo"}, seconds=30, every=0.2)
    assert all(each["verified"] for each in validators())

    for _ in range(3):
        assert deployment.tokeninfo(token) == 401

    def refused() -> dict[str, Any]:
        about = call("GET", deployment.url("revocation", f"/revocations/{name}"), bearer=admin)
        return dict(about.json["refused"])

    until(lambda: refused()["count"] == 3, seconds=60, every=0.5)
    assert (refused()["validators"], refused()["validators_are_more"]) == (1, False)
    assert refused()["last_seconds_ago"] < 60

    # Beside it: what the process has written to its log is the chain that it answers with.
    head = Head.read(call("GET", deployment.url("revocation", "/audit"), bearer=admin).json["head"])
    lines = deployment.output("revocation").splitlines()
    (chain,) = verify([record for line in lines if (record := record_of(line)) is not None], heads=[head])
    assert (chain.first, chain.last) == (1, head.seq)
