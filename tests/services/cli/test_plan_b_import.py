"""`tokenry revoke import`: what of Plan B's list can be said here is posted, and what cannot is named."""

import json
import time

import pytest
from typer.testing import CliRunner

from tests.support.planb_tokeninfo import PlanBTokeninfo
from tokenry.errors import ProtocolError
from tokenry.http.fetch import Headers, Response
from tokenry.revocation.planb import claims_rows, global_rows, token_rows
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer
from tokenry_cli.__main__ import app
from tokenry_cli.plan_b_revocations import Known, read_rows, translate

SALT = "the-salt-of-plan-b"
NOW = 1_800_000_000
ISSUER = "https://plan-b.example"
LINES = [
    b'{"realm": "services", "client_id": "basket", "secret_hash": "x"}',
    b'{"realm": "/services", "username": "robot", "password_hashes": []}',
    b"",
    b'{"realm": "/employees", "username": "jdoe"}',
]
KNOWN = Known.of_lines(LINES, salt=SALT)


def rules(at=NOW, **claims):
    return claims_rows(claims, issued_before=at, revoked_at=at, salt=SALT)


def body(*rows):
    return json.dumps({"meta": {"REFRESH_TIMESTAMP": 0}, "revocations": [row.to_dict() for row in rows]}).encode()


def said(*rows, now=NOW + 10, life=3600):
    return translate(read_rows(body(*rows)), KNOWN, issuer=ISSUER, longest_life=life, now=now)


def claims_of(done):
    return [request["data"]["claims"] for request in done.requests]


def test_rules_on_what_is_known_are_understood_with_their_cut_off():
    done = said(*rules(sub="robot", realm="/services"), *rules(azp="basket"), *rules(sub="jdoe"))
    assert claims_of(done) == [{"realm": "/services", "sub": "robot"}, {"azp": "basket"}, {"sub": "jdoe"}]
    assert {request["data"]["issued_before"] for request in done.requests} == {NOW}
    assert done.is_whole


def test_everything_becomes_everything_of_that_issuer():
    assert claims_of(said(*global_rows(issued_before=NOW, revoked_at=NOW))) == [{"iss": ISSUER}]


def test_what_is_not_known_and_single_tokens_are_left_and_counted():
    single = token_rows(["a.b.c"], iat=NOW, jti=None, cut_off=NOW, revoked_at=NOW, salt=SALT)
    done = said(*rules(sub="a-stranger"), *rules(email="jdoe"), *single)
    assert (done.requests, done.tokens, done.unknown) == ([], 1, [("sub",), ("email",)])
    assert not done.is_whole


def test_a_row_whose_tokens_are_over_needs_nobody_and_the_latest_cut_off_holds():
    done = said(*rules(NOW - 5000, sub="robot"), *rules(NOW - 20, sub="jdoe"), *rules(NOW - 5, sub="jdoe"))
    assert done.over == 1
    (request,) = done.requests
    assert request["data"]["issued_before"] == NOW - 5


def test_another_salt_understands_nothing():
    other = Known.of_lines(LINES, salt="another-salt-of-plan-b")
    done = translate(rules(sub="robot"), other, issuer=ISSUER, longest_life=3600, now=NOW)
    assert (done.requests, done.unknown) == ([], [("sub",)])


def test_guessing_is_bounded():
    def unknown(*rows):
        return translate(rows, KNOWN, issuer=ISSUER, longest_life=3600, now=NOW, max_guesses=5).unknown

    assert unknown(*rules(sub="robot", realm="/services")) == [("realm", "sub")]  # 3 names in 2 realms
    assert unknown(*rules(sub="robot")) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"revocations": 5}',
        b'{"revocations": [{}]}',
        b'{"revocations": [{"type": "TOKEN", "data": []}]}',
        b'{"revocations": [{"type": "CLAIM", "revoked_at": 1, "data": {"names": [], "value_hash": "x"}}]}',
        b'{"revocations": [{"type": "CLAIM", "revoked_at": 1, "data": {"names": [["sub"]], "value_hash": "x"}}]}',
        b'{"revocations": [{"type": "TOKEN", "revoked_at": 1, "data": {"token_hash": "x", "hash_algorithm": "MD5"}}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_list_of_plan_b_is_refused_whole(text):
    with pytest.raises(ProtocolError):
        read_rows(text)


def test_what_was_taken_over_hits_what_plan_b_hit():
    """The meaning of a row is that of Plan B's own validator."""
    row = rules(sub="robot", realm="/services")
    validator = PlanBTokeninfo(salt=SALT)
    validator.take(json.dumps({"meta": {}, "revocations": [each.to_dict() for each in row]}).encode(), now=NOW + 10)
    (request,) = said(*row).requests

    def hit(claims):
        rule = request["data"]
        return claims["iat"] < rule["issued_before"] and rule["claims"].items() <= claims.items()

    for sub in ("robot", "jdoe"):
        for realm in ("/services", "/employees"):
            for iat in (NOW - 1, NOW, NOW + 1):
                claims = {"sub": sub, "realm": realm, "iat": iat}
                assert hit(claims) == validator.refuses("a.b.c", claims), claims


class Service:
    """A revocation service that takes everything."""

    def __init__(self):
        self.posted = []
        self.issuer = FakeIssuer()
        self.server = LoopbackServer(self.answer)
        self.environ = {
            "TOKENRY_ISSUER": self.issuer.serve(),
            "TOKENRY_REVOCATION_URL": self.server.url,
            "TOKENRY_CLIENT_ID": "test-client",
            "TOKENRY_CLIENT_SECRET": "test-secret",
        }

    def answer(self, request):
        self.posted.append(json.loads(request.body))
        document = {"id": f"rev-{len(self.posted)}", "status": "accepted"}
        headers = Headers([("Content-Type", "application/json")])
        return Response(status=201, headers=headers, body=json.dumps(document).encode())

    def close(self):
        self.server.close()
        self.issuer.close()


@pytest.fixture
def service():
    made = Service()
    yield made
    made.close()


def run(service, folder, *rows, more=()):
    for name, content in (("list.json", body(*rows)), ("known", b"\n".join(LINES)), ("salt", SALT.encode() + b"\n")):
        (folder / name).write_bytes(content)
    words = ["revoke", "import", "--from-plan-b", folder / "list.json", "--known", folder / "known",
             "--salt-file", folder / "salt", "--issuer", ISSUER, *more]  # fmt: skip
    return CliRunner().invoke(app, [str(word) for word in words], env=service.environ)


def test_the_command_posts_and_says_how_to_undo_it_and_a_rehearsal_posts_nothing(service, tmp_path):
    rows = rules(int(time.time()) - 5, sub="robot")
    tried = run(service, tmp_path, *rows, more=("--dry-run",))
    assert (tried.exit_code, service.posted) == (0, [])
    assert "nothing was revoked" in tried.stderr
    done = run(service, tmp_path, *rows)
    assert done.exit_code == 0, done.output
    assert [each["data"]["claims"] for each in service.posted] == [{"sub": "robot"}]
    assert "undo, one at a time: tokenry revoke undo ID" in done.stderr
    assert "rev-1" in done.stdout
    assert SALT not in done.output


def test_what_is_left_is_said_with_status_7(service, tmp_path):
    done = run(service, tmp_path, *rules(int(time.time()) - 5, sub="a-stranger"), *rules(int(time.time()), sub="robot"))
    assert done.exit_code == 7
    assert "1 rules on claims stay with Plan B" in done.stderr
    assert len(service.posted) == 1


def test_a_list_that_is_none_revokes_nothing(service, tmp_path):
    (tmp_path / "empty").write_text("")
    done = run(service, tmp_path, more=("--from-plan-b", tmp_path / "empty"))
    assert (done.exit_code, service.posted) == (2, [])
    assert "nothing was revoked" in done.stderr
