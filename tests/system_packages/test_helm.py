"""The chart as helm renders it. Debian has no package of helm: `make test-system` installs a wheel that carries it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
)


def helm(*arguments):
    if not HELM.exists():
        pytest.fail("helm is not here: run make test-system, which installs requirements/helm.txt")
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=120)


def rendered(*values):
    done = helm("template", "rel", str(CHART), "--kube-version", "1.31", *(f"--set={value}" for value in values))
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
        elif kind == "Pod":
            yield f"{kind} {name}", each["spec"]


def test_lint_has_nothing_to_complain_of():
    done = helm("lint", "--strict", str(CHART), *(f"--set={value}" for value in REQUIRED))
    assert done.returncode == 0, done.stdout


def test_each_role_has_all_that_it_needs(objects):
    for role in ("issuer", "tokeninfo", "revocation"):
        kinds = {kind for kind, name in objects if name == f"rel-{role}"}
        wanted = {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"}
        assert wanted <= kinds
    assert ("HorizontalPodAutoscaler", "rel-tokeninfo") in objects
    assert {name for kind, name in objects if kind == "HTTPRoute"} == {"rel-issuer", "rel-revocation"}


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
    assert seen == 5


def test_mounts_and_selectors_lead_somewhere(objects):
    for name, pod in pods(objects):
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        mounts = {
            mount["name"]
            for container in [*pod.get("initContainers", ()), *pod["containers"]]
            for mount in container.get("volumeMounts", ())
        }
        assert mounts == volumes, name
    for role in ("issuer", "tokeninfo", "revocation"):
        labels = objects["Deployment", f"rel-{role}"]["spec"]["template"]["metadata"]["labels"]
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"):
            spec = objects[kind, f"rel-{role}"]["spec"]
            selector = spec.get("podSelector") or spec["selector"]
            selector = selector.get("matchLabels", selector)
            assert selector.items() <= labels.items(), (kind, role)


def test_only_the_issuer_holds_the_envelope_key_and_only_it_reaches_s3(objects):
    for role in ("issuer", "tokeninfo", "revocation"):
        text = str(objects["Deployment", f"rel-{role}"])
        assert ("tokenry-envelope" in text) == (role == "issuer")
        assert ("hashing-salt" in text) == (role == "revocation")
        egress = objects["NetworkPolicy", f"rel-{role}"]["spec"]["egress"]
        ports = {port["port"] for rule in egress for port in rule["ports"]}
        assert (9042 in ports) == (role == "revocation")


def test_liveness_asks_for_nothing_but_the_process(objects):
    for role in ("issuer", "tokeninfo", "revocation"):
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
