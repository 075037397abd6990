"""`tokenry doctor`: every fault that it knows is made, found, and comes with what to do."""

import json
import socket
import ssl
import threading
import time

import pytest
from typer.testing import CliRunner

from tests.support.certificates import authority, make_identity
from tokenry.testing import FakeClock, FakeIssuer
from tokenry.testing.issuer import CLIENT_SECRET
from tokenry_cli.__main__ import app
from tokenry_cli.doctor import Doctor, State, certificate_end_of


@pytest.fixture
def issuer():
    with FakeIssuer() as issuer:
        yield issuer


def examined(environ, **options):
    found = list(Doctor(environ, ready_seconds=options.pop("ready_seconds", 5), **options).findings())
    for finding in found:
        assert bool(finding.advice) >= (finding.state in {State.WRONG, State.WARNING}), finding
    return {finding.check: finding for finding in found}


def test_a_service_that_works_is_healthy(issuer):
    found = examined(issuer.environment(), scope="orders.read")
    states = {name: str(finding.state) for name, finding in found.items()}
    assert states == {
        "environment": "ok",
        "token source": "ok",
        "issuer": "ok",
        "clock": "ok",
        "keys": "ok",
        "token": "ok",
        "revocation list": "ok",
        "token info": "skipped",
        "revocation service": "skipped",
        "certificates": "skipped",
    }
    assert "TOKENRY_CLIENT_ID is set" in found["token source"].found
    assert "scope: orders.read" in found["token"].found


def test_nothing_configured_is_said_and_what_to_set():
    found = examined({"PATH": "/bin"})
    assert found["environment"].state is State.WRONG
    assert "TOKENRY_ISSUER" in found["environment"].advice
    assert found["token source"].state is State.WRONG
    assert found["token"].state is State.SKIPPED


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"TOKENRY_CLIENT_SECRET": "wrong"}, "token", "invalid_client"),
        ({"TOKENRY_CLIENT_SECRET": ""}, "environment", "TOKENRY_CLIENT_SECRET"),
        ({"TOKENRY_CLIENT_SECRET": "", "TOKENRY_CLIENT_SECRET_FILE": "/nowhere"}, "environment", "empty"),
        ({"CREDENTIALS_DIR": "/nowhere", "TOKENRY_CLIENT_ID": None, "TOKENRY_CLIENT_SECRET": None}, "token", "client"),
        ({"OAUTH2_ACCESS_TOKENS": "nonsense"}, "token source", "OAUTH2_ACCESS_TOKENS"),
        ({"TOKENRY_ENDPOINT_SOCKET": "/nowhere"}, "token", "tokenry serve agent"),
        ({"TOKENRY_TOKENINFO_URL": "http://127.0.0.1:9"}, "token info", "127.0.0.1:9"),
        ({"TOKENRY_REVOCATION_URL": "http://127.0.0.1:9"}, "revocation service", "127.0.0.1:9"),
        ({"TOKENRY_REVOCATION_URL": "http://127.0.0.1:9"}, "revocation list", "no_list"),
    ],
    ids=str,
)
def test_each_fault_is_found_where_it_is(issuer, change, check, words):
    environ = {name: value for name, value in (issuer.environment() | change).items() if value is not None}
    found = examined(environ, ready_seconds=0.5)[check]
    assert found.state is State.WRONG, found
    assert words in found.found


def test_a_scope_that_is_not_given_is_explained(issuer):
    found = examined(issuer.environment(), scope="refused")["token"]
    assert "invalid_scope" in found.found
    assert "scopes that the client has" in found.advice


def test_an_issuer_that_calls_itself_otherwise_is_found(issuer):
    found = examined(issuer.environment() | {"TOKENRY_ISSUER": issuer.issuer + "/"}, ready_seconds=0.2)
    assert found["issuer"].state is State.WRONG
    assert "byte for byte" in found["issuer"].advice
    assert found["keys"].state is State.SKIPPED


def test_an_issuer_that_is_away_is_found(issuer):
    issuer.down = True
    found = examined(issuer.environment(), ready_seconds=0.2)
    assert found["issuer"].state is State.WRONG
    assert found["token"].state is State.WRONG


def test_plain_http_to_another_machine_is_found():
    found = examined({"TOKENRY_ISSUER": "http://issuer.example"}, ready_seconds=0.1)
    assert "not encrypted" in found["issuer"].found


@pytest.mark.parametrize(
    ("ahead", "state"), [(-60, State.WRONG), (-4, State.WARNING), (4.5, State.WARNING), (60, State.WRONG)]
)
def test_a_clock_that_is_off_is_found(issuer, ahead, state):
    # The loopback server says the real time; the clock of the one who asks is off.
    clock = FakeClock(time.time() + ahead)
    found = examined(issuer.environment(), clock=clock, ready_seconds=0.2)["clock"]
    assert found.state is state
    assert ("ahead of" if ahead > 0 else "behind") in found.found


def test_an_issuer_of_others_without_a_list_is_a_warning(issuer):
    metadata = issuer._metadata
    issuer._metadata = lambda: {k: v for k, v in metadata().items() if k != "revocation_list_uri"}
    assert examined(issuer.environment())["revocation list"].state is State.WARNING


@pytest.mark.parametrize(("days", "state"), [(60, State.OK), (13, State.WARNING), (-1, State.WRONG)])
def test_a_certificate_that_ends_soon_is_a_warning(days, state):
    clock = FakeClock()
    environ = {"TOKENRY_ISSUER": "https://127.0.0.1:9"}
    found = examined(
        environ, clock=clock, certificate_end=lambda _host, _port: clock.now() + days * 86_400, ready_seconds=0.1
    )
    assert found["certificate of 127.0.0.1:9"].state is state


def test_the_certificate_of_a_server_is_read_and_verified(tmp_path):
    good = make_identity("CN=localhost", issuer=authority(), dns=("localhost",))
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(*good.write(tmp_path, "server"))
    listener = socket.create_server(("localhost", 0))

    def accept():
        for _ in range(2):
            connection, _ = listener.accept()
            try:
                accepting.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    port = listener.getsockname()[1]
    trusting = ssl.create_default_context(cadata=authority().pem.decode())
    try:
        assert (
            certificate_end_of("localhost", port, context=trusting) == good.certificate.not_valid_after_utc.timestamp()
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            certificate_end_of("localhost", port)
    finally:
        thread.join(10)
        listener.close()


def test_a_certificate_that_does_not_verify_is_wrong():
    def refused(_host, _port):
        raise ssl.SSLCertVerificationError(1, "certificate verify failed")

    found = examined({"TOKENRY_ISSUER": "https://127.0.0.1:9"}, certificate_end=refused, ready_seconds=0.1)
    assert found["certificate of 127.0.0.1:9"].state is State.WRONG
    assert "SSL_CERT_FILE" in found["certificate of 127.0.0.1:9"].advice


def run(environ, *arguments):
    cleared = dict.fromkeys(["TOKENRY_CONTEXT", "CREDENTIALS_DIR", "OAUTH2_ACCESS_TOKENS", "TOKENRY_REALM"])
    return CliRunner().invoke(app, ["doctor", *arguments], env=cleared | environ)


def test_as_a_command_it_ends_with_1_when_something_is_wrong(issuer):
    good = run(issuer.environment())
    assert (good.exit_code, "healthy" in good.output) == (0, False)
    bad = run(issuer.environment() | {"TOKENRY_CLIENT_SECRET": "wrong"}, "-o", "json")
    assert bad.exit_code == 1
    answer = json.loads(bad.stdout)
    assert answer["healthy"] is False
    assert [each["check"] for each in answer["findings"] if each["state"] == "wrong"] == ["token"]


def test_no_secret_and_no_token_is_printed(issuer):
    seen = []
    token = issuer.token
    issuer.token = lambda *args, **more: seen.append(token(*args, **more)) or seen[-1]
    for output in ("table", "json"):
        printed = run(issuer.environment(), "-o", output).output
        assert CLIENT_SECRET not in printed
        assert seen[-1] not in printed
        assert seen[-1].rpartition(".")[2] not in printed


def test_the_file_of_tokenry_dev_is_taken(issuer, tmp_path):
    ready = {"issuer": issuer.issuer, "client": {"client_id": "test-client", "client_secret": CLIENT_SECRET}}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    done = run({}, "--context", str(tmp_path / "ready.json"), "-o", "json")
    assert done.exit_code == 0, done.output
    assert run({}, "--context", str(tmp_path / "none.json")).exit_code == 2
