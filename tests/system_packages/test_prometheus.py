"""A real Prometheus reads the three running services, evaluates our rules, and an alert fires and ends."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.support.debian import program
from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes, free_port

pytestmark = [pytest.mark.system_packages, pytest.mark.processes]

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
SCRAPE_SECONDS = 2  # a scrape may take as long, and machines that test are busy
# Nothing to see in a young platform without faults, load or an S3: asked all the same, an empty answer is right.
MAY_BE_EMPTY = re.compile(
    r"tokenry_(?:upstream|credentials_rejected|secret_check_duration|revocation_rejected|jwks_rejected)"
    r"|\"5\.\.\"|5xx|error_ratio|revocation_requests_refused|validations_denied|vector\(0\)|job="
)


@pytest.fixture(scope="module")
def promtool():
    return program("promtool", package="prometheus")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules(promtool):
    assert "SUCCESS" in run(promtool, "check", "rules", *sorted((MONITORING / "rules").glob("*.yaml")))


def test_the_alerts_fire_when_they_should_and_only_then(promtool):
    run(promtool, "test", "rules", MONITORING / "rules-tests/alerts.test.yaml")


def test_promtool_accepts_the_configuration_beside_the_compose_file(promtool, tmp_path):
    configuration = (MONITORING / "prometheus.yml").read_text()
    here = configuration.replace("/etc/prometheus/rules", str(MONITORING / "rules"))
    assert here != configuration
    (tmp_path / "prometheus.yml").write_text(here)
    assert "SUCCESS" in run(promtool, "check", "config", tmp_path / "prometheus.yml")


class Prometheus:
    def __init__(self, url):
        self.url = url

    def get(self, path):
        answer = call("GET", self.url + path)
        assert answer.status == 200, (path, answer.body)
        return answer.json["data"]

    def query(self, expression):
        answer = call("GET", f"{self.url}/api/v1/query?query={quote(expression)}")
        assert answer.status == 200, (expression, answer.body)
        assert answer.json.get("warnings") is None
        return answer.json["data"]["result"]

    def firing(self):
        alerts = self.get("/api/v1/alerts")["alerts"]
        return {(alert["labels"]["alertname"], alert["labels"].get("instance")) for alert in alerts
                if alert["state"] == "firing"}  # fmt: skip

    def wait(self, holds, *, seconds):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.get("/api/v1/alerts")
            time.sleep(0.2)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment")
    processes = Processes(folder / "processes")
    deployment = Deployment(folder, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    deployment.start()
    yield deployment
    processes.end()


@pytest.fixture(scope="module")
def prometheus(deployment, tmp_path_factory):
    """A Prometheus with our rules, in which minutes take four seconds."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(MONITORING / "rules", folder / "rules")
    alerts = folder / "rules/alerts.yaml"
    faster = re.sub(r"(?m)^(\s+for: )\d+m$", r"\g<1>4s", alerts.read_text())
    alerts.write_text(
        faster.replace("tokenry_revocation_list_age_seconds > 90", "tokenry_revocation_list_age_seconds > 33")
    )
    recording = folder / "rules/recording.yaml"
    recording.write_text(recording.read_text().replace("interval: 30s", "interval: 1s"))
    jobs = [
        {
            "job_name": f"tokenry-{name}",
            "static_configs": [{"targets": [deployment.url(name, "").removeprefix("http://")]}],
        }
        for name in ("issuer", "tokeninfo", "revocation")
    ]
    configuration = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules/*.yaml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    processes = Processes(folder / "processes")
    processes.start(
        "prometheus",
        [
            program("prometheus", package="prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        ready_url=f"http://127.0.0.1:{port}/-/ready",
        seconds=60,
    )
    yield Prometheus(f"http://127.0.0.1:{port}")
    processes.end()


@pytest.fixture(scope="module")
def busy(deployment, prometheus):
    """The platform after every kind of request was made, and read three times by Prometheus."""
    admin = deployment.admin_token()
    for _ in range(3):
        token = deployment.token()
        assert deployment.tokeninfo(token) == 200
        assert deployment.tokeninfo(token + "x") == 401
        assert deployment.revoke_token(token, admin=admin).status == 201
        prometheus.wait(lambda: deployment.tokeninfo(token) == 401, seconds=31)  # noqa: B023 -- called at once
        basic = ("demo", "wrong")
        form = {"grant_type": "client_credentials", "realm": "/services"}
        assert call("POST", deployment.url("issuer", "/oauth2/token"), form=form, basic=basic).status == 401
        assert call("POST", deployment.url("revocation", "/revocations"), document={}).status == 401
        time.sleep(2 * SCRAPE_SECONDS)
    prometheus.wait(lambda: prometheus.query("tokenry:token_requests:rate5m"), seconds=20)
    return prometheus


def test_prometheus_reads_all_three_services_without_a_fault(busy):
    targets = busy.get("/api/v1/targets")["activeTargets"]
    assert {(target["labels"]["job"], target["health"], target["lastError"]) for target in targets} == {
        (f"tokenry-{name}", "up", "") for name in ("issuer", "tokeninfo", "revocation")
    }
    rules = [rule for group in busy.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    written = [yaml.safe_load(path.read_text())["groups"] for path in (MONITORING / "rules").glob("*.yaml")]
    assert len(rules) == sum(len(group["rules"]) for groups in written for group in groups)


def expressions():
    for path in sorted((MONITORING / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"].replace("$__rate_interval", "5m")


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_runs_and_a_panel_shows_something(busy, where, expression):
    result = busy.query(expression)
    if ": " in where and not MAY_BE_EMPTY.search(expression):
        assert result, "a panel that stays empty on a busy platform has a wrong label"


def test_nothing_fires_while_all_is_well(busy):
    assert {name for name, _ in busy.firing()} <= {"DeniedSpike"}  # the wrong tokens of this test itself


def test_an_outage_fires_the_alerts_that_are_meant_for_it_and_its_end_ends_them(deployment, busy):
    instances = {name: deployment.url(name, "").removeprefix("http://") for name in ("revocation", "tokeninfo")}
    deployment.kill("revocation")
    busy.wait(lambda: ("ServiceDown", instances["revocation"]) in busy.firing(), seconds=30)
    busy.wait(lambda: ("RevocationListStale", instances["tokeninfo"]) in busy.firing(), seconds=60)
    deployment.start("revocation")
    busy.wait(lambda: not {name for name, _ in busy.firing()} & {"ServiceDown", "RevocationListStale"}, seconds=60)
