"""`tokenry audit`: whole logs pass, and the first record that was changed or is missing is named."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from tokenry.http.fetch import Response
from tokenry.serving.audit_chain import AuditChain
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer
from tokenry_cli.__main__ import app

NOW = 1_800_000_000.5


def made(count, instance="revocation-1.a1b2"):
    chain = AuditChain(instance)
    actor = {"iss": "i", "sub": "jdoe", "client_id": "ops"}
    return [chain.record("revocation accepted", {"actor": actor, "id": f"r{n}"}, now=NOW + n) for n in range(count)]


def as_log(records):
    """Return *records* as log lines, with what the logging puts around them, among other lines."""
    lines = ['{"event":"request","status":200}', "not JSON at all"]
    for record in records:
        around = {"audit": True, "ts": "2027", "level": "warning", "service": "revocation", "request_id": "r"}
        lines += [json.dumps(record | around), '{"event":"started"}']
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(tmp_path):
    def run(*words, log=None):
        if log is not None:
            path = tmp_path / "service.log"
            path.write_text(log)
            words = (*words, str(path))
        return CliRunner().invoke(app, ["audit", *words])

    return run


def test_a_collected_log_that_is_whole_passes_in_any_order(run):
    records = made(5)
    result = run("verify", log=as_log([*reversed(records), *made(2, "revocation-2.ff")]))
    assert result.exit_code == 0, result.output
    assert f"revocation-1.a1b2  records 1 to 5  head {records[-1]['hash']}" in result.output
    assert "2 chains, 7 records" in result.output


def test_the_first_record_that_was_changed_is_named(run):
    records = made(5)
    records[2]["id"] = "another"
    result = run("verify", log=as_log(records))
    assert result.exit_code == 1
    assert "record 3 of revocation-1.a1b2 was changed" in result.output


def test_the_first_record_that_is_missing_is_named(run):
    result = run("verify", log=as_log([record for record in made(5) if record["seq"] not in {2, 4}]))
    assert result.exit_code == 1
    assert "record 2 of revocation-1.a1b2 is missing" in result.output


def test_a_log_without_its_beginning_passes_only_as_a_part(run):
    log = as_log(made(5)[2:])
    result = run("verify", log=log)
    assert result.exit_code == 1
    assert "--part" in result.output
    result = run("verify", "--part", log=log)
    assert result.exit_code == 0
    assert "records 3 to 5" in result.output


@pytest.mark.parametrize("log", ["", "no audit here\n", '{"event":"request"}\n'])
def test_a_file_without_audit_records_is_an_error_that_says_what_to_give(run, log):
    result = run("verify", log=log)
    assert result.exit_code == 1
    assert "no audit record" in result.output


def test_an_audit_line_of_another_form_is_named(run):
    result = run("verify", log='{"event":"x"}\n{"event":"y","audit":true}\n')
    assert result.exit_code == 1
    assert "line 2" in result.output


def test_a_file_that_cannot_be_read_is_a_mistake_of_use(run, tmp_path):
    result = run("verify", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "nowhere" in result.output


# --- asking the service ---


class Service:
    """A revocation service as far as its audit log goes."""

    def __init__(self):
        self.records, self.heads, self.status = made(2500), [], 200
        self.asked = 0

    @property
    def head(self):
        return {name: self.records[-1][name] for name in ("instance", "seq", "hash")}

    def answer(self, request):
        self.asked += 1
        query = parse_qs(urlsplit(request.url).query)
        limit, before = int(query["limit"][0]), int(query.get("before", ["0"])[0])
        records = [record for record in reversed(self.records) if not before or record["seq"] < before]
        body = {"records": records[:limit], "head": self.head, "heads": self.heads}
        return Response(status=self.status, body=json.dumps(body).encode())


@pytest.fixture
def service(monkeypatch):
    service, issuer = Service(), FakeIssuer()
    server = LoopbackServer(service.answer)
    for name, value in (
        ("ISSUER", issuer.serve()), ("REVOCATION_URL", server.url), ("CLIENT_ID", "test-client"),
        ("CLIENT_SECRET", "test-secret"),
    ):  # fmt: skip
        monkeypatch.setenv(f"TOKENRY_{name}", value)
    yield service
    server.close()
    issuer.close()


def test_the_services_own_log_is_read_whole_and_verified(run, service):
    result = run("verify")
    assert result.exit_code == 0, result.output
    assert "records 1 to 2500" in result.output
    assert service.asked == 3
    service.records[100]["event"] = "nothing"
    assert "record 101 " in run("verify").output


def test_records_that_the_service_does_not_have_any_more_are_no_fault(run, service):
    service.records = service.records[700:]
    result = run("verify")
    assert result.exit_code == 0, result.output
    assert "records 701 to 2500" in result.output


def test_a_collected_log_whose_end_is_missing_is_found_by_the_heads_that_the_service_keeps(run, service):
    records = made(5)
    service.heads = [{name: records[-1][name] for name in ("instance", "seq", "hash")}]
    assert run("verify", "--heads", log=as_log(records)).exit_code == 0
    result = run("verify", "--heads", log=as_log(records[:3]))
    assert result.exit_code == 1
    assert "record 4 of revocation-1.a1b2 is missing" in result.output
    assert run("verify", log=as_log(records[:3])).exit_code == 0
    assert run("verify", "--heads", log=as_log(made(3, "another.1"))).exit_code == 1
    assert run("verify", "--heads", "--part", log=as_log(made(3, "another.1"))).exit_code == 0
    service.heads = None
    assert "store" in run("verify", "--heads", log=as_log(records)).output


def test_what_is_exported_can_be_verified(run, service):
    result = run("export")
    assert result.exit_code == 0
    verified = run("verify", log=result.stdout)
    assert verified.exit_code == 0, verified.output
    assert "2500 records" in verified.output


def test_the_last_records_are_listed(run, service):
    result = run("list", "--limit", "2")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["2500", "2499"]
    assert "jdoe" in result.stdout
    assert json.loads(run("list", "--limit", "2", "-o", "json").stdout)["head"] == service.head


@pytest.mark.parametrize(("status", "code"), [(403, 4), (401, 4), (503, 1)])
def test_a_refusal_is_an_exit_status(run, service, status, code):
    service.status = status
    for command in ("list", "export", "verify"):
        assert run(command).exit_code == code
