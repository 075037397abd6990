"""`tokenry serve agent`: token info and tokens on a unix socket, for curl and for the library."""

import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from aiohttp.test_utils import make_mocked_request

from tokenry import StaticTokenSource, default_source
from tokenry.client.agent import AgentTokenSource
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.oauth.errors import OAuthError
from tokenry.testing import FakeClock, FakeIssuer
from tokenry.testing.issuer import CLIENT_ID
from tokenry_cli.agent import MAX_SOURCES, AgentSettings, Giver

FIELD = ["-H", "Tokenry-Agent: 1"]


@pytest.fixture(scope="module")
def issuer():
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def agent(issuer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    path = folder / "agent.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenry_cli", "serve", "agent"],
        env={
            "PATH": os.environ["PATH"],
            **issuer.environment(),
            "TOKENRY_LISTEN_ADDRESS": f"unix:{path}",
            "TOKENRY_DRAIN_SECONDS": "0",
            "TOKENRY_AGENT_SCOPES": "orders.read,stock.read",
            "TOKENRY_AGENT_AUDIENCES": "test-audience",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if json.loads(line)["event"] == "listening":
                break
        end = time.monotonic() + 30
        while curl(path, "/readyz").status != 200:
            assert time.monotonic() < end, "it did not become ready"
            time.sleep(0.05)
        yield path
    finally:
        process.terminate()
        output, errors = process.communicate(timeout=20)
        assert "listening" not in errors
        assert "eyJ" not in output + errors  # no token, whoever asked for one


class Answer:
    def __init__(self, done):
        text, _, status = done.stdout.rpartition("\n")
        self.status, self.text = int(status), text

    @property
    def json(self):
        return json.loads(self.text)


def curl(path, target, *options):
    command = ["curl", "-sS", "--max-time", "20", "--unix-socket", str(path), "-w", "\n%{http_code}", *options]
    done = subprocess.run([*command, f"http://localhost{target}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Answer(done)


@pytest.mark.processes
def test_the_socket_is_for_owner_and_group(agent):
    assert stat.S_IMODE(agent.stat().st_mode) == 0o660


@pytest.mark.processes
def test_it_judges_tokens_as_token_info_does(agent, issuer):
    good = ["-H", f"Authorization: Bearer {issuer.token('basket', scope='orders.read')}"]
    bad = ["-H", f"Authorization: Bearer {issuer.token(expired=True)}"]
    assert curl(agent, "/oauth2/tokeninfo", *good).json["uid"] == "basket"
    statuses = [curl(agent, "/auth?scope=orders.read", *each).status for each in (good, bad, [])]
    assert statuses == [200, 401, 401]
    assert curl(agent, "/auth?scope=other", *good).status == 403


@pytest.mark.processes
def test_it_gives_a_token_and_asks_the_issuer_once(agent, issuer):
    before = len(issuer.token_requests())
    answers = [curl(agent, "/token?scope=orders.read", *FIELD) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    given = answers[0].json
    assert given["token_type"] == "Bearer"
    assert given["scope"] == "orders.read"
    assert 3500 < given["expires_in"] <= 3600
    assert {answer.json["access_token"] for answer in answers} == {given["access_token"]}
    assert issuer.validator().validate(given["access_token"], scope="orders.read").sub == CLIENT_ID
    assert len(issuer.token_requests()) == before + 1


@pytest.mark.processes
def test_without_a_scope_all_listed_ones_are_asked_for(agent):
    assert curl(agent, "/token?audience=test-audience", *FIELD).json["scope"] == "orders.read stock.read"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("target", "options", "status", "error"),
    [
        ("/token?scope=orders.write", FIELD, 400, "invalid_scope"),
        ("/token?scope=orders.read+orders.write", FIELD, 400, "invalid_scope"),
        ("/token?scope=%22", FIELD, 400, "invalid_scope"),
        ("/token?audience=other", FIELD, 400, "invalid_target"),
        ("/token?scope=orders.read&scope=stock.read", FIELD, 400, "invalid_request"),
        ("/token?realm=x", FIELD, 400, "invalid_request"),
        ("/token?scope=orders.read", [], 400, "invalid_request"),
        ("/token?scope=orders.read", ["-H", "Tokenry-Agent: 0"], 400, "invalid_request"),
        ("/token?scope=orders.read", [*FIELD, "-X", "POST"], 405, "invalid_request"),
    ],
)
def test_nothing_else_is_given(agent, target, options, status, error):
    answer = curl(agent, target, *options)
    assert (answer.status, answer.json["error"]) == (status, error)


@pytest.mark.processes
def test_the_librarys_own_source_takes_tokens_from_it(agent, issuer):
    source = default_source("stock.read", environ={"TOKENRY_ENDPOINT_SOCKET": str(agent)})
    assert isinstance(source, AgentTokenSource)
    before = len(issuer.token_requests())
    found = []
    threads = [threading.Thread(target=lambda: found.append(source.get())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({token.value for token in found}) == 1
    assert len(issuer.token_requests()) <= before + 1
    assert issuer.validator().validate(found[0].value, scope="stock.read").sub == CLIENT_ID
    with pytest.raises(TokenFetchError, match="the agent said invalid_scope"):
        default_source("other", environ={"TOKENRY_ENDPOINT_SOCKET": str(agent)}).get()


async def test_a_source_whose_agent_is_gone_serves_what_it_holds(agent):
    clock = FakeClock()
    source = AgentTokenSource(agent, "orders.read", clock=clock)
    token = await source.aget()
    source._path = f"{agent}.gone"
    clock.advance(minutes=40)
    assert (await source.aget()).value == token.value
    clock.advance(minutes=40)
    with pytest.raises(TokenFetchError, match="is `tokenry serve agent` running"):
        await source.aget()


async def test_the_agent_holds_a_bounded_number_of_kinds_of_tokens():
    names = [f"a{number}" for number in range(MAX_SOURCES + 1)]
    giver = Giver(
        scopes=frozenset(names),
        audiences=frozenset(),
        source=lambda _scope, _audience: StaticTokenSource("fixed"),
        clock=FakeClock(),
    )

    def asking(name):
        return make_mocked_request("GET", f"/token?scope={name}", headers={"Tokenry-Agent": "1"})

    for name in names[:-1]:
        assert (await giver.answer(asking(name))).status == 200
    with pytest.raises(OAuthError, match="64 kinds of tokens") as refused:
        await giver.answer(asking(names[-1]))
    assert refused.value.status == 503
    assert (await giver.answer(asking(names[0]))).status == 200


def test_no_agent_is_one_clear_error(tmp_path):
    source = default_source(environ={"TOKENRY_ENDPOINT_SOCKET": str(tmp_path / "none")})
    with pytest.raises(TokenFetchError, match="does not answer"):
        source.get()
    assert str(tmp_path) in repr(source)
    with pytest.raises(ConfigurationError, match="from /"):
        default_source(environ={"TOKENRY_ENDPOINT_SOCKET": "agent.sock"})


@pytest.mark.parametrize(
    ("setting", "value"), [("TOKENRY_LISTEN_ADDRESS", "0.0.0.0:8080"), ("TOKENRY_AGENT_SCOPES", 'a,"b"')]
)
def test_what_the_agent_must_not_be_told(setting, value):
    environ = {"TOKENRY_ISSUER": "https://issuer.example", "TOKENRY_TRUSTED_PROXIES": "10.0.0.0/8", setting: value}
    with pytest.raises(ConfigurationError, match=setting):
        AgentSettings.from_environment(environ)


def test_tokens_to_give_and_no_identity_is_said_at_start():
    environ = {"PATH": os.environ["PATH"], "TOKENRY_ISSUER": "https://issuer.example", "TOKENRY_AGENT_SCOPES": "a"}
    command = [sys.executable, "-m", "tokenry_cli", "serve", "agent"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "TOKENRY_CLIENT_ID" in done.stderr


@pytest.mark.processes
def test_without_a_list_of_scopes_it_gives_no_tokens(issuer, tmp_path):
    from tokenry_cli.agent import compose

    settings = AgentSettings.from_environment({"TOKENRY_ISSUER": issuer.issuer})
    app = compose({}, settings)()
    assert "/token" not in {route.resource.canonical for route in app.router.routes()}
