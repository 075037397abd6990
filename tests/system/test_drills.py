"""Two drills for real, in their short forms; all of them are in tests/soak."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Processes
from tests.system.conftest import TOKENRY, start_dev

pytestmark = pytest.mark.processes


def drill(processes: Processes, folder: Path, scenario: str, *words: str) -> dict[str, Any]:
    """Return the report of *scenario*, which went well."""
    done = processes.start(
        "drill",
        [TOKENRY, "drill", scenario, "--report-folder", str(folder / "drills"), *words],
        env={"TMPDIR": str(folder)},
    )
    assert done.wait(seconds=240) == 0, done.output()
    (path,) = (folder / "drills").glob("*.json")
    assert f"# Drill: {scenario}" in path.with_suffix(".md").read_text()
    report: dict[str, Any] = json.loads(path.read_bytes())
    assert report["went_well"], report
    for name in ("wrongly_accepted", "wrongly_refused"):
        assert report[name] == 0
    assert all(validator["asked"] > 20 for validator in report["validators"])
    assert {validator["name"] for validator in report["validators"]} == {"token info", "library"}
    return report


def test_a_leaked_client_secret_is_contained_and_the_client_works_again(processes: Processes, tmp_path: Path) -> None:
    report = drill(processes, tmp_path, "client-secret-leak")
    assert report["time_to_contain"] < 31
    # The drill has seen tokens of the client accepted before it was stopped, and none after.
    assert report["mints"]["refused"] == 0
    assert not list(tmp_path.glob("tokenry-drill-*"))


def test_a_revocation_is_repeated_until_the_service_is_back(processes: Processes, tmp_path: Path) -> None:
    report = drill(processes, tmp_path, "revocation-down", "--hold", "2")
    taken = [step for step in report["steps"] if step["text"].startswith("the same revocation")]
    assert taken[0]["at"] > 2
    assert report["time_to_contain"] > 2
    assert sum(validator["accepted_meanwhile"] for validator in report["validators"]) > 0


def test_a_platform_that_somebody_else_runs_is_given_commands_and_not_broken(
    processes: Processes, tmp_path: Path
) -> None:
    running = start_dev(processes, tmp_path / "state")
    ready = str(tmp_path / "state.ready.json")
    refused = processes.start(
        "by-hand", [TOKENRY, "drill", "issuer-down", "--context", ready, "--yes", "--report-folder", str(tmp_path)]
    )
    # Nobody is at the terminal to switch the issuer off: it is told, and nothing was broken.
    assert refused.wait(seconds=60) == 1, refused.output()
    assert "switch off every issuer" in refused.output()
    assert running.tokeninfo(running.token()).status == 200
