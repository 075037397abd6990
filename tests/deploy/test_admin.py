"""`tokenry admin bootstrap` and `tokenry healthcheck`: what containers and operators run before anything else."""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.processes import base_environment, free_port
from tokenry_cli import healthcheck
from tokenry_registry.envelope import read_envelope_key
from tokenry_revocation.list_keys import read_list_key, signing_key

pytestmark = pytest.mark.processes

TOKENRY = Path(sys.executable).with_name("tokenry")


def run(*arguments, **environ):
    return subprocess.run(
        [TOKENRY, *arguments], env=base_environment(environ), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def environ(tmp_path):
    return {
        "TOKENRY_ENVIRONMENT": "dev",
        "TOKENRY_ISSUER": "http://127.0.0.1:9080",
        "TOKENRY_CREDENTIALS_URL": f"file://{tmp_path}/credentials/",
        "TOKENRY_ENVELOPE_KEY_FILE": str(tmp_path / "envelope.key"),
        "TOKENRY_REVOCATION_URL": "http://127.0.0.1:9082",
        "TOKENRY_STORE_URL": f"sqlite:///{tmp_path}/revocations.db",
        "TOKENRY_REVOCATION_HASHING_SALT": "a-salt-of-the-tests-only",
    }


def everything_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.json")}


# --- bootstrap --------------------------------------------------------------------------------------------


def test_a_first_run_makes_all_and_a_second_changes_nothing(environ, tmp_path):
    arguments = ("admin", "bootstrap", "--demo", "--context-file", str(tmp_path / "demo.json"))
    first = run(*arguments, **environ)
    assert first.returncode == 0, first.stderr
    made = everything_in(tmp_path)
    kinds = sorted(name.split("/")[1] for name in made if name.startswith("credentials/"))
    assert kinds == ["keys", "keys", "realms", "realms", "realms"]
    assert (tmp_path / "revocations.db").exists()
    second = run(*arguments, **environ)
    assert second.returncode == 0, second.stderr
    assert everything_in(tmp_path) == made


def test_the_files_with_secrets_are_the_owners_alone(environ, tmp_path):
    assert run("admin", "bootstrap", "--demo", "--context-file", str(tmp_path / "c.json"), **environ).returncode == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in {".json", ".key"}]
    assert len(files) == 7
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_without_demo_nobody_can_get_a_token(environ, tmp_path):
    assert run("admin", "bootstrap", **environ).returncode == 0
    assert not (tmp_path / "credentials/realms").exists()


def test_the_demo_is_refused_in_production(environ, tmp_path):
    done = run("admin", "bootstrap", "--demo", **{**environ, "TOKENRY_ENVIRONMENT": "production"})
    assert (done.returncode, "production" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_all_faults_of_the_settings_are_named_at_once():
    done = run("admin", "bootstrap")
    assert done.returncode == 2
    for name in ("TOKENRY_ISSUER", "TOKENRY_CREDENTIALS_URL", "TOKENRY_ENVELOPE_KEY_FILE"):
        assert name in done.stderr


def test_a_folder_that_cannot_be_written_is_a_clear_error(environ, tmp_path):
    (tmp_path / "credentials").write_text("a file")
    done = run("admin", "bootstrap", **environ)
    assert done.returncode == 1
    assert "running the same again is safe" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_object_that_is_no_key_stops_it(environ, tmp_path):
    (tmp_path / "credentials/keys").mkdir(parents=True)
    (tmp_path / "credentials/keys/odd.json").write_text("{}")
    done = run("admin", "bootstrap", **environ)
    assert (done.returncode, "no signing key" in done.stderr) == (1, True)


def test_the_keys_of_other_roles_are_made_too_each_sealed_with_its_own_envelope_key(environ, tmp_path):
    environ |= {"TOKENRY_LIST_ENVELOPE_KEY_FILE": str(tmp_path / "list.key")}
    done = run("admin", "bootstrap", **environ)
    assert done.returncode == 0, done.stderr
    keys = [json.loads(body) for name, body in everything_in(tmp_path).items() if "/keys/" in name]
    assert sorted(key["use"] for key in keys) == ["list", "list", "token", "token"]
    envelope = read_envelope_key(tmp_path / "list.key")
    opened = [
        read_list_key(json.dumps(key).encode(), kid=key["kid"], envelope=envelope)
        for key in keys
        if key["use"] == "list"
    ]
    assert signing_key([key for key in opened if key], now=time.time()) is not None
    assert run("admin", "bootstrap", **environ).stderr.count("there") >= 2


def test_after_a_revoked_key_a_new_pair_is_made_on_demand(environ, tmp_path):
    assert run("admin", "bootstrap", **environ).returncode == 0
    assert run("admin", "bootstrap", "--new-key", **environ).returncode == 0
    keys = [json.loads(body) for name, body in everything_in(tmp_path).items() if "/keys/" in name]
    assert len(keys) == 4
    assert len({key["kid"] for key in keys}) == 4


# --- healthcheck ------------------------------------------------------------------------------------------


@pytest.fixture
def service():
    """A service that is ready, or not."""
    answers = {"status": 200}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            status = answers["status"] if self.path == "/readyz" else 404
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"ready\n" if status == 200 else b"not ready\n")

        def log_message(self, *_arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], answers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "environ", [{"TOKENRY_LISTEN_ADDRESS": "0.0.0.0:{port}"}, {"TOKENRY_METRICS_LISTEN_ADDRESS": ":{port}"}]
)
def test_healthcheck_says_whether_the_service_beside_it_is_ready(service, capsys, environ):
    port, answers = service
    environ = {name: value.format(port=port) for name, value in environ.items()}
    assert healthcheck.main([], environ) == 0
    answers["status"] = 503
    assert healthcheck.main([], environ) == 1
    assert capsys.readouterr().out == "ready\nnot ready\n"


def test_healthcheck_fails_where_nobody_listens(capsys):
    assert healthcheck.main([f"http://127.0.0.1:{free_port()}/readyz"], {}) == 1
    assert "no answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8080/readyz"),
        ({"TOKENRY_LISTEN_ADDRESS": "[::]:9080"}, "http://127.0.0.1:9080/readyz"),
        ({"TOKENRY_LISTEN_ADDRESS": "[::1]:9080"}, "http://[::1]:9080/readyz"),
        ({"TOKENRY_LISTEN_ADDRESS": ":443", "TOKENRY_TLS_CERTIFICATE_FILE": "c"}, "https://127.0.0.1:443/readyz"),
        (
            {"TOKENRY_TLS_CERTIFICATE_FILE": "c", "TOKENRY_METRICS_LISTEN_ADDRESS": "127.0.0.1:9100"},
            "http://127.0.0.1:9100/readyz",
        ),
        ({"TOKENRY_LISTEN_ADDRESS": "unix:/run/tokenry.sock"}, None),
    ],
)
def test_healthcheck_asks_where_the_service_listens(environ, url):
    assert healthcheck.default_url(environ) == url


@pytest.mark.parametrize("arguments", [["--verbose"], ["a", "b"], ["ftp://here"]])
def test_healthcheck_refuses_what_it_does_not_understand(arguments, capsys):
    assert healthcheck.main(arguments, {}) == 2
    assert capsys.readouterr().err


def test_healthcheck_is_a_command_and_a_module_that_starts_fast(service):
    port, _ = service
    environ = base_environment({"TOKENRY_LISTEN_ADDRESS": f"127.0.0.1:{port}"})
    assert run("healthcheck", TOKENRY_LISTEN_ADDRESS=f"127.0.0.1:{port}").returncode == 0
    code = (
        "import sys, os; from tokenry_cli import healthcheck; status = healthcheck.main([], os.environ);"
        "sys.exit(status or any(name in sys.modules for name in ('typer', 'rich', 'aiohttp', 'cryptography')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False, timeout=30).returncode == 0
    assert os.access(TOKENRY, os.X_OK)
