"""
The chart without Kubernetes: values fit their schema, templates use what is there, and what containers run works.

Rendering needs helm: tests/system_packages/test_helm.py does it where helm is installed.
"""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.support.documentation import SETTINGS
from tests.support.platform import SERVICES, Deployment
from tests.support.processes import Processes, base_environment
from tokenry.serving.settings import describe

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
TEMPLATES = {path.name: path.read_text() for path in CHART.rglob("templates/**/*") if path.is_file()}
SETTINGS_OF_ALL = {setting.name for settings in SETTINGS.values() for setting in describe(settings)}


def changed(path, value):
    values = copy.deepcopy(VALUES)
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place[name]
    place[last] = value
    return values


def test_the_defaults_fit_the_schema():
    Draft7Validator.check_schema(SCHEMA.schema)
    assert list(SCHEMA.iter_errors(VALUES)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("issuerUrl", "http://issuer.example.org"),
        ("issuer.replica", 3),
        ("issuer.replicas", "3"),
        ("issuer.credentialsUrl", "file:///here/"),
        ("issuer.credentialsUrl", "s3://bucket/no-slash-at-the-end"),
        ("revocation.storeUrl", "sqlite:///one-replica-only.db"),
        ("revocation.storeReplication", ["eu-central"]),
        ("trustedProxies", []),
        ("image.digest", "latest"),
        ("monitoring.runbookBaseUrl", "https://wiki.example.org/runbooks/"),
        ("tokeninfo.extraEnv", {"tokenry-leeway": "5"}),
        ("unknown", True),
        ("admin.applicationFiles", ["s3://bucket"]),
        ("console.replicas", 2),
        ("console.metricsUrls", ["tokenry-issuer:9100"]),
        ("keyRotation.schedule", "hourly"),
    ],
)
def test_the_schema_refuses_what_would_go_wrong_later(path, value):
    assert list(SCHEMA.iter_errors(changed(path, value)))


def test_templates_use_only_values_that_there_are():
    used = {name for text in TEMPLATES.values() for name in re.findall(r"\.Values((?:\.\w+)+)", text)}
    assert len(used) > 20
    for name in used:
        place = VALUES
        for part in name.lstrip(".").split("."):
            assert part in place, name
            place = place[part]


def test_every_value_has_a_type_in_the_schema_and_every_schema_entry_a_default():
    def pairs(values, schema, path=""):
        for name, inner in schema.get("properties", {}).items():
            if path + name == "global":
                continue
            if inner.get("type") == "object" and "properties" in inner:
                yield from pairs(values.get(name, {}), inner, f"{path}{name}.")
            elif not path.endswith(("issuer.", "revocation.")) or name != "priorityClassName":
                yield f"{path}{name}", name in values

    assert [path for path, there in pairs(VALUES, SCHEMA.schema) if not there] == []


def test_every_environment_name_in_the_templates_is_a_setting():
    named = {name for text in TEMPLATES.values() for name in re.findall(r"\bTOKENRY_[A-Z_]+\b", text)}
    assert len(named) > 12
    assert named - SETTINGS_OF_ALL == set()


def test_the_schema_job_names_the_environment_that_the_services_have():
    """The store keeps that name, and services of another one refuse it."""
    told = "- { name: TOKENRY_ENVIRONMENT, value: {{ .Values.environment | quote }} }"
    assert told in TEMPLATES["schema-job.yaml"]
    assert told in TEMPLATES["_helpers.tpl"]


def test_what_the_chart_ships_is_what_is_tested():
    for name in ("rules", "dashboards"):
        link = CHART / "files" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / "deploy/monitoring" / name
    asked = re.findall(r'"(files/[\w./-]+\.(?:yaml|py))"', "\n".join(TEMPLATES.values()))
    assert len(asked) == 3
    assert all((CHART / name).is_file() for name in asked)


def test_the_chart_carries_the_version_of_the_project():
    project = re.search(r'(?m)^version = "(.+)"$', (ROOT / "pyproject.toml").read_text())[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["appVersion"], chart["version"]) == (project, project)


def test_the_issuer_takes_the_envelope_key_as_a_secret_hands_it_over(tmp_path):
    from tokenry_registry import bootstrap
    from tokenry_registry.envelope import read_envelope_key

    mode = int(re.search(r"envelopeKeySecret }}, defaultMode: (\d+)", TEMPLATES["services.yaml"])[1], 8)
    path = tmp_path / "envelope.key"
    made = bootstrap.create_envelope_key(path)
    path.chmod(mode)
    assert read_envelope_key(path).to_bytes() == made.to_bytes()


def test_the_sidecar_of_the_example_has_settings_that_token_info_takes():
    manifest = yaml.safe_load((ROOT / "deploy/examples/sidecar.yaml").read_text())
    (sidecar,) = manifest["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    environ = {item["name"]: item.get("value", "orders-7d9f") for item in sidecar["env"]}
    SETTINGS["tokeninfo"].from_environment(environ)
    assert set(environ) <= {setting.name for setting in describe(SETTINGS["tokeninfo"])}


@pytest.mark.processes
def test_helm_test_passes_on_a_platform_and_fails_on_a_broken_one(tmp_path):
    processes = Processes(tmp_path / "processes")
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    deployment.start()
    environ = {
        **{f"SMOKE_{role.upper()}": deployment.url(role, "") for role in SERVICES},
        "SMOKE_REALM": "/services",
        "SMOKE_CLIENT_ID": deployment.identities.client["client_id"],
        "SMOKE_CLIENT_SECRET": deployment.identities.client["client_secret"],
    }
    try:
        smoke = (CHART / "files/smoke.py").read_text()

        def run(**changes):
            environment = base_environment({**environ, **changes})
            return subprocess.run(
                [sys.executable, "-c", smoke], env=environment, capture_output=True, text=True, check=False, timeout=60
            )

        done = run()
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("ok  ") == 6
        assert run(SMOKE_CLIENT_SECRET="wrong").returncode == 1
        assert run(SMOKE_TOKENINFO=deployment.url("issuer", "")).returncode == 1
    finally:
        processes.end()
