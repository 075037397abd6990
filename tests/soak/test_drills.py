"""
Every drill for real: those of `tokenry dev` by the command, the others on what the repository has beside it.

The reports lie in build/drills.
"""

import json
import signal
import uuid
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cassandra import CassandraCluster
from tests.support.history_process import write_offset
from tests.support.processes import Processes, base_environment
from tests.system.conftest import TOKENRY, start_dev
from tokenry_cli.dev_folder import DevFolder
from tokenry_cli.drill import perform
from tokenry_cli.drill_report import Report
from tokenry_cli.drill_scenarios import PLANS, Scenario
from tokenry_cli.drill_stage import DevStage, Fault, Part
from tokenry_cli.processes import Service, free_port_base

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "build" / "drills"
HOLD = 15.0
BY_COMMAND = [
    Scenario.ISSUER_DOWN,
    Scenario.REVOCATION_DOWN,
    Scenario.S3_DOWN,
    Scenario.SIGNING_KEY_LEAK,
    Scenario.CLIENT_SECRET_LEAK,
    Scenario.STALE_LIST,
]


@pytest.mark.processes
@pytest.mark.parametrize("scenario", BY_COMMAND)
def test_the_drill_goes_as_it_should(processes: Processes, tmp_path: Path, scenario: Scenario) -> None:
    done = processes.start(
        "drill",
        [TOKENRY, "drill", scenario, "--hold", str(HOLD), "--report-folder", str(tmp_path / "drills")],
        env={"TMPDIR": str(tmp_path)},
    )
    status = done.wait(seconds=600)
    for path in (tmp_path / "drills").glob("*"):
        keep(path.name, path.read_text())
    assert status == 0, done.output()
    (path,) = (tmp_path / "drills").glob("*.json")
    report = json.loads(path.read_bytes())
    # What was revoked was seen alive by nobody after the promise; while nothing could arrive, nobody guessed.
    assert report["time_to_contain"] < (31 + 2 if scenario is Scenario.STALE_LIST else 31 + HOLD + 15)


def keep(name: str, text: str) -> None:
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / name).write_text(text)


def keep_report(report: Report) -> None:
    keep(f"{report.name}.md", report.to_markdown())
    keep(f"{report.name}.json", json.dumps(report.to_dict(), indent=2))


def drilled(scenario: Scenario, stage: DevStage) -> Report:
    said: list[str] = []
    report = perform(scenario, PLANS[scenario], stage, hold=HOLD, say=said.append)
    keep_report(report)
    assert report.went_well, "\n".join([*report.findings, *said])
    return report


# --- Cassandra ------------------------------------------------------------------------------------------------------


class OnCassandra(DevStage):
    """A `tokenry dev` on three nodes, of which the last one may be killed."""

    def __init__(self, folder: DevFolder, cluster: CassandraCluster, url: str) -> None:
        super().__init__(folder, port_base=free_port_base(3), settings={"revocation": {"TOKENRY_STORE_URL": url}})
        self.what = "tokenry dev on three nodes of Cassandra"
        self.notes = ("three nodes on one machine; the node is killed by SIGKILL", *self.notes[1:])
        self._node = cluster.nodes[-1]

    def check(self, parts: Collection[Part], *, clocks: bool, registry: bool, keys: bool) -> None:
        super().check(set(parts) - {Part.NODE}, clocks=clocks, registry=registry, keys=keys)

    def take_away(self, part: Part, fault: Fault) -> None:
        assert (part, fault) == (Part.NODE, Fault.DOWN)
        self._node.kill()

    def bring_back(self, part: Part, fault: Fault) -> None:
        assert (part, fault) == (Part.NODE, Fault.DOWN)
        self._node.start()
        self._node.wait_until_ready()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CassandraCluster]:
    nodes = CassandraCluster(tmp_path / "cassandra", nodes=3)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.kill()


@pytest.mark.cassandra
@pytest.mark.cluster
def test_a_lost_node_of_cassandra_loses_nothing(
    cluster: CassandraCluster, processes: Processes, tmp_path: Path
) -> None:
    hosts = ",".join(f"{host}:{cluster.endpoint.port}" for host in cluster.endpoint.contact_points)
    url = f"cassandra://{hosts}/drill_{uuid.uuid4().hex[:8]}"
    folder = DevFolder(tmp_path / "dev")
    with folder.locked():
        made = processes.start(
            "create-schema",
            [TOKENRY, "serve", "revocation", "--create-schema"],
            env=base_environment({
                "TOKENRY_STORE_URL": url,
                "TOKENRY_STORE_REPLICATION": "datacenter1=3",
                "TOKENRY_ISSUER": "http://127.0.0.1:9",
                "TOKENRY_ENVIRONMENT": "dev",
                "TOKENRY_REVOCATION_HASHING_SALT": folder.identities().salt,
            }),
        )  # fmt: skip
        assert made.wait(seconds=180) == 0, made.output()
        with OnCassandra(folder, cluster, url) as stage:
            report = drilled(Scenario.CASSANDRA_NODE_LOSS, stage)
    assert report.measured.time_to_contain is not None
    assert report.measured.time_to_contain < 31


# --- clocks ---------------------------------------------------------------------------------------------------------


class WithClocks(DevStage):
    """A `tokenry dev` whose issuer has a clock of its own."""

    def __init__(self, folder: DevFolder) -> None:
        clock = folder.root / "clock"
        write_offset(clock, 0.0)
        self._clock = clock

        def wrap(service: Service) -> Service:
            if service.name != Part.ISSUER:
                return service
            own = {"DRILL_ROLE": service.name, "DRILL_CLOCK": str(clock), "PYTHONPATH": str(ROOT)}
            return replace(service, module="tests.support.skewed_service", environment={**service.environment, **own})

        super().__init__(folder, port_base=free_port_base(3), wrap=wrap)
        self.what = "tokenry dev whose issuer has a clock of its own"

    def check(self, parts: Collection[Part], *, clocks: bool, registry: bool, keys: bool) -> None:
        super().check(parts, clocks=False, registry=registry, keys=keys)

    def turn_clock(self, part: Part, seconds: float) -> None:
        assert part is Part.ISSUER
        write_offset(self._clock, seconds)


@pytest.mark.processes
def test_an_issuer_whose_clock_is_off_harms_nobody(tmp_path: Path) -> None:
    folder = DevFolder(tmp_path / "dev")
    with folder.locked(), WithClocks(folder) as stage:
        drilled(Scenario.CLOCK_SKEW, stage)


@pytest.mark.processes
@pytest.mark.parametrize("scenario", [Scenario.SIGNING_KEY_LEAK, Scenario.CLIENT_SECRET_LEAK])
def test_a_platform_that_is_named_is_drilled_by_commands_alone(
    processes: Processes, tmp_path: Path, scenario: Scenario
) -> None:
    """With the operator's own rights on the registry of a platform that somebody else runs."""
    running = start_dev(processes, tmp_path / "state")
    folder = DevFolder(tmp_path / "state")
    done = processes.start(
        "drill-by-context",
        [TOKENRY, "drill", scenario, "--context", str(tmp_path / "state.ready.json"), "--yes", "--hold", "3",
         "--report-folder", str(tmp_path / "drills")],
        env={
            "TOKENRY_CREDENTIALS_URL": folder.credentials.as_uri() + "/",
            "TOKENRY_ENVELOPE_KEY_FILE": str(folder.envelope_key),
            "TOKENRY_ISSUER_METRICS_URLS": running.url("issuer", ""),
            "TOKENRY_ENVIRONMENT": "dev",
        },
    )  # fmt: skip
    assert done.wait(seconds=400) == 0, done.output()
    (path,) = (tmp_path / "drills").glob("*.json")
    report = json.loads(path.read_bytes())
    assert report["platform"].startswith("the context ")
    assert report["time_to_contain"] < 31


@pytest.mark.processes
def test_an_interrupted_drill_mends_what_it_had_broken_and_still_reports(processes: Processes, tmp_path: Path) -> None:
    done = processes.start(
        "drill",
        [
            TOKENRY,
            "drill",
            "s3-down",
            "--hold",
            "600",
            "--folder",
            str(tmp_path / "dev"),
            "--report-folder",
            str(tmp_path),
        ],
    )
    credentials = tmp_path / "dev" / "credentials"
    done.wait_until(lambda: "tokens are issued from memory" in done.output(), seconds=120)
    assert not credentials.exists()
    done.send_signal(signal.SIGINT)
    assert done.wait(seconds=60) == 130, done.output()
    assert credentials.is_dir()
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_bytes())
    assert report["findings"][0] == "interrupted"


def test_every_scenario_is_drilled_here() -> None:
    assert {*BY_COMMAND, Scenario.CASSANDRA_NODE_LOSS, Scenario.CLOCK_SKEW} == set(Scenario)
