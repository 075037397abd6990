"""The blocks of the page about clients as code, and of the registry's backup, run in their order by a shell."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tokenry_issuer.registry import assemble
from tokenry_registry import bootstrap
from tokenry_registry.realms import read_key, read_object

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "operations"
BIN = Path(sys.executable).parent


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(tmp_path):
    root = tmp_path / "registry"
    root.mkdir()
    bootstrap.write_realm(root, "services", environment="production", grant_types=["client_credentials", "password"])
    for name in ("web", "gone"):
        bootstrap.write_client(root, "services", name, hashes=[], created_at=1)
    # An issuer that says at each look that it has just read.
    issuer = tmp_path / "issuer.py"
    issuer.write_text(
        "import http.server\n"
        "class Answer(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "        self.wfile.write(b'tokenry_credentials_age_seconds -1.0\\n')\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Answer)\n"
        "print(server.server_address[1], flush=True)\n"
        "server.serve_forever()\n"
    )
    running = subprocess.Popen([sys.executable, issuer], stdout=subprocess.PIPE, text=True)
    port = running.stdout.readline().strip()
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TOKENRY_CREDENTIALS_URL": root.as_uri() + "/",
        "TOKENRY_ENVIRONMENT": "production",
        "TOKENRY_ISSUER_METRICS_URLS": f"http://127.0.0.1:{port}",
    }

    def run(script):
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", script],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    run.folder, run.root = tmp_path, root
    yield run
    running.kill()
    running.wait()
    running.stdout.close()


def in_force(root):
    """What an issuer makes of the registry."""
    values = {}
    for path in root.glob("realms/**/*.json"):
        key = read_key(path.relative_to(root).as_posix())
        values[key] = read_object(key, path.read_bytes(), environment="production", max_token_lifetime=3600)
    return assemble(values)[0].realms["/services"]


def test_the_page_about_clients_runs_from_top_to_bottom(shell):
    page = (PAGES / "clients-as-code.md").read_text()
    (file,) = blocks(page, "yaml")
    (shell.folder / "clients.yaml").write_text(file)
    scripts = blocks(page, "console")
    assert len(scripts) == 6
    said = shell("".join(scripts))
    realm = in_force(shell.root)
    assert set(realm.clients) == {"orders", "web", "basket"}
    assert set(realm.users) == {"robot", "basket-robot"}
    assert "gone" not in realm.clients
    assert realm.clients["web"].enabled
    applications = shell.folder / "applications"
    secret = json.loads((applications / "orders" / "client.json").read_text())["client_secret"]
    assert json.loads((applications / "robot" / "user.json").read_text())["application_username"] == "robot"
    assert secret not in said
    shown = (shell.folder / "secret-of-web").read_text().strip()
    assert bootstrap.hash_secret(shown) in {each.hash.text for each in realm.clients["web"].secrets}
    assert shown not in said


def test_every_member_that_a_file_may_have_is_on_the_page():
    from tokenry_admin.applying import MEMBERS

    page = (PAGES / "clients-as-code.md").read_text()
    for kind, members in MEMBERS.items():
        (row,) = re.findall(rf"^\| `{kind}s` \| (.*) \|$", page, re.MULTILINE)
        assert set(re.findall(r"`([a-z_]+)`", row)) == members | ({"realm"} if kind != "realm" else set())


def test_the_backup_of_the_registry_runs_as_the_page_says(shell):
    page = (PAGES / "backup.md").read_text()
    section = page.split("\n## The registry in one file\n")[1].split("\n## ")[0]
    (script,) = blocks(section, "console")
    shell(script)
    assert (shell.folder / "registry.tar").exists()
