"""A revocation store that is lost, made anew and filled from a backup; and what running validators say to each."""

import re
import shutil

import pytest

from tests.deploy.test_operations_pages import Operator, blocks
from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tests.system.conftest import until

pytestmark = pytest.mark.processes

HEARD_SECONDS = 60  # a held request that was broken off is asked for again


def refused(deployment: Deployment, reason: str) -> float:
    """How many lists token info has refused for *reason*."""
    text = call("GET", deployment.url("tokeninfo", "/metrics")).body.decode()
    found = re.findall(
        rf'^tokenry_revocation_rejected_total{{[^}}]*reason="{reason}"[^}}]*}} (\S+)$', text, re.MULTILINE
    )
    return sum(map(float, found))


def test_a_lost_store_is_made_anew_and_an_older_one_is_refused(tmp_path):
    processes = Processes(tmp_path / "processes")
    deployment = Deployment(tmp_path, processes)
    deployment.refuse_age = 900.0
    deployment.use_folder()
    deployment.use_sqlite()
    store = deployment._folder.revocations
    operator = Operator(tmp_path, deployment)
    operator.environ |= {
        "TOKENRY_STORE_URL": f"sqlite:///{store}",
        "TOKENRY_REVOCATION_HASHING_SALT": deployment.identities.salt,
        "TOKENRY_ENVIRONMENT": "dev",
    }
    try:
        deployment.start()
        revoked, kept, later = deployment.token(), deployment.token(), deployment.token()
        assert deployment.revoke_token(revoked).status == 201
        save, restore = blocks("backup.md", "Revocations in one file")
        saved = operator.types(save)
        assert "records" in saved
        assert (tmp_path / "revocations.ndjson").stat().st_mode & 0o077 == 0
        assert revoked not in (tmp_path / "revocations.ndjson").read_text()
        assert deployment.revoke_token(later).status == 201  # not in the backup
        until(lambda: deployment.tokeninfo(later) == 401, seconds=HEARD_SECONDS)

        # The disk is lost.
        deployment.stop("revocation")
        old = tmp_path / "old"
        old.mkdir()
        for path in store.parent.glob(f"{store.name}*"):
            shutil.move(path, old / path.name)
        assert re.search(r"written +1\b", operator.types(restore))
        deployment.start("revocation")

        # A validator that runs keeps what it knows, and waits for a person's word about the later store.
        until(lambda: refused(deployment, "epoch") > 0, seconds=HEARD_SECONDS)
        assert [deployment.tokeninfo(token) for token in (revoked, later, kept)] == [401, 401, 200]

        # The person's word: a restart. What was in the backup is in force; what was not has to be posted again.
        deployment.stop("tokeninfo")
        deployment.start("tokeninfo")
        assert [deployment.tokeninfo(token) for token in (revoked, later, kept)] == [401, 200, 200]
        assert deployment.revoke_token(later).status == 201
        until(lambda: deployment.tokeninfo(later) == 401, seconds=HEARD_SECONDS)

        # Somebody brings the old store back: that is what an attacker would do.
        deployment.stop("revocation")
        for path in store.parent.glob(f"{store.name}*"):
            path.unlink()
        for path in old.iterdir():
            shutil.move(path, store.parent / path.name)
        deployment.start("revocation")
        until(lambda: refused(deployment, "rollback") > 0, seconds=HEARD_SECONDS)
        assert [deployment.tokeninfo(token) for token in (revoked, later, kept)] == [401, 401, 200]
    finally:
        processes.end()
