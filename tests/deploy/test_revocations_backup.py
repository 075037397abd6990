"""A revocation store that is lost, made anew and filled from a backup; and what running validators say to each."""

import re
import time

import pytest

from tests.deploy.test_operations_pages import Operator, blocks
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tokenry.errors import InvalidToken
from tokenry.sources.events import EventKind
from tokenry.testing.clock import FakeClock
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE

pytestmark = pytest.mark.processes


READS = 8  # a broken connection, a cursor of no use, and the snapshot that is refused


class Reader:
    """A validator of the library that reads when it is told to, on a clock that waits for nothing."""

    def __init__(self, deployment: Deployment) -> None:
        self.heard: list[tuple[str, EventKind, str]] = []
        self.clock = FakeClock(time.time())
        self.validator = TokenValidator(
            deployment.url("issuer", ""),
            audience=ANY_AUDIENCE,
            revocations_url=deployment.url("revocation", ""),
            reports=False,
            clock=self.clock,
            on_event=lambda event: self.heard.append((event.source, event.kind, event.reason)),
        )
        for _ in range(2):  # the issuer's metadata, and its keys
            self.validator._keys._poller.step()
        self.read()

    def close(self) -> None:
        self.validator.stop()

    def read(self) -> None:
        """Read once. A read with no news would be held for half a minute, so there has to be some."""
        self.clock.set_wall_clock(time.time())
        pause = self.validator._revocations._poller.step()
        while pause > 0:
            self.clock.advance(pause)
            self.clock.set_wall_clock(time.time())
            pause = self.validator._revocations._poller.step()

    def read_until_refused(self, reason: str) -> None:
        for _ in range(READS):
            if ("revocations", EventKind.REJECTED, reason) in self.heard:
                return
            self.read()
        raise AssertionError(self.heard)

    def accepts(self, *tokens: str) -> list[bool]:
        return [self._accepts(token) for token in tokens]

    def _accepts(self, token: str) -> bool:
        try:
            self.validator.validate(token)
        except InvalidToken:
            return False
        return True


def test_a_lost_store_is_made_anew_and_an_older_one_is_refused(tmp_path):
    processes = Processes(tmp_path / "processes")
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    store = deployment._folder.revocations
    operator = Operator(tmp_path, deployment)
    operator.environ |= {
        "TOKENRY_STORE_URL": f"sqlite:///{store}",
        "TOKENRY_REVOCATION_HASHING_SALT": deployment.identities.salt,
        "TOKENRY_ENVIRONMENT": "dev",
    }
    readers: list[Reader] = []
    try:
        deployment.start("issuer", "revocation")
        revoked, kept, later = deployment.token(), deployment.token(), deployment.token()
        assert deployment.revoke_token(revoked).status == 201
        readers.append(running := Reader(deployment))
        save, restore = blocks("backup.md", "Revocations in one file")
        assert re.search(r"records +1\b", operator.types(save))
        assert (tmp_path / "revocations.ndjson").stat().st_mode & 0o077 == 0
        assert revoked not in (tmp_path / "revocations.ndjson").read_text()
        assert deployment.revoke_token(later).status == 201  # not in the backup
        running.read()
        assert running.accepts(revoked, later, kept) == [False, False, True]

        # The store is lost, and another one is made and filled from the backup.
        another = {"TOKENRY_STORE_URL": f"sqlite:///{store.with_name('another.sqlite')}"}
        assert re.search(r"written +1\b", operator.types(restore, **another))
        deployment.stop("revocation")
        deployment.add_environment("revocation", another)
        deployment.start("revocation")

        # A validator that runs keeps what it knows, and waits for a person's word about the later store.
        running.read_until_refused("epoch")
        assert running.accepts(revoked, later, kept) == [False, False, True]
        # One that starts takes it: what was in the backup is in force, what was not has to be posted again.
        readers.append(started := Reader(deployment))
        assert started.accepts(revoked, later, kept) == [False, True, True]
        assert deployment.revoke_token(later).status == 201
        started.read()
        assert started.accepts(revoked, later, kept) == [False, False, True]

        # Somebody brings the old store back: that is what an attacker would do.
        deployment.stop("revocation")
        deployment.add_environment("revocation", {"TOKENRY_STORE_URL": f"sqlite:///{store}"})
        deployment.start("revocation")
        started.read_until_refused("rollback")
        assert started.accepts(revoked, later, kept) == [False, False, True]
    finally:
        for reader in readers:
            reader.close()
        processes.end()
