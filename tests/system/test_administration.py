"""Administration on real processes: what is done to clients, while those clients go on asking for tokens."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import free_port

pytestmark = pytest.mark.processes

TOKENRY = Path(sys.executable).with_name("tokenry")
REFRESH = "1s"


class Administered(Deployment):
    """A deployment with administration, whose demo client gets its secret from a file."""

    def __init__(self, folder, processes):
        super().__init__(folder, processes)
        self.use_folder()
        self.use_sqlite()
        self.applications = folder / "applications"
        self.client_file = self.applications / "demo" / "client.json"
        self.client_file.parent.mkdir(parents=True)
        self.client_file.write_text(json.dumps(self.identities.client))
        self.admin_url = f"http://127.0.0.1:{free_port()}"
        admin = self.stored("admin")
        scopes = sorted({*json.loads(admin.read_bytes())["scopes"], "registry.admin"})
        admin.write_text(json.dumps({**json.loads(admin.read_bytes()), "scopes": scopes, "default_scopes": scopes}))
        self._extra["issuer"]["TOKENRY_CREDENTIALS_REFRESH_INTERVAL"] = REFRESH
        self.registry = {
            "TOKENRY_CREDENTIALS_URL": self._folder.credentials.as_uri() + "/",
            "TOKENRY_APPLICATION_FILES": self.applications.as_uri() + "/",
            "TOKENRY_ISSUER_METRICS_URLS": self._urls["issuer"],
            "TOKENRY_ISSUER": self._urls["issuer"],
            "TOKENRY_ENVIRONMENT": "dev",
        }

    def stored(self, client):
        return self._folder.credentials / "realms" / "services" / "clients" / f"{client}.json"

    def start_admin(self):
        process = self._processes.start(
            "admin",
            [TOKENRY, "serve", "admin"],
            env={
                **self.registry,
                "TOKENRY_ENVELOPE_KEY_FILE": str(self._folder.envelope_key),
                "TOKENRY_LISTEN_ADDRESS": self.admin_url.removeprefix("http://"),
                "TOKENRY_REVOCATION_URL": self._urls["revocation"],
                "TOKENRY_DRAIN_SECONDS": "0",
            },
        )
        process.wait_until_http(f"{self.admin_url}/readyz", seconds=60)
        return process

    def ask(self, method, path, **more):
        return call(method, f"{self.admin_url}{path}", bearer=self.admin_token(), seconds=120, **more)

    def command(self, *words):
        environment = {
            **self.registry,
            "TOKENRY_REVOCATION_URL": self._urls["revocation"],
            "TOKENRY_CLIENT_ID": self.identities.admin["client_id"],
            "TOKENRY_CLIENT_SECRET": self.identities.admin["client_secret"],
            "TOKENRY_REALM": "/services",
        }
        process = self._processes.start("client", [TOKENRY, "client", *words], env=environment)
        return process.wait(seconds=120), process.output()


class Application(threading.Thread):
    """The demo client as it runs elsewhere: reads its file and asks for a token, again and again."""

    def __init__(self, platform):
        super().__init__(daemon=True)
        self.platform = platform
        self.answers = []
        self.tokens = []
        self.secrets = set()
        self._end = threading.Event()

    def run(self):
        while not self._end.is_set():
            credential = json.loads(self.platform.client_file.read_bytes())
            self.secrets.add(credential["client_secret"])
            answer = call(
                "POST",
                self.platform.url("issuer", "/oauth2/token"),
                form={"grant_type": "client_credentials", "realm": "/services"},
                basic=(credential["client_id"], credential["client_secret"]),
            )
            self.answers.append(answer.status)
            if answer.status == 200:
                self.tokens.append(answer.json["access_token"])
            time.sleep(0.02)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join(timeout=30)


@pytest.fixture
def platform(tmp_path, processes):
    return Administered(tmp_path, processes)


def until(condition, *, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_a_secret_is_rotated_over_http_while_its_application_is_never_refused(platform):
    platform.start("issuer", "revocation")
    admin = platform.start_admin()
    with Application(platform) as application:
        until(lambda: len(application.tokens) >= 3, seconds=30, what="the application gets tokens")
        answer = platform.ask("POST", "/clients/services/demo/rotate-secret")
        assert (answer.status, answer.json["step"]) == (200, "overlap"), answer
        until(lambda: len(application.secrets) == 2, seconds=30, what="the application reads its new secret")
        asked = len(application.answers)
        until(lambda: len(application.answers) > asked + 20, seconds=30, what="it goes on")
    assert set(application.answers) == {200}
    secret = json.loads(platform.client_file.read_bytes())["client_secret"]
    assert len(json.loads(platform.stored("demo").read_bytes())["secrets"]) == 2
    assert secret not in answer.body.decode()
    keys = platform.ask("GET", "/keys").json["keys"]
    assert "active" in {key["state"] for key in keys}
    assert secret not in admin.output()
    assert admin.terminate(seconds=30) == 0


def test_a_client_that_is_disabled_with_its_tokens_leaves_no_token_in_the_gap(platform):
    platform.start("issuer", "revocation", "tokeninfo")
    with Application(platform) as application:
        until(lambda: len(application.tokens) >= 3, seconds=30, what="the application gets tokens")
        code, output = platform.command("disable", "services", "demo", "--revoke", "--yes", "--reason", "SEC-481")
        assert code == 0, output
        until(lambda: application.answers[-1] != 200, seconds=30, what="the application gets none")
    assert "every issuer has read it" in output
    assert json.loads(platform.stored("demo").read_bytes())["enabled"] is False
    # every single one that it got, until the last moment, is refused within the bound
    until(
        lambda: all(platform.tokeninfo(token) == 401 for token in application.tokens[-20:]),
        seconds=40,
        what="its last tokens are refused",
    )
    assert {platform.tokeninfo(token) for token in application.tokens} == {401}
