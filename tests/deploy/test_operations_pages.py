"""What the pages for operators tell people to type, typed: against a platform of real processes."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes, base_environment
from tests.system.conftest import until
from tokenry.jose.jws import split

pytestmark = pytest.mark.processes

PAGES = Path(__file__).parents[2] / "docs/operations"
BIN = Path(sys.executable).parent
ENFORCED_SECONDS = 31
CURL = """#!{python}
import sys, urllib.request, urllib.error
url, body, headers, method, arguments = None, None, {{}}, None, sys.argv[1:]
while arguments:
    word = arguments.pop(0)
    if word == "-sS": continue
    elif word == "-d": body = arguments.pop(0).encode()
    elif word == "-X": method = arguments.pop(0)
    elif word == "-H":
        name, _, value = arguments.pop(0).partition(": ")
        headers[name] = value
    else: url = word
try: sys.stdout.write(urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)).read().decode())
except urllib.error.HTTPError as error: sys.stdout.write(error.read().decode())
"""


def blocks(page, heading):
    """The console blocks of one section of *page*, in order."""
    section = (PAGES / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [re.sub(r"(?m)^   ", "", found) for found in re.findall(r"```console\n(.*?)```", section, re.DOTALL)]


class Operator:
    """Somebody at a shell, with the page beside them."""

    def __init__(self, folder, deployment):
        self.folder, self.deployment = folder, deployment
        people = deployment.identities
        (folder / "context.json").write_text(
            json.dumps({
                **{role: deployment.url(role, "") for role in ("issuer", "tokeninfo", "revocation")},
                "realm": "/services",
                "client": people.client,
                "admin": people.admin,
            })
        )  # fmt: skip
        (folder / "bin").mkdir()
        (folder / "bin/curl").write_text(CURL.format(python=sys.executable))
        (folder / "bin/curl").chmod(0o755)
        root = deployment._folder
        self.environ = base_environment({
            "PATH": f"{folder}/bin:{BIN}:{os.environ['PATH']}",
            "TOKENRY_CONTEXT": str(folder / "context.json"),
            "ISSUER": deployment.url("issuer", ""),
            "REVOCATION": deployment.url("revocation", ""),
            "COLUMNS": "300",
            "TOKENRY_ISSUER": deployment.url("issuer", ""),
            "TOKENRY_CREDENTIALS_URL": root.credentials.as_uri() + "/",
            "TOKENRY_ENVELOPE_KEY_FILE": str(root.envelope_key),
        })  # fmt: skip

    def types(self, text, **environ):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("incident")
    processes = Processes(folder / "processes")
    deployment = Deployment(folder, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    deployment.start()
    yield deployment
    processes.end()


@pytest.fixture(scope="module")
def operator(deployment, tmp_path_factory):
    return Operator(tmp_path_factory.mktemp("operator"), deployment)


def kid_of(token):
    return split(token).header["kid"]


def is_dead(deployment, token):
    return deployment.tokeninfo(token) == 401


def asks(deployment):
    form, client = {"grant_type": "client_credentials", "realm": "/services"}, deployment.identities.client
    basic = (client["client_id"], client["client_secret"])
    return call("POST", deployment.url("issuer", "/oauth2/token"), form=form, basic=basic)


def fresh_token(deployment):
    """A token of the demo client, once it gets one: in the seconds of a cut-off they are withheld."""
    until(lambda: asks(deployment).status == 200, seconds=ENFORCED_SECONDS, every=0.2)
    return asks(deployment).json["access_token"]


def test_before_the_machine_is_ready(operator):
    (text,) = blocks("incident.md", "Before")
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("export "))
    assert text.count("export ") == 2
    assert "I may ask for tokens" in operator.types(kept)


def test_a_leaked_token_dies_and_the_next_one_lives(operator, deployment):
    token = deployment.token()
    (operator.folder / "leaked-token.txt").write_text(token)
    (text,) = blocks("incident.md", "A token has leaked")
    operator.types(text)
    until(lambda: is_dead(deployment, token), seconds=ENFORCED_SECONDS)
    assert deployment.tokeninfo(deployment.token()) == 200


def test_a_leaked_client_secret_is_blocked_then_revoked(operator, deployment):
    block, revoke = (text.replace("basket", "demo") for text in blocks("incident.md", "A client secret has leaked"))
    token = deployment.token()
    answer = json.loads(operator.types(block))
    assert answer["type"] == "CLAIM"
    until(lambda: is_dead(deployment, token), seconds=ENFORCED_SECONDS)
    until(lambda: asks(deployment).status != 200, seconds=ENFORCED_SECONDS)

    undone = 'ADMIN=$(tokenry token get --identity admin); curl -sS -X POST -H "Authorization: Bearer $ADMIN" '
    operator.types(f'{undone} "$REVOCATION/revocations/{answer["id"]}/undo"')
    fresh = fresh_token(deployment)
    operator.types(revoke)
    until(lambda: is_dead(deployment, fresh), seconds=ENFORCED_SECONDS)


def test_a_key_is_rotated_from_the_page_alone(operator, deployment):
    (job,), (look,), (rotate,) = (
        blocks("keys.md", heading) for heading in ("Let them change by themselves", "Look", "Rotate by hand")
    )
    assert operator.types(job) == ""
    before = fresh_token(deployment)
    kid = kid_of(before)
    (line,) = [line for line in operator.types(look).splitlines() if line.startswith(kid)]
    assert " Signing " in line
    after = operator.types(rotate)
    (line,) = [line for line in after.splitlines() if line.startswith(kid)]
    assert " Retiring " in line, after
    until(lambda: kid_of(fresh_token(deployment)) != kid, seconds=90)
    assert deployment.tokeninfo(before) == 200
    assert deployment.tokeninfo(fresh_token(deployment)) == 200


def test_a_leaked_signing_key_is_replaced_and_a_standby_is_left(operator, deployment):
    look, revoke, renew = blocks("incident.md", "A signing key has leaked")
    seen = json.loads(operator.types(look.splitlines()[0]))
    assert operator.types(look)
    kid, token = seen["header"]["kid"], fresh_token(deployment)
    assert json.loads(operator.types(revoke, KID=kid))["type"] == "KEY"
    until(lambda: is_dead(deployment, token), seconds=ENFORCED_SECONDS)
    url = deployment.url("issuer", "/.well-known/jwks.json")
    until(lambda: kid not in {key["kid"] for key in call("GET", url).json["keys"]}, seconds=ENFORCED_SECONDS)
    operator.types(renew, KID=kid)
    shown = {line.split()[0]: line for line in operator.types("tokenry keys list --all").splitlines()[1:]}
    assert " Revoked " in shown[kid]
    assert [line for line in shown.values() if " Published " in line and line.endswith("tokens")]
    until(lambda: deployment.tokeninfo(fresh_token(deployment)) == 200, seconds=ENFORCED_SECONDS)


def test_when_nobody_knows_everything_dies_and_everybody_gets_a_new_token(operator, deployment):
    token = fresh_token(deployment)
    (text,) = blocks("incident.md", "You do not know what has leaked")
    assert json.loads(operator.types(text))["type"] == "GLOBAL"
    until(lambda: is_dead(deployment, token), seconds=ENFORCED_SECONDS)
    assert deployment.tokeninfo(fresh_token(deployment)) == 200


def test_whether_it_bites_can_be_seen(operator):
    (text,) = blocks("incident.md", "Does it bite?")
    operator.types(text)


def test_a_backup_brings_back_keys_clients_and_what_was_revoked(tmp_path):
    processes = Processes(tmp_path / "processes")
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    try:
        deployment.start()
        revoked, kept = deployment.token(), deployment.token()
        assert deployment.revoke_token(revoked).status == 201
        root = deployment._folder.root
        (root / "backup").mkdir()
        (text,) = blocks("backup.md", "Folder and SQLite")
        subprocess.run(
            ["bash", "-ec", text.replace("python3", sys.executable)], cwd=root, check=True, timeout=60,
            env=base_environment(),
        )  # fmt: skip
        for service in ("tokeninfo", "issuer", "revocation"):
            deployment.stop(service)
        # The disk is lost.
        shutil.rmtree(root / "credentials")
        for path in [*root.glob("revocations.sqlite*"), root / "envelope.key", *root.glob("state/*")]:
            path.unlink()
        for path in (root / "backup").iterdir():
            shutil.move(path, root / path.name)
        with sqlite3.connect(root / "revocations.sqlite") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        deployment.start()
        assert (deployment.tokeninfo(revoked), deployment.tokeninfo(kept)) == (401, 200)
        assert deployment.tokeninfo(deployment.token()) == 200
    finally:
        processes.end()
