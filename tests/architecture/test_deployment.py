"""What cannot be run without a container engine is at least well-formed, and says that it was not run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def test_the_compose_file_fits_the_published_schema() -> None:
    checker = str(Path(sys.executable).with_name("check-jsonschema"))
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_publishes_ports_on_loopback_only() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("role", ["issuer", "tokeninfo", "revocation", "console"])
def test_compose_runs_each_role_without_privileges(role: str) -> None:
    service = yaml.safe_load(COMPOSE.read_text())["services"][role]
    assert service["command"] == ["serve", role]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert users[-1:] == ["65532:65532"]


def test_every_installation_in_the_image_is_checked_or_offline() -> None:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel)\b[^&\n]*", text)
    assert len(installs) == 4
    assert all("--require-hashes" in command or "--no-index" in command for command in installs)


@pytest.mark.parametrize("path", [COMPOSE, DOCKERFILE], ids=lambda path: path.name)
def test_what_was_never_run_says_so(path: Path) -> None:
    assert "NOT RUN" in path.read_text()
