"""
The compose file without a container engine: its names are real settings, its mounts are there, and its commands run.

Each service runs as a plain process with exactly the command and environment of the file. What differs is named in
`Translation`: host names, ports and one folder.
"""

import json
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.documentation import SETTINGS
from tests.support.http import call
from tests.support.processes import Processes, base_environment, free_port
from tests.system.conftest import until
from tokenry.serving.settings import describe

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
OURS = ("issuer", "tokeninfo", "revocation", "admin", "console", "init", "keys", "pod")
PORTS = ("9080", "9081", "9082", "9083", "9084")


def known(*roles):
    return {
        name
        for role in roles
        for setting in describe(SETTINGS[role])
        for each in (setting.name, *setting.other_names)
        for name in (each, f"{each}_FILE")
    }


# --- what it says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "roles"),
    [
        ("issuer", ["issuer"]),
        ("tokeninfo", ["tokeninfo"]),
        ("revocation", ["revocation"]),
        ("admin", ["admin"]),
        ("console", ["console"]),
        ("keys", ["admin"]),
        ("init", ["issuer", "revocation"]),
    ],
)
def test_every_environment_name_is_a_setting(service, roles):
    names = {name for name in SERVICES[service]["environment"] if not name.startswith("AWS_")}
    assert names
    assert names - known(*roles) == set()


@pytest.mark.parametrize("service", OURS)
def test_each_container_of_ours_has_no_privileges(service):
    container = SERVICES[service]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in container["security_opt"]


def test_the_issuer_identifier_is_the_same_inside_and_outside():
    identifiers = {SERVICES[role]["environment"]["TOKENRY_ISSUER"] for role in OURS if role not in {"pod", "keys"}}
    assert identifiers == {"http://127.0.0.1:9080"}
    assert SERVICES["pod"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in PORTS]
    assert {SERVICES[role]["network_mode"] for role in OURS if role != "pod"} == {"service:pod"}


def test_what_is_depended_on_exists_and_says_when_it_is_healthy():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)


def test_the_files_that_are_mounted_exist():
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    files = [mount for mount in mounts if mount.startswith("./")]
    assert len(files) == 5
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert {mount for mount in mounts if not mount.startswith("./")} == set(COMPOSE["volumes"])


def test_prometheus_reads_the_ports_that_the_services_listen_on():
    scraped = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    assert targets == {
        f"tokenry-{role}": [SERVICES[role]["environment"]["TOKENRY_LISTEN_ADDRESS"].replace("0.0.0.0", "pod")]
        for role in ("issuer", "tokeninfo", "revocation")
    }


def test_an_image_is_never_taken_as_it_happens_to_be_today():
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert len(images) == 4
    assert [image for image in images if not re.search(r":v?\d", image)] == []


# --- what it does -----------------------------------------------------------------------------------------


@dataclass
class Translation:
    """What stands in for the names that only exist inside the file's network."""

    pairs: dict[str, str]

    def __call__(self, text):
        for old, new in self.pairs.items():
            text = text.replace(old, new)
        return text

    def command(self, service):
        words = SERVICES[service]["command"]
        return [Path(sys.executable).with_name("tokenry"), *map(self, words)]

    def environment(self, service):
        return {name: self(str(value)) for name, value in SERVICES[service]["environment"].items()}


class Up:
    """`docker compose up` as processes."""

    def __init__(self, folder, translation):
        self.folder, self.translation = folder, translation
        self.processes = Processes(folder / "processes")

    def run(self, service):
        return subprocess.run(
            self.translation.command(service),
            env=base_environment(self.translation.environment(service)),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def healthcheck(self, service):
        _, program, *arguments = SERVICES[service]["healthcheck"]["test"]
        assert program == "python"
        environment = base_environment(self.translation.environment(service))
        return subprocess.run([sys.executable, *arguments], env=environment, check=False, timeout=30).returncode

    def start(self, service):
        self.processes.start(
            service, self.translation.command(service), env=self.translation.environment(service)
        ).wait_until(lambda: self.healthcheck(service) == 0, seconds=90, every=0.5)

    def tokenry(self, *arguments, **options):
        return subprocess.run(
            [Path(sys.executable).with_name("tokenry"), *arguments, "--context", self.folder / "demo.json"],
            env=base_environment(), capture_output=True, text=True, timeout=60, check=False, **options,
        )  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory, s3_server, cassandra):
    folder = tmp_path_factory.mktemp("compose")
    ports = {port: str(free_port()) for port in PORTS}
    host = cassandra.contact_points[0]
    translation = Translation(
        {
            "http://s3:5000": s3_server.endpoint_url,
            "s3://credentials/": f"s3://credentials-{uuid.uuid4().hex[:8]}/",
            "cassandra://cassandra:9042/tokenry": f"cassandra://{host}:{cassandra.port}/compose_{uuid.uuid4().hex[:8]}",
            "/var/lib/tokenry": str(folder),
            **{f":{old}": f":{new}" for old, new in ports.items()},
        }
    )
    started = Up(folder, translation)
    yield started
    started.processes.end()


@pytest.mark.processes
@pytest.mark.cassandra
def test_up_gives_a_platform_that_issues_judges_and_revokes(up):
    first = up.run("init")
    assert first.returncode == 0, first.stderr
    assert [line.split()[0] for line in first.stdout.splitlines()][:3] == ["curl", "curl", "tokenry"]
    context = json.loads((up.folder / "demo.json").read_bytes())

    again = up.run("init")
    assert again.returncode == 0, again.stderr
    assert json.loads((up.folder / "demo.json").read_bytes()) == context
    assert "curl" not in again.stdout

    for service in ("issuer", "revocation", "tokeninfo", "console"):
        up.start(service)
    got = up.tokenry("token", "get")
    assert got.returncode == 0, got.stderr
    token = got.stdout.strip()

    # Administration and the job that rotates keys reach the same objects; the console begins with all of them.
    keys = up.run("keys")
    assert (keys.returncode, "nothing is due" in keys.stdout + keys.stderr) == (0, True), keys.stderr
    up.start("admin")
    port = up.translation.pairs[":9083"]
    assert call("GET", f"http://127.0.0.1{port}/clients?realm=services", bearer=token).status == 403
    up.start("console")

    def status():
        return call("GET", f"{context['tokeninfo']}/oauth2/tokeninfo", bearer=token).status

    assert status() == 200
    revoked = up.tokenry("revoke", "token", "--reason", "a test", input=token)
    assert revoked.returncode == 0, revoked.stderr
    until(lambda: status() == 401, seconds=31)
