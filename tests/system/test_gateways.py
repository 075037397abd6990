"""The gateways' configurations of deploy/gateways as they run, with a real token info process behind each."""

import http.client
import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.debian import program
from tests.support.http import Answer, call
from tests.support.processes import Process, Processes, free_port
from tokenry.http.fetch import Headers, Request, Response
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer

GATEWAYS = Path(__file__).resolve().parents[2] / "deploy" / "gateways"
IDENTITY = ("X-Auth-Subject", "X-Auth-Client", "X-Auth-Scopes", "X-Auth-Realm")
SPOOFED = dict.fromkeys(IDENTITY, "root") | {"x-auth-subject": "root", "X_Auth_Subject": "root"}


class Application:
    """The service behind the gateway: says what it was sent, and refuses as its path asks."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.server = LoopbackServer(self.answer)

    def answer(self, request: Request) -> Response:
        self.seen.append(request)
        last = request.url.rsplit("/", 1)[-1]
        status = int(last) if last.isdigit() else 200
        said = {"headers": dict(request.headers), "body": (request.body or b"").decode()}
        headers = Headers([("Content-Type", "application/json"), ("X-From", "application")])
        return Response(status=status, headers=headers, body=json.dumps(said).encode())


@dataclass
class Edge:
    """A gateway, what is behind it, and what it asks."""

    url: str
    issuer: FakeIssuer
    application: Application
    tokeninfo: Process

    def get(self, path: str = "/orders", *, token: str | None = None, **headers: str) -> Answer:
        return call("GET", f"{self.url}{path}", bearer=token, headers=headers)


def token_info(processes: Processes, issuer: FakeIssuer, *, listen: str, metrics: str | None = None) -> Process:
    """Start token info; it is ready where it has *metrics*, else it only lives."""
    more = {} if metrics is None else {"TOKENRY_METRICS_LISTEN_ADDRESS": metrics}
    return processes.start(
        "tokeninfo",
        [sys.executable, "-m", "tokenry_tokeninfo"],
        env={
            "TOKENRY_ISSUER": issuer.issuer,
            "TOKENRY_LISTEN_ADDRESS": listen,
            "TOKENRY_DRAIN_SECONDS": "0",
            **more,
        },
        ready_url=f"http://{listen}/healthz" if metrics is None else f"http://{metrics}/readyz",
    )


@pytest.fixture(params=["tcp", "unix socket"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    nginx = program("nginx", package="nginx")
    processes = Processes(tmp_path)
    application = Application()
    with FakeIssuer() as issuer:
        issuer.serve()
        listen, ready = f"127.0.0.1:{free_port()}", None
        upstream = listen
        if request.param == "unix socket":
            listen = upstream = f"unix:{tmp_path}/tokeninfo.sock"
        ready = f"127.0.0.1:{free_port()}"
        tokeninfo = token_info(processes, issuer, listen=listen, metrics=ready)
        port = free_port()
        text = (GATEWAYS / "nginx.conf").read_text()
        for old, new in (
            ("server 127.0.0.1:8082;", f"server {upstream};"),
            ("server 127.0.0.1:9000;", f"server {application.server.url.removeprefix('http://')};"),
            ("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{port};"),
            # A location whose policy nobody understands, one that has none, and one for the application's own errors.
            ("location /public {", protected(text, "/nonsense", "scop=x") + protected(text, "/forgotten", "")
             + "location /public {"),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / "nginx.conf").write_text(in_folder(text, tmp_path))
        user = "user root; " if Path("/root").owner() == Path(tmp_path).owner() else ""
        processes.start(
            "nginx",
            [str(nginx), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr",
             "-g", f"daemon off; {user}pid {tmp_path}/nginx.pid;"],
            ready_url=f"http://127.0.0.1:{port}/public",
        )  # fmt: skip
        yield Edge(f"http://127.0.0.1:{port}", issuer, application, tokeninfo)
    processes.end()
    application.server.close()


def in_folder(text: str, folder: Path) -> str:
    """Return the configuration with nginx's own files in *folder*: it need not be installed here."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    assert "http {\n" in text
    return text.replace("http {\n", f"http {{\n{own}", 1)


def protected(text: str, path: str, require: str) -> str:
    """Return the protected location of the configuration, for *path* and with the policy *require*."""
    block = text[text.index("location /orders {") : text.index("# --- what does not")]
    return block.replace("location /orders", f"location {path}").replace("scope=orders.read", require)


def refused(edge: Edge, good: str) -> None:
    """Ask for what a gateway has to refuse, with what each refusal has to say; *good* is a token that it lets in."""
    # 401: no token, a bad one, a query that is none of the policy.
    answer = edge.get()
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    answer = edge.get(token=good[:-4] + "AAAA")
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert edge.get("/orders?scope=&authenticated=1").status == 401

    # 403, with its challenge; neither the caller's query nor a header of theirs is the policy.
    other = edge.issuer.token("basket", scope="uid")
    for answer in (
        edge.get(token=other),
        edge.get("/orders?scope=uid&authenticated=1", token=other),
        edge.get(token=other, **{"Tokenry-Require": "authenticated=1"}),
    ):
        assert (answer.status, answer.json["error"]) == (403, "insufficient_scope")
        assert 'scope="orders.read"' in answer.headers["www-authenticate"]


def handed_on(edge: Edge, good: str) -> None:
    """See to it that the application's own refusals are its own, and that a revocation of *good* holds here, too."""
    for status in (401, 403, 404, 500, 503):
        answer = edge.get(f"/orders/{status}", token=good)
        assert (answer.status, answer.headers["x-from"]) == (status, "application")
    edge.issuer.revoke(good)
    edge.tokeninfo.wait_until(lambda: edge.get(token=good).status == 401, seconds=10)


@pytest.mark.system_packages
@pytest.mark.processes
def test_nginx_asks_token_info_and_hands_its_verdicts_on(edge: Edge) -> None:
    good = edge.issuer.token("basket", scope="orders.read uid")

    # 200: the service learns who calls, and nothing that the caller made up.
    answer = edge.get(token=good, **SPOOFED)
    assert answer.status == 200, answer
    shown = {name: value for name, value in answer.json["headers"].items() if "auth-" in name.lower().replace("_", "-")}
    assert shown == {
        "X-Auth-Subject": "basket", "X-Auth-Client": "basket", "X-Auth-Scopes": "orders.read uid",
        "X-Auth-Realm": "/services",
    }  # fmt: skip
    body = call("POST", f"{edge.url}/orders/new", bearer=good, document={"a": 1})
    assert (body.status, body.json["body"]) == (200, '{"a": 1}')

    before = len(edge.application.seen)
    refused(edge, good)

    # 500: a policy that is missing or not understood lets nobody through.
    for path in ("/nonsense", "/forgotten"):
        assert edge.get(path, token=good).status == 500
    assert len(edge.application.seen) == before

    # Where no token is needed nobody is anybody.
    answer = edge.get("/public", token=good, **SPOOFED)
    assert answer.status == 200
    assert not [name for name in answer.json["headers"] if "auth-" in name.lower().replace("_", "-")]

    handed_on(edge, good)


@pytest.mark.system_packages
@pytest.mark.processes
def test_nginx_says_503_when_token_info_cannot_tell_or_is_away(edge: Edge) -> None:
    good = edge.issuer.token("basket", scope="orders.read")
    assert edge.get(token=good).status == 200
    before = len(edge.application.seen)
    edge.tokeninfo.send_signal(signal.SIGSTOP)
    stopped = call("GET", f"{edge.url}/orders", bearer=good, seconds=20)
    edge.tokeninfo.send_signal(signal.SIGCONT)
    edge.tokeninfo.terminate()
    for answer in (stopped, edge.get(token=good), edge.get()):
        assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert len(edge.application.seen) == before


@pytest.mark.system_packages
@pytest.mark.processes
def test_nginx_says_503_before_the_first_list(tmp_path: Path) -> None:
    """Token info is alive and has nothing to judge by."""
    nginx = program("nginx", package="nginx")
    processes, application = Processes(tmp_path), Application()
    with FakeIssuer() as issuer:
        issuer.serve()
        good = issuer.token("basket", scope="orders.read")
        issuer.down = True
        listen, port = f"127.0.0.1:{free_port()}", free_port()
        token_info(processes, issuer, listen=listen)
        text = (GATEWAYS / "nginx.conf").read_text()
        text = text.replace("server 127.0.0.1:8082;", f"server {listen};")
        text = text.replace("server 127.0.0.1:9000;", f"server {application.server.url.removeprefix('http://')};")
        text = text.replace("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{port};")
        (tmp_path / "nginx.conf").write_text(in_folder(text, tmp_path))
        processes.start(
            "nginx",
            [str(nginx), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr",
             "-g", f"daemon off; pid {tmp_path}/nginx.pid;"],
            ready_url=f"http://127.0.0.1:{port}/public",
        )  # fmt: skip
        before = len(application.seen)
        answer = call("GET", f"http://127.0.0.1:{port}/orders", bearer=good)
        assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
        assert len(application.seen) == before
    processes.end()
    application.server.close()


# --- a sidecar on a unix socket ---------------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(str(self.path))


def is_ready(path: Path) -> bool:
    connection = UnixConnection(path)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.processes
def test_a_sidecar_answers_on_its_unix_socket(tmp_path: Path) -> None:
    processes, path = Processes(tmp_path), tmp_path / "tokeninfo.sock"
    with FakeIssuer() as issuer:
        issuer.serve()
        process = processes.start(
            "tokeninfo",
            [sys.executable, "-m", "tokenry_tokeninfo"],
            env={"TOKENRY_ISSUER": issuer.issuer, "TOKENRY_LISTEN_ADDRESS": f"unix:{path}",
                 "TOKENRY_DRAIN_SECONDS": "0"},
        )  # fmt: skip

        def ask(target: str, *, token: str | None = None) -> tuple[int, bytes]:
            connection = UnixConnection(path)
            try:
                connection.request("GET", target, headers={"Authorization": f"Bearer {token}"} if token else {})
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        process.wait_until(lambda: is_ready(path), seconds=20)
        good = issuer.token("basket", scope="orders.read")
        status, body = ask("/oauth2/tokeninfo", token=good)
        assert (status, json.loads(body)["uid"]) == (200, "basket")
        assert ask("/auth?scope=orders.read", token=good)[0] == 200
        assert ask("/auth?scope=orders.write", token=good)[0] == 403
        assert ask("/auth?scope=orders.read")[0] == 401
        connection = UnixConnection(path)
        for _ in range(5):  # kept open, and answered at once
            connection.request("GET", "/auth?scope=orders.read", headers={"Authorization": f"Bearer {good}"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        connection.close()
        assert process.terminate() == 0
        assert not path.exists()
    processes.end()


# --- Envoy and Traefik ------------------------------------------------------------------------------------------


def started(gateway: str, folder: Path, processes: Processes, *, tokeninfo: str, application: Application) -> str:
    """Start *gateway* with its configuration, in which only the addresses are others, and return its URL."""
    executable = Path(sys.prefix) / "bin" / gateway
    if not executable.exists():
        pytest.fail(f"{gateway} is not here: run make test-system, which installs requirements/programs.txt")
    text, port = (GATEWAYS / f"{gateway}.yaml").read_text(), free_port()
    form = {"envoy": "port_value: {}", "traefik": "127.0.0.1:{}"}[gateway]
    ports = {"8082": tokeninfo.rpartition(":")[2], "9000": application.server.url.rpartition(":")[2]}
    if gateway == "envoy":  # where Traefik listens is not in this file
        ports["8080"] = str(port)
    for old, new in ports.items():
        assert form.format(old) in text
        text = text.replace(form.format(old), form.format(new))
    config = folder / f"{gateway}.yaml"
    config.write_text(text)
    command = {
        "envoy": ["-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"],
        "traefik": [
            f"--entryPoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={config}",
            "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false",
        ],
    }[gateway]  # fmt: skip
    processes.start(gateway, [str(executable), *command], ready_url=f"http://127.0.0.1:{port}/public")
    return f"http://127.0.0.1:{port}"


@pytest.fixture(params=["envoy", "traefik"])
def gateway(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def other_edge(gateway: str, tmp_path: Path) -> Iterator[Edge]:
    processes, application = Processes(tmp_path), Application()
    with FakeIssuer() as issuer:
        issuer.serve()
        listen, ready = (f"127.0.0.1:{free_port()}" for _ in range(2))
        tokeninfo = token_info(processes, issuer, listen=listen, metrics=ready)
        url = started(gateway, tmp_path, processes, tokeninfo=listen, application=application)
        yield Edge(url, issuer, application, tokeninfo)
    processes.end()
    application.server.close()


def identity_in(answer: Answer) -> dict[str, str]:
    """Return whatever the application was sent that it could take for the caller's identity."""
    return {
        name.lower(): value
        for name, value in answer.json["headers"].items()
        if name.lower().replace("_", "-").startswith("x-auth-")
    }


@pytest.mark.system_packages
@pytest.mark.processes
def test_other_gateways_ask_token_info_and_hand_its_verdicts_on(other_edge: Edge) -> None:
    edge = other_edge
    good = edge.issuer.token("basket", scope="orders.read uid")
    basket = {
        "x-auth-subject": "basket", "x-auth-client": "basket", "x-auth-scopes": "orders.read uid",
        "x-auth-realm": "/services",
    }  # fmt: skip

    # 200: the service learns who calls, and nothing that the caller made up.
    answer = edge.get(token=good, **dict.fromkeys(IDENTITY, "root"))
    assert (answer.status, identity_in(answer)) == (200, basket)
    body = call("POST", f"{edge.url}/orders/new", bearer=good, document={"a": 1})
    assert (body.status, body.json["body"]) == (200, '{"a": 1}')

    before = len(edge.application.seen)
    refused(edge, good)
    assert len(edge.application.seen) == before

    # Where no token is needed nobody is anybody.
    answer = edge.get("/public", token=good, **dict.fromkeys(IDENTITY, "root"))
    assert (answer.status, identity_in(answer)) == (200, {})

    handed_on(edge, good)


LOOK_ALIKES = [f"X{first}Auth{second}Subject" for first in "-_" for second in "-_"]


@pytest.mark.system_packages
@pytest.mark.processes
@pytest.mark.parametrize("path", ["/orders", "/public"])
def test_no_look_alike_of_an_identity_field_comes_through(other_edge: Edge, path: str) -> None:
    good = other_edge.issuer.token("basket", scope="orders.read")
    for name in (*LOOK_ALIKES, *map(str.lower, LOOK_ALIKES), *map(str.upper, LOOK_ALIKES)):
        answer = other_edge.get(path, token=good, **{name: "root"})
        assert answer.status in {200, 400}, name  # Envoy refuses such a request
        assert answer.status == 400 or "root" not in identity_in(answer).values(), name


@pytest.mark.system_packages
@pytest.mark.processes
def test_other_gateways_let_nobody_in_when_token_info_cannot_tell(other_edge: Edge, gateway: str) -> None:
    good = other_edge.issuer.token("basket", scope="orders.read")
    assert other_edge.get(token=good).status == 200
    before = len(other_edge.application.seen)
    stopped = None
    if gateway == "envoy":  # Traefik waits for 30 s, whatever one sets
        other_edge.tokeninfo.send_signal(signal.SIGSTOP)
        stopped = call("GET", f"{other_edge.url}/orders", bearer=good, seconds=20)
        other_edge.tokeninfo.send_signal(signal.SIGCONT)
    other_edge.tokeninfo.terminate()
    for answer in (stopped, other_edge.get(token=good), other_edge.get()):
        if gateway == "traefik":
            assert answer is None or answer.status == 500
        else:
            assert answer is not None
            assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
            assert int(answer.headers["retry-after"]) > 0
    assert len(other_edge.application.seen) == before


@pytest.mark.system_packages
@pytest.mark.processes
def test_other_gateways_say_503_before_the_first_list(gateway: str, tmp_path: Path) -> None:
    """Token info is alive and has nothing to judge by."""
    processes, application = Processes(tmp_path), Application()
    with FakeIssuer() as issuer:
        issuer.serve()
        good = issuer.token("basket", scope="orders.read")
        issuer.down = True
        listen = f"127.0.0.1:{free_port()}"
        token_info(processes, issuer, listen=listen)
        url = started(gateway, tmp_path, processes, tokeninfo=listen, application=application)
        before = len(application.seen)
        answer = call("GET", f"{url}/orders", bearer=good)
        assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert len(application.seen) == before
    processes.end()
    application.server.close()


# --- the form ---------------------------------------------------------------------------------------------------


def all_of(node: Any, name: str) -> Iterator[Any]:
    """Yield every value under *name* anywhere in *node*."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from all_of(value, name)
    elif isinstance(node, list):
        for each in node:
            yield from all_of(each, name)


def test_envoys_configuration_is_closed_and_strips_what_comes_from_outside() -> None:
    config = yaml.safe_load((GATEWAYS / "envoy.yaml").read_text())
    (manager,) = all_of(config, "filters")
    filters = manager[0]["typed_config"]["http_filters"]
    names = [each["name"].rpartition(".")[2] for each in filters]
    assert names == ["header_mutation", "ext_authz", "router"]
    removed = {each["remove"] for each in filters[0]["typed_config"]["mutations"]["request_mutations"]}
    assert removed == {name.lower() for name in IDENTITY} | {"tokenry-require"}
    judge = filters[1]["typed_config"]
    assert judge["failure_mode_allow"] is False
    assert judge["status_on_error"] == {"code": "ServiceUnavailable"}
    assert judge["http_service"]["path_prefix"] == "/auth"
    patterns = judge["http_service"]["authorization_response"]["allowed_upstream_headers"]["patterns"]
    assert {each["exact"] for each in patterns} == {name.lower() for name in IDENTITY}
    clusters = {each["name"] for each in config["static_resources"]["clusters"]}
    assert {each["cluster"] for each in all_of(config, "route") if "cluster" in each} <= clusters
    assert judge["http_service"]["server_uri"]["cluster"] in clusters


def test_traefiks_configuration_names_all_identity_fields_everywhere() -> None:
    config = yaml.safe_load((GATEWAYS / "traefik.yaml").read_text())["http"]
    used = {name for router in config["routers"].values() for name in router["middlewares"]}
    assert used == set(config["middlewares"])
    assert all(router["middlewares"] for router in config["routers"].values())
    judge = config["middlewares"]["orders-read"]["forwardAuth"]
    assert judge["address"].endswith("/auth?scope=orders.read")
    assert judge["trustForwardHeader"] is False
    pattern = judge["authResponseHeadersRegex"]
    assert all(re.search(pattern, name) for name in (*IDENTITY, *LOOK_ALIKES))
    assert "Authorization" in judge["authRequestHeaders"]
    removed = config["middlewares"]["no-identity"]["headers"]["customRequestHeaders"]
    assert set(removed.values()) == {""}
    assert removed.keys() >= {*IDENTITY, *LOOK_ALIKES}
    assert len(removed) == len(IDENTITY) * len(LOOK_ALIKES)
    assert {router["service"] for router in config["routers"].values()} <= set(config["services"])
