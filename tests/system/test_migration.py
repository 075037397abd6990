"""
The move from Plan B, rehearsed in the order of docs/operations/plan-b.md: no request of anybody is refused on the way.

Plan B is played by a server of ours: its token endpoint, its token info with the model of its list, its keys. Our
three services are real processes. Applications keep their names and secrets, and move one by one.
"""

import base64
import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from tests.services.issuer.support import weak_bcrypt
from tests.support.access_tokens import signed
from tests.support.http import call
from tests.support.planb_tokeninfo import PlanBTokeninfo
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tests.system.conftest import until
from tokenry.http.fetch import Headers, Response
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.testing.server import LoopbackServer
from tokenry_cli.__main__ import app

pytestmark = pytest.mark.processes

APPLICATIONS = ("basket", "orders", "stock")
KID = "plan-b-1"
LIFE = 600


class PlanB:
    """Plan B's provider and one token info, as far as applications and validators see them."""

    def __init__(self, salt):
        self._key = PrivateKey.generate()
        self._model = PlanBTokeninfo(salt=salt)
        self._minted = {}
        self._server = LoopbackServer(self._answer)
        self.url = self._server.url

    def close(self):
        self._server.close()

    def poll(self, revocations_url):
        """Let its token info read the list at *revocations_url*, as it does every few seconds."""
        answer = call("GET", f"{revocations_url}?from={self._model.question(time.time())}")
        assert answer.status == 200
        self._model.take(answer.body, now=time.time())

    def knows_as_revoked(self, token):
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return self._model.refuses(token, claims)

    def key_set(self):
        return self._json(200, {"keys": [self._key.public.to_jwk() | {"kid": KID}]})

    def _answer(self, request):
        path = urlsplit(request.url).path
        if path == "/oauth2/access_token":
            return self._mint(request)
        return self._judge(request.headers.get("Authorization", "").removeprefix("Bearer "))

    def _mint(self, request):
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        basic = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        name = form["username"].removesuffix("-robot")
        if basic != f"{name}:{secret(name)}" or form["password"] != secret(form["username"]):
            return self._json(401, {"error": "invalid_client"})
        now = int(time.time())
        claims = {"iss": self.url, "sub": form["username"], "realm": "/services", "scope": ["uid"], "azp": name,
                  "iat": now, "exp": now + LIFE, "n": len(self._minted)}  # fmt: skip
        token = signed(dump_json({"alg": "ES256", "kid": KID}), dump_json(claims), key=self._key)
        self._minted[token] = claims
        return self._json(
            200, {"access_token": token, "token_type": "Bearer", "expires_in": LIFE, "realm": "/services"}
        )

    def _judge(self, token):
        claims = self._minted.get(token)
        if claims is None or self._model.refuses(token, claims):
            return self._json(401, {"error": "invalid_token"})
        return self._json(200, {"uid": claims["sub"], "realm": claims["realm"], "scope": claims["scope"]})

    def _json(self, status, members):
        return Response(status=status, headers=Headers([("Content-Type", "application/json")]), body=dump_json(members))


def secret(name):
    return f"the-secret-of-{name}-0123456789"


class Application:
    """One application: where it gets its tokens, and all that it still holds."""

    def __init__(self, name, issuer):
        self.name, self.issuer, self.tokens = name, issuer, []

    def renew(self):
        answer = call(
            "POST",
            f"{self.issuer}/oauth2/access_token?realm=/services",
            form={"grant_type": "password", "username": f"{self.name}-robot", "password": secret(f"{self.name}-robot"),
                  "scope": "uid"},
            basic=(self.name, secret(self.name)),
        )  # fmt: skip
        assert answer.status == 200, answer.body
        self.tokens.append(answer.json["access_token"])


@pytest.fixture
def places(tmp_path):
    processes = Processes(tmp_path / "processes")
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    plan_b = PlanB(deployment.identities.salt)
    keys = LoopbackServer(lambda _request: plan_b.key_set())  # a copy of its public keys, which outlives it
    trusted = [{"issuer": plan_b.url, "jwks_uri": f"{keys.url}/plan-b.json", "max_token_lifetime": 3600,
                "accept_untyped": True}]  # fmt: skip
    deployment.add_environment("tokeninfo", {"TOKENRY_TRUSTED_ISSUERS": json.dumps(trusted)})
    deployment.add_environment("revocation", {"TOKENRY_TRUSTED_ISSUERS": plan_b.url})
    yield plan_b, deployment, tmp_path
    processes.end()
    keys.close()
    plan_b.close()


def import_all(folder, tmp_path):
    """Step 1: clients and users with their bcrypt hashes."""
    lines = []
    for name in APPLICATIONS:
        robot = f"{name}-robot"
        lines += [
            {"realm": "/services", "client_id": name, "is_confidential": True, "scopes": ["uid"],
             "secret_hash": weak_bcrypt(secret(name))},
            {"realm": "/services", "username": robot, "scopes": {"uid": robot},
             "password_hashes": [weak_bcrypt(secret(robot))]},
        ]  # fmt: skip
    path = tmp_path / "plan-b.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    environ = {"TOKENRY_CREDENTIALS_URL": folder, "TOKENRY_ENVIRONMENT": "dev"}
    done = CliRunner().invoke(app, ["client", "import", "--from-plan-b", str(path)], env=environ)
    assert (done.exit_code, "6 imported" in done.output) == (0, True), done.output


def test_applications_move_one_by_one_and_nobody_is_refused(places):
    plan_b, deployment, tmp_path = places
    applications = [Application(name, plan_b.url) for name in APPLICATIONS]

    def judged(url, token):
        answer = call("GET", f"{url}/oauth2/tokeninfo", bearer=token)
        return answer.status, answer.json.get("uid")

    def everybody(*consumers):
        """Every application renews, and each token that it has is good at each of *consumers*."""
        for each in applications:
            each.renew()
            for token in each.tokens:
                for url in consumers:
                    assert judged(url, token) == (200, f"{each.name}-robot"), (each.name, url)

    everybody(plan_b.url)
    import_all(deployment.credentials_url, tmp_path)
    deployment.start()
    ours, list_url = deployment.url("tokeninfo", ""), deployment.url("revocation", "/revocations")

    # Step 2: revocations are posted here; Plan B's token infos poll this list.
    plan_b.poll(list_url)
    applications[0].renew()
    leaked = applications[0].tokens.pop()
    assert deployment.revoke_token(leaked).status == 201
    until(lambda: plan_b.poll(list_url) or judged(plan_b.url, leaked)[0] == 401, seconds=31)
    until(lambda: judged(ours, leaked)[0] == 401, seconds=31)

    # Steps 3 and 4: consumers ask our token info, which judges tokens of both.
    everybody(plan_b.url, ours)

    # Step 5: applications get their tokens here, one after the other, with the secrets that they have.
    for each in applications:
        each.issuer = deployment.url("issuer", "")
        everybody(ours)
    issuers = {
        json.loads(base64.urlsafe_b64decode(each.tokens[-1].split(".")[1] + "=="))["iss"] for each in applications
    }
    assert issuers == {deployment.url("issuer", "")}
    assert judged(ours, leaked)[0] == 401

    # Plan B's provider ends; what it has issued is good until it expires, also where nobody has its keys yet.
    plan_b.close()
    deployment.stop("tokeninfo")
    deployment.start("tokeninfo")
    for each in applications:
        until(lambda tokens=each.tokens: all(judged(ours, token)[0] == 200 for token in tokens), seconds=31)
    assert judged(ours, leaked)[0] == 401

    # A revocation by claims hits the tokens of both issuers at whoever judges them; nobody else's.
    rule = {"type": "CLAIM", "data": {"claims": {"sub": "orders-robot"}, "issued_before": int(time.time()) + 1}}
    assert call("POST", list_url, document=rule, bearer=deployment.admin_token()).status == 201
    hit, spared = applications[1].tokens, applications[2].tokens
    until(lambda: all(judged(ours, token)[0] == 401 for token in hit), seconds=31)
    assert all(judged(ours, token)[0] == 200 for token in spared)
    until(lambda: plan_b.poll(list_url) or all(map(plan_b.knows_as_revoked, hit)), seconds=31)
    assert not any(map(plan_b.knows_as_revoked, spared))
