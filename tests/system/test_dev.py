"""`tokenry dev`: ready, reusable, and gone without a trace."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http import call
from tests.support.processes import Processes, http_status
from tests.system.conftest import TOKENRY, Platform, start_dev, until
from tokenry_cli.processes import free_port_base

pytestmark = pytest.mark.processes

# A stand-in with the four options that the printed lines use, for machines without curl.
CURL = """#!{python}
import base64, sys, urllib.request, urllib.error
url, body, headers, arguments = None, [], {{}}, sys.argv[1:]
while arguments:
    word = arguments.pop(0)
    if word == "-s": continue
    if word == "-u":
        pair = base64.b64encode(arguments.pop(0).encode()).decode()
        headers["Authorization"] = "Basic " + pair
    elif word == "-d": body.append(arguments.pop(0))
    elif word == "-H":
        name, _, value = arguments.pop(0).partition(": ")
        headers[name] = value
    else: url = word
request = urllib.request.Request(url, "&".join(body).encode() if body else None, headers)
try: sys.stdout.write(urllib.request.urlopen(request, timeout=10).read().decode())
except urllib.error.HTTPError as error: sys.stdout.write(error.read().decode()); sys.exit(22)
"""


def test_the_ready_file_says_what_a_program_needs(platform: Platform) -> None:
    assert set(platform.ready) == {
        "issuer",
        "tokeninfo",
        "revocation",
        "environment",
        "realm",
        "client",
        "admin",
        "user",
        "salt",
    }
    for person in ("client", "admin"):
        assert set(platform.ready[person]) == {"client_id", "client_secret"}
    assert set(platform.ready["user"]) == {"username", "password"}
    assert platform.ready["realm"] == "/services"
    for service in ("issuer", "tokeninfo", "revocation"):
        assert http_status(platform.url(service, "/readyz")) == 200
        assert http_status(platform.url(service, "/healthz")) == 200


def test_the_console_comes_along_where_it_is_asked_for(processes: Processes, tmp_path: Path) -> None:
    base = free_port_base(5)
    running = processes.start(
        "dev-console", [TOKENRY, "dev", "--console", "--port-base", str(base), "--data", str(tmp_path / "dev")]
    )
    address = f"http://127.0.0.1:{base + 4}"
    running.wait_until(lambda: f"console     {address}" in running.output(), seconds=60)
    assert http_status(f"{address}/readyz") == 200
    assert "Access token of" in call("GET", f"{address}/login").body.decode()
    assert running.terminate(seconds=30) == 0


def test_the_files_with_secrets_are_the_owners_alone(platform: Platform) -> None:
    secret = platform.ready["client"]["client_secret"].encode()
    for path in (file for file in platform.folder.rglob("*") if file.is_file()):
        if secret in path.read_bytes() or path.name == "envelope.key":
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_three_printed_curl_lines_work_as_they_stand(platform: Platform, tmp_path: Path) -> None:
    stand_in = tmp_path / "curl"
    stand_in.write_text(CURL.format(python=sys.executable))
    stand_in.chmod(0o755)
    lines = [line for line in platform.process.output().splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    answers = [
        json.loads(
            subprocess.run(
                ["bash", "-c", line],
                env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
                capture_output=True,
                check=True,
                timeout=30,
            ).stdout
        )
        for line in lines
    ]
    assert answers[0]["token_type"] == "Bearer"
    assert answers[1]["uid"] == platform.ready["client"]["client_id"]
    assert answers[2]["type"] == "TOKEN"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_nothing_left_behind_and_the_next_start_goes_on(
    processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    folder, base = tmp_path / "state", free_port_base(3)
    first = start_dev(processes, folder, port_base=base)
    revoked, kept = first.token(), first.token()
    assert first.revoke({"type": "TOKEN", "data": {"token": revoked}}).status == 201
    children = _children(first.process.pid)
    assert len(children) == 3

    first.process.send_signal(number)
    assert first.process.wait(seconds=30) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not folder.with_suffix(".ready.json").exists()

    second = start_dev(processes, folder, port_base=base)
    assert second.ready == first.ready
    assert second.tokeninfo(kept).status == 200
    # Token info begins with the list that it kept; what it had not heard of before the end it hears of now.
    until(lambda: second.tokeninfo(revoked).status == 401, seconds=31)


def test_its_services_do_not_outlive_it_when_it_is_killed(processes: Processes, tmp_path: Path) -> None:
    running = start_dev(processes, tmp_path / "state")
    children = _children(running.process.pid)
    os.kill(running.process.pid, signal.SIGKILL)
    until(lambda: not any(_alive(child) for child in children), seconds=30)


def test_a_service_that_ends_by_itself_ends_it_and_is_named(processes: Processes, tmp_path: Path) -> None:
    running = start_dev(processes, tmp_path / "state")
    for child in _children(running.process.pid):
        if b"tokenry_tokeninfo" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)
    assert running.process.wait(seconds=30) == 1
    assert "tokeninfo ended by itself with status -9" in running.process.output()


def test_a_folder_or_a_port_in_use_is_a_clear_error(platform: Platform, tmp_path: Path) -> None:
    port = int(platform.ready["issuer"].rpartition(":")[2])
    same_folder = _run("--port-base", str(free_port_base(3)), "--data", str(platform.folder))
    assert (same_folder.returncode, "another tokenry dev uses" in same_folder.stderr) == (2, True)
    same_port = _run("--port-base", str(port - 1), "--data", str(tmp_path / "other"))
    assert (same_port.returncode, f"port {port}" in same_port.stderr) == (2, True)


def test_the_realm_has_to_be_named_where_there_are_two(platform: Platform) -> None:
    answer = call(
        "POST",
        platform.url("issuer", "/oauth2/token"),
        form={"grant_type": "client_credentials"},
        basic=platform.client,
    )
    assert (answer.status, answer.json["error"]) == (400, "missing_realm")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOKENRY, "dev", *arguments], capture_output=True, text=True, timeout=60, check=False)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
