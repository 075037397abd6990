"""A platform of real processes for the tests of this folder."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import Answer, call
from tests.support.processes import Process, Processes
from tokenry_cli.processes import free_port_base

TOKENRY = Path(sys.executable).with_name("tokenry")


@dataclass
class Platform:
    """A running `tokenry dev`, and what its ready file says."""

    process: Process
    folder: Path
    ready: dict[str, Any]

    @property
    def client(self) -> tuple[str, str]:
        return self.ready["client"]["client_id"], self.ready["client"]["client_secret"]

    @property
    def admin(self) -> tuple[str, str]:
        return self.ready["admin"]["client_id"], self.ready["admin"]["client_secret"]

    def url(self, service: str, path: str) -> str:
        return f"{self.ready[service]}{path}"

    def grant(self, basic: tuple[str, str], **form: str) -> Answer:
        form = {"grant_type": "client_credentials", "realm": self.ready["realm"], **form}
        return call("POST", self.url("issuer", "/oauth2/token"), form=form, basic=basic)

    def token(self, basic: tuple[str, str] | None = None, **form: str) -> str:
        answer = self.grant(basic or self.client, **form)
        assert answer.status == 200, answer
        return str(answer.json["access_token"])

    def revoke(self, document: dict[str, Any]) -> Answer:
        return call("POST", self.url("revocation", "/revocations"), document=document, bearer=self.token(self.admin))

    def tokeninfo(self, token: str) -> Answer:
        return call("GET", self.url("tokeninfo", "/oauth2/tokeninfo"), bearer=token)


def until(holds: Callable[[], bool], *, seconds: float, every: float = 0.02) -> float:
    """Return how many seconds passed before *holds* was true; fail after *seconds*."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(every)
    return time.monotonic() - started


def start_dev(processes: Processes, folder: Path, *, port_base: int | None = None) -> Platform:
    """Start `tokenry dev` on *folder* and wait for its ready file."""
    ready_file = folder.with_suffix(".ready.json")
    base = port_base or free_port_base(3)
    process = processes.start(
        "dev",
        [TOKENRY, "dev", "--port-base", str(base), "--data", str(folder), "--ready-file", str(ready_file)],
    )
    process.wait_until(ready_file.exists, seconds=60)
    return Platform(process=process, folder=folder, ready=json.loads(ready_file.read_bytes()))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One `tokenry dev` for the tests of a module."""
    folder = tmp_path_factory.mktemp("platform")
    processes = Processes(folder / "processes")
    yield start_dev(processes, folder / "state")
    processes.end()
