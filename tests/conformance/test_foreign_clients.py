"""Clients that we did not write, against a platform as `tokenry dev` runs it, over real connections."""

import asyncio
import json
import shutil
import subprocess
import sys
import time

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import KeySet
from requests.auth import HTTPBasicAuth

from tests.support.platform import Deployment
from tests.support.processes import Processes
from tokenry import ANY_AUDIENCE, ClientCredentials, Introspector, InvalidToken, TokenValidator

pytestmark = pytest.mark.processes
SCOPE = "orders.read"


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    processes = Processes(folder)
    deployment = Deployment(folder, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    deployment.start()
    yield deployment
    processes.end()


@pytest.fixture
def endpoint(platform):
    return platform.url("issuer", "/oauth2/token") + "?realm=/services"


@pytest.fixture
def client(platform):
    return platform.identities.client["client_id"], platform.identities.client["client_secret"]


def check(platform, token):
    """A second opinion on a token: joserfc, with the published keys."""
    document = requests.get(platform.url("issuer", "/.well-known/jwks.json"), timeout=5).json()
    decoded = jwt.decode(token, KeySet.import_key_set(document), algorithms=["ES256"])
    issuer = platform.url("issuer", "")
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer}, exp={"essential": True}, aud={"essential": True}
    )
    rules.validate(decoded.claims)
    assert decoded.header["typ"] == "at+jwt"
    return decoded.claims


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_a_token(platform, endpoint, client, method):
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(*client, scope=SCOPE, token_endpoint_auth_method=method)
    token = session.fetch_token(endpoint, grant_type="client_credentials")
    assert check(platform, token["access_token"])["scope"] == SCOPE
    assert token["token_type"] == "Bearer"
    answer = session.get(platform.url("tokeninfo", "/oauth2/tokeninfo"))
    assert answer.json()["uid"] == client[0]
    session.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_authlib_over_httpx_gets_a_token(platform, endpoint, client):
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    async def fetch():
        async with AsyncOAuth2Client(*client, scope=SCOPE) as session:
            return await session.fetch_token(endpoint, grant_type="client_credentials")

    assert check(platform, asyncio.run(fetch())["access_token"])["client_id"] == client[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_authlib_introspects_and_revokes(platform, endpoint, client):
    from authlib.integrations.requests_client import OAuth2Session

    token = OAuth2Session(*client, scope=SCOPE).fetch_token(endpoint, grant_type="client_credentials")["access_token"]
    admin = platform.identities.admin
    with OAuth2Session(admin["client_id"], admin["client_secret"]) as session:
        url = platform.url("tokeninfo", "/oauth2/introspect") + "?realm=/services"
        answer = session.introspect_token(url, token=token, token_type_hint="access_token")
        assert answer.json()["active"] is True
    with OAuth2Session(*client) as owner:
        done = owner.revoke_token(platform.url("revocation", "/oauth2/revoke") + "?realm=/services", token=token)
        assert done.status_code == 200


def test_requests_oauthlib_gets_a_token(platform, endpoint, client, monkeypatch):
    from oauthlib.oauth2 import BackendApplicationClient
    from requests_oauthlib import OAuth2Session

    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # loopback
    with OAuth2Session(client=BackendApplicationClient(client_id=client[0], scope=[SCOPE])) as session:
        token = session.fetch_token(endpoint, auth=HTTPBasicAuth(*client), scope=[SCOPE])
        assert check(platform, token["access_token"])["sub"] == client[0]
        assert session.get(platform.url("tokeninfo", "/oauth2/tokeninfo")).status_code == 200


def test_requests_oauthlib_with_the_password_of_a_user(platform, endpoint, client, monkeypatch):
    from oauthlib.oauth2 import LegacyApplicationClient
    from requests_oauthlib import OAuth2Session

    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # loopback
    user = platform.identities.user
    with OAuth2Session(client=LegacyApplicationClient(client_id=client[0])) as session:
        token = session.fetch_token(endpoint, auth=HTTPBasicAuth(*client), **user)
    assert check(platform, token["access_token"])["sub"] == user["username"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the PATH")
def test_curl_gets_a_token_and_uses_it(platform, endpoint, client):
    def curl(*arguments):
        done = subprocess.run(
            ["curl", "-sS", "--fail-with-body", *arguments], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    form = ("-d", "grant_type=client_credentials", "-d", f"scope={SCOPE}")
    token = curl("-u", ":".join(client), *form, endpoint)["access_token"]
    check(platform, token)
    answer = curl("-H", f"Authorization: Bearer {token}", platform.url("tokeninfo", "/oauth2/tokeninfo"))
    assert answer["scope"] == [SCOPE]


# --- and ours against the platform ---


# In a process of its own: connexion leaves the connections of its own client open.
CONNEXION = """
import json, sys
from connexion import AsyncApp, request

tokeninfo, token_url, token = sys.argv[1:]


def read_orders():
    return {"caller": request.context["user"]}


def write_orders():
    return {}


def route(name, scope):
    responses = {"200": {"description": "ok"}}
    return {"get": {"operationId": f"__main__.{name}", "security": [{"oauth": [scope]}], "responses": responses}}


scopes = {"orders.read": "read", "orders.write": "write"}
flows = {"clientCredentials": {"tokenUrl": token_url, "scopes": scopes}}
app = AsyncApp("orders", specification_dir="/")
app.add_api(
    {
        "openapi": "3.0.3",
        "info": {"title": "orders", "version": "1"},
        "components": {"securitySchemes": {"oauth": {"type": "oauth2", "x-tokenInfoUrl": tokeninfo, "flows": flows}}},
        "paths": {"/read": route("read_orders", "orders.read"), "/write": route("write_orders", "orders.write")},
    }
)
with app.test_client() as asking:
    good, bad = {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer garbage"}
    asked = (("/read", good), ("/write", good), ("/read", {}), ("/read", bad))
    answers = [asking.get(path, headers=headers) for path, headers in asked]
print(json.dumps([[answer.status_code for answer in answers], answers[0].json()]))
"""


def test_connexion_protects_a_service_by_token_info_alone(platform, endpoint, client, tmp_path):
    """No code for it at all: `x-tokenInfoUrl` in the description of the interface."""
    form = {"grant_type": "client_credentials", "scope": SCOPE}
    token = requests.post(endpoint, auth=client, data=form, timeout=5).json()["access_token"]
    (tmp_path / "orders.py").write_text(CONNEXION)
    arguments = [platform.url("tokeninfo", "/oauth2/tokeninfo"), endpoint, token]
    command = [sys.executable, "orders.py", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[200, 403, 401, 401], {"caller": client[0]}]


def test_our_library_gets_judges_and_introspects(platform, client):
    issuer, admin = platform.url("issuer", ""), platform.identities.admin
    source = ClientCredentials(
        SCOPE, issuer=issuer, client_id=client[0], client_secret=client[1], realm="/services", environ={}
    )
    token = source.get().value
    with TokenValidator(issuer, audience=ANY_AUDIENCE) as validator:
        here = validator.validate(token, scope=SCOPE)
        asked = Introspector(
            issuer,
            audience=ANY_AUDIENCE,
            client_id=admin["client_id"],
            client_secret=admin["client_secret"],
            realm="/services",
        )
        there = asked.validate(token, scope=SCOPE)
        assert (here.sub, here.jti, here.scope, here.exp) == (there.sub, there.jti, there.scope, there.exp)
        assert platform.revoke_token(token).status == 201
        wait_until_refused(lambda: validator.validate(token))
        wait_until_refused(lambda: asked.validate(token))
        asked.stop()


def wait_until_refused(judge):
    end = time.monotonic() + 31
    while time.monotonic() < end:
        try:
            judge()
        except InvalidToken:
            return
        time.sleep(0.05)
    pytest.fail("the revocation was never seen")
