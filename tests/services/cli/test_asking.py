"""`tokenry token`, `bench` and `job` against fakes of the services."""

import json
import os

import pytest
from typer.testing import CliRunner

from tokenry.http.fetch import Response
from tokenry.revocation.documents import document_of
from tokenry.revocation.wire import format_list
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer
from tokenry_cli.__main__ import app
from tokenry_cli.bench import percentile, timed
from tokenry_cli.job import followed


class Services:
    """An issuer, and a revocation service and token info that know what it has revoked."""

    def __init__(self):
        self.issuer = FakeIssuer()
        self.refused_from = None
        self.jobs, self.seen = [], []
        self.server = LoopbackServer(self.answer)
        self.environ = {
            **self.issuer.environment(), "TOKENRY_ISSUER": self.issuer.serve(),
            "TOKENRY_REVOCATION_URL": self.server.url, "TOKENRY_TOKENINFO_URL": self.server.url,
        }  # fmt: skip

    def answer(self, request):
        self.seen.append(request)
        if "/revocations/snapshot" in request.url:
            held = self.issuer.revocations.snapshot().value
            return Response(status=200, body=format_list(document_of(held, cursor="c")))
        if "/jobs/" in request.url:
            status = 202 if request.url.endswith("/cancel") else 200
            return Response(status=status, body=json.dumps(self.jobs.pop(0)).encode())
        if request.url.endswith("/revocations"):
            return Response(status=201, body=b'{"id":"r1","revoked_at":1}')
        if "/oauth2/introspect" in request.url:
            return Response(status=200, body=json.dumps({"active": self.refused_from is None, "exp": 5}).encode())
        posted = any(each.url.endswith("/revocations") for each in self.seen)
        return Response(status=401 if posted else 200)

    def run(self, *words, code=0, typed=None):
        result = CliRunner().invoke(app, list(words), env=self.environ, input=typed)
        assert result.exit_code == code, result.output
        return result

    def json(self, *words, code=0, typed=None):
        return json.loads(self.run(*words, "-o", "json", code=code, typed=typed).stdout)


@pytest.fixture
def services(monkeypatch):
    for name in [name for name in os.environ if name.startswith("TOKENRY_")]:
        monkeypatch.delenv(name)
    services = Services()
    yield services
    services.server.close()
    services.issuer.close()


def test_a_token_is_judged_here_with_the_list_and_sent_nowhere(services):
    token = services.issuer.token(scope="orders.read")
    judged = services.json("token", "verify", typed=token)
    assert (judged["valid"], judged["scope"]) == (True, "orders.read")
    assert services.json("token", "verify", "--scope", "orders.write", typed=token, code=1)["reason"] == (
        "insufficient_scope: orders.write"
    )
    assert services.json("token", "verify", "--audience", "nobody", typed=token, code=1)["valid"] is False
    services.issuer.revoke_key()
    assert services.json("token", "verify", typed=token, code=1)["reason"] == "revoked"
    assert services.json("token", "verify", typed=f"{token[:-4]}AAAA", code=1)["reason"] == "bad_signature"
    for request in services.seen:
        assert token not in request.url + str(dict(request.headers)) + str(request.body)


def test_introspection_tells_whether_it_is_active(services):
    assert services.json("token", "introspect", "t")["active"] is True
    services.refused_from = 0
    assert services.json("token", "introspect", "t", code=1)["active"] is False


def test_validation_is_measured_beside_a_reference(services):
    told = services.json("bench", "validate", "--seconds", "0.2")
    assert told["with_signature"]["p50_us"] > told["remembered"]["p50_us"] > 0
    assert told["with_signature_to_reference"] > 0.5  # it has a signature to check, as the reference does
    assert told["reference_signature_check"]["count"] >= 200


def test_issuing_is_measured_and_refusals_are_counted(services):
    told = services.json("bench", "issue", "-n", "6", "--at-once", "2", "--progress", "none")
    assert (told["requests"], told["errors"]) == (6, 0)
    assert told["per_second"] > 0
    services.issuer.enqueue(Response(status=503, body=b"{}"))
    told = services.json("bench", "issue", "-n", "3", "--at-once", "1", code=7)
    assert told["errors"] == 1
    assert len(services.issuer.token_requests()) == 9


def test_propagation_is_measured(services):
    told = services.json("bench", "propagation", "--flights", "1")
    assert (told["flights"], told["refused_as_promised"]) == (1, 1)
    assert told["seconds"]["max"] >= 0


def test_a_token_that_is_not_refused_is_6(services):
    services.seen.append(type("Posted", (), {"url": "x/revocations"})())  # token info refuses from the beginning
    assert "not_accepted" in services.run("bench", "propagation", "--flights", "1", code=6).stderr


def test_percentiles_and_counts():
    times = [float(number) for number in range(1, 101)]
    assert (percentile(times, 50), percentile(times, 99)) == (50.0, 99.0)
    calls = []
    assert len(timed(lambda: calls.append(1), seconds=0.0)) == len(calls) - 3 == 200


# --- jobs -----------------------------------------------------------------------------------------------------


def job(state, *, lines=5, accepted=5, failed=0):
    failures = [{"line": number, "status": 400, "detail": "no JSON"} for number in range(1, failed + 1)]
    return {
        "id": "j", "state": state, "lines": lines, "accepted": accepted, "failed": failed,
        "started_at": 1_800_000_000.0, "updated_at": 1_800_000_001.5, "failures": failures[:10], "next_page": None,
    }  # fmt: skip


def test_a_job_is_shown_with_its_failures(services):
    services.jobs = [job("done", failed=1), job("done", failed=1)]
    assert services.json("job", "show", "j")["updated_at"] == "2027-01-15T08:00:01.500Z"
    assert "line 1: no JSON" in services.run("job", "show", "j").stderr


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (job("done"), 0), (job("done", failed=2), 7), (job("done", accepted=0, failed=2), 1),
        (job("interrupted"), 1),
    ],
)  # fmt: skip
def test_a_job_is_watched_to_its_end(services, last, code):
    services.jobs = [last]
    result = services.run("job", "watch", "j", code=code)
    assert ("run the same" in result.stderr) == (last["state"] == "interrupted")


def test_a_running_job_is_asked_again():
    answers, seen, slept = [job("running", lines=1), job("running", lines=3), job("done")], [], []

    class Seen:
        def update(self, done, *, errors):
            seen.append(done)

    assert followed(lambda: answers.pop(0), Seen(), sleep=slept.append)["state"] == "done"
    assert (seen, len(slept)) == ([1, 3, 5], 2)


def test_a_job_is_stopped_after_its_id_was_confirmed_and_the_undo_is_said(services):
    services.jobs = [job("running")] * 3
    assert "confirm" in services.run("job", "cancel", "j", code=2).stderr
    tried = services.run("job", "cancel", "j", "--dry-run")
    assert "nothing was stopped" in tried.stderr
    assert not [request for request in services.seen if request.url.endswith("/cancel")]
    stopped = services.run("job", "cancel", "j", "--yes")
    assert "undo: run the same `tokenry revoke bulk` again" in stopped.stderr
    (asked,) = [request for request in services.seen if request.url.endswith("/cancel")]
    assert (asked.method, asked.url.endswith("/jobs/j/cancel")) == ("POST", True)
