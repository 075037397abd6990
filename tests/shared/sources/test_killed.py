"""A validator that is killed right when it begins to enforce a revocation enforces it after its restart."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.shared.sources.test_reports import judged
from tokenry.http.fetch import Failure, FetchFailed
from tokenry.sources.revocations import RevocationSource
from tokenry.testing.issuer import FakeIssuer

pytestmark = pytest.mark.processes

# Says "held" when its list is there, and "enforced" the moment that anything is in it; then goes on until it is killed.
VALIDATOR = """
import sys, time
from tokenry.http.fetch import HttpFetcher
from tokenry.sources.revocations import RevocationSource

source = RevocationSource(sys.argv[1], state_folder=sys.argv[2], fetcher=HttpFetcher(allow_plain_http=True), name="v")
source.start()
while source.snapshot() is None:
    time.sleep(0.001)
print("held", flush=True)
known = len(source.snapshot().value)
while len(source.snapshot().value) == known:
    pass
print("enforced", flush=True)
time.sleep(60)
"""


class Away:
    def fetch(self, request):
        raise FetchFailed(Failure.TIMEOUT, "away")

    def cancel(self):
        pass


def enforced_after_a_restart(url, folder, token, now):
    source = RevocationSource(url, state_folder=folder, fetcher=Away(), name="v")
    source._load_once()
    held = source.snapshot()
    source.stop()
    return held is not None and held.value.hits(judged(token), now=now) is not None


def test_kill_9_right_at_the_enforcement_forgets_nothing(tmp_path):
    with FakeIssuer() as issuer:
        url = issuer.serve()
        for turn in range(5):
            token = issuer.token()
            process = subprocess.Popen(
                [sys.executable, "-c", VALIDATOR, url, str(tmp_path)], stdout=subprocess.PIPE, text=True
            )
            try:
                assert process.stdout.readline() == "held\n"
                issuer.revoke(token)
                assert process.stdout.readline() == "enforced\n"
                os.kill(process.pid, signal.SIGKILL)
            finally:
                process.kill()
                process.communicate()
            assert enforced_after_a_restart(url, tmp_path, token, time.time()), f"forgotten in turn {turn}"
