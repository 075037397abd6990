"""`tokenry keys` over a folder: what it shows, changes, refuses, and says comes next."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from moto import mock_aws
from typer.testing import CliRunner

from tests.support.processes import base_environment
from tokenry.jose.sealing import EnvelopeKey
from tokenry_cli import keys as module
from tokenry_cli.__main__ import app
from tokenry_registry import bootstrap
from tokenry_registry.envelope import read_envelope_key
from tokenry_registry.signing_keys import open_key, read_stored_key

DAY = 86_400
HOUR = 3600


class Folder:
    def __init__(self, path):
        self.path, self.folder = path, path / "credentials"
        self.folder.mkdir()
        bootstrap.create_envelope_key(path / "envelope.key")
        self.environ = {
            "TOKENRY_CREDENTIALS_URL": f"file://{self.folder}/",
            "TOKENRY_ENVELOPE_KEY_FILE": str(path / "envelope.key"),
            "COLUMNS": "300",
        }

    def run(self, *arguments, **environ):
        return CliRunner().invoke(app, ["keys", *arguments], env=self.environ | environ)

    def json(self, *arguments, **environ):
        done = self.run(*arguments, "-o", "json", **environ)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def keys(self, **environ):
        return {key["kid"]: key for key in self.json("list", "--all", **environ)["keys"]}

    def only(self, state):
        (found,) = [kid for kid, key in self.keys().items() if key["state"] == state]
        return found

    def change(self, kid, **members):
        path = self.folder / "keys" / f"{kid}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | members))


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("TOKENRY_", "AWS_"))]:
        monkeypatch.delenv(name)
    return Folder(tmp_path)


@pytest.fixture
def begun(place):
    """A key that has signed for two days, and its standby."""
    assert place.run("rotate", "--if-due").exit_code == 0
    began = int(time.time()) - 2 * DAY
    place.change(place.only("active"), publish_at=began - HOUR, activate_at=began)
    place.change(place.only("published"), publish_at=began - HOUR)
    return place


def test_the_first_keys_are_made_and_running_again_changes_nothing(place):
    first = place.run("rotate", "--if-due")
    assert first.exit_code == 0
    assert first.stderr.count("✓") == 2
    assert "nothing is due" in place.run("rotate", "--if-due").stderr
    assert sorted(key["state"] for key in place.keys().values()) == ["active", "published"]
    for path in (place.folder / "keys").iterdir():
        open_key(
            read_stored_key(path.read_bytes(), kid=path.stem),
            envelope=read_envelope_key(Path(place.environ["TOKENRY_ENVELOPE_KEY_FILE"])),
        )


def test_the_table_has_the_columns_that_were_promised(begun):
    active, standby = begun.only("active"), begun.only("published")
    head, first, second = begun.run("list").stdout.splitlines()
    columns = ["KID", "ALG", "STATE", "PUBLISHED", "SIGNS FROM", "SIGNS UNTIL", "REMOVABLE AFTER", "TOKENS ALIVE"]
    assert [name for name in columns if name in head] == columns
    assert first.split()[:3] == [standby, "ES256", "Published"]
    assert first.split()[-1] == "0"  # it has never signed
    assert second.split()[:3] == [active, "ES256", "Signing"]
    assert second.split()[-1] == "-"  # nobody could be asked


def test_json_is_for_machines(begun):
    listed = begun.json("list")
    assert {"kid", "use", "alg", "custody", "state", "publish_at", "activate_at", "retire_at", "removable_at"} <= set(
        listed["keys"][0]
    )
    assert listed["next_rotation_at"] == listed["keys"][0]["activate_at"]
    assert listed["refused"] == {}


def test_what_changes_is_told_to_machines_on_standard_output_and_nothing_else_is(begun):
    active, standby = begun.only("active"), begun.only("published")
    assert {key["kid"] for key in begun.json("rotate")["keys"]} > {standby}
    assert [key["kid"] for key in begun.json("publish")["keys"]]
    assert active in {key["kid"] for key in begun.json("rotate", "--emergency", active, "--yes")["keys"]}
    assert begun.json("rotate", "--if-due") == {"keys": []}


def test_a_rotation_says_what_happens_next_and_that_there_is_no_undo(begun):
    active, standby = begun.only("active"), begun.only("published")
    done = begun.run("rotate")
    assert done.exit_code == 0
    assert f"{standby}  token  signs, as soon as issuers have read it" in done.stderr
    assert "There is no undo" in done.stderr
    assert begun.only("active") == standby
    assert begun.only("retiring") == active


def test_F32_a_key_that_a_living_token_could_need_is_not_removed(begun):
    active, standby = begun.only("active"), begun.only("published")
    for kid, why in ((active, "signs now"), (standby, "only standby")):
        done = begun.run("retire", kid, "--yes")
        assert (done.exit_code, why in done.stderr, "nothing was changed" in done.stderr) == (5, True, True)
    begun.run("rotate")
    done = begun.run("retire", active, "--yes")
    assert (done.exit_code, "may be in use for" in done.stderr) == (5, True)
    assert begun.only("retiring") == active


def test_a_key_that_nothing_needs_is_retired(begun):
    active = begun.only("active")
    begun.run("rotate")
    now = int(time.time())
    begun.change(begun.only("active"), activate_at=now - 2 * HOUR)
    done = begun.run("retire", active, "--yes")
    assert done.exit_code == 0, done.output
    assert "no undo" in done.stderr
    assert begun.only("retired") == active
    assert active not in begun.run("list").stdout
    assert active in begun.run("list", "--all").stdout


def test_an_emergency_takes_the_key_away_and_says_how_to_revoke_it(begun):
    active, standby = begun.only("active"), begun.only("published")
    done = begun.run("rotate", "--emergency", active, "--yes")
    assert done.exit_code == 0, done.output
    assert f"tokenry revoke key {active} --reason key-compromise" in done.stderr
    assert begun.only("active") == standby
    assert begun.only("retired") == active
    assert len(begun.keys()) == 3  # and there is a standby again
    assert begun.run("rotate", "--emergency", active, "--yes").exit_code == 3


def test_publishing_says_how_to_undo_it_and_that_works(begun):
    before = set(begun.keys())
    done = begun.run("publish")
    (made,) = set(begun.keys()) - before
    assert f"Undo: tokenry keys retire {made}" in done.stderr
    assert begun.run("retire", made, "--yes").exit_code == 0


def test_nothing_dangerous_happens_where_nobody_can_be_asked(begun):
    active = begun.only("active")
    for arguments in (("retire", active), ("rotate", "--emergency", active)):
        done = begun.run(*arguments)
        assert (done.exit_code, "--yes" in done.stderr) == (2, True)
    assert begun.only("active") == active


@pytest.mark.processes
@pytest.mark.parametrize(("typed", "code"), [("something else", 2), (None, 0)])
def test_the_kid_has_to_be_typed(begun, typed, code):
    active = begun.only("active")
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tokenry"), "keys", "rotate", "--emergency", active],
        env=base_environment(begun.environ), stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.write(mine, f"{typed or active}\n".encode())
    process.communicate(timeout=60)
    os.close(mine)
    os.close(theirs)
    assert process.returncode == code
    assert (begun.keys()[active]["state"] == "retired") == (code == 0)


def test_one_key_in_full_and_as_it_is_stored(begun):
    active = begun.only("active")
    assert "RFC" not in begun.run("show", active).stdout
    assert begun.json("show", active)["state"] == "active"
    stored = begun.run("show", active, "--stored")
    assert json.loads(stored.stdout)["kid"] == active
    for arguments in (("show", "nope"), ("show", "nope", "--stored"), ("retire", "nope", "--yes")):
        assert begun.run(*arguments).exit_code == 3


def test_keys_for_lists_and_answers_are_kept_where_their_envelope_keys_are(place):
    lists, answers = EnvelopeKey.generate().to_text(), EnvelopeKey.generate().to_text()
    keys = {"TOKENRY_LIST_ENVELOPE_KEY": lists, "TOKENRY_INTROSPECTION_ENVELOPE_KEY": answers}
    assert place.run("rotate", "--use", "list").exit_code == 3
    assert place.run("rotate", "--if-due", **keys).exit_code == 0
    assert sorted(key["use"] for key in place.keys(**keys).values()) == sorted(["introspection", "list", "token"] * 2)
    assert place.run("rotate", "--use", "list", **keys).exit_code == 0


def test_keys_in_kms(begun):
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "TOKENRY_KMS_REGION": "eu-central-1"}
    with mock_aws():
        done = begun.run("rotate", "--kms", **aws)
        assert done.exit_code == 0, done.output
        (made,) = [key for key in begun.keys().values() if key["custody"] == "kms"]
        assert made["kms_key_id"].startswith("arn:aws:kms:eu-central-1:")
        assert "HELD" in begun.run("list").stdout


@pytest.mark.parametrize(
    ("changes", "code", "why"),
    [
        ({"TOKENRY_CREDENTIALS_URL": ""}, 2, "TOKENRY_CREDENTIALS_URL"),
        ({"TOKENRY_ENVELOPE_KEY_FILE": ""}, 2, "TOKENRY_ENVELOPE_KEY_FILE"),
        ({"TOKENRY_KEY_ROTATION_OVERLAP": "61s"}, 2, "announced"),
        ({"TOKENRY_KEY_ROTATION_PERIOD": "1h"}, 2, "shorter than the overlap"),
        ({"TOKENRY_LIST_ENVELOPE_KEY": "short"}, 2, "32 bytes"),
        ({"TOKENRY_CREDENTIALS_URL": "file:///nowhere/at/all/"}, 1, "no_such_folder"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(place, changes, code, why):
    done = place.run("rotate", "--if-due", **changes)
    assert (done.exit_code, why in done.stderr) == (code, True), done.output
    assert "Traceback" not in done.output


def test_a_damaged_object_is_named_and_the_others_are_shown(begun):
    (begun.folder / "keys/odd.json").write_text("{")
    done = begun.run("list")
    assert done.exit_code == 0
    assert "keys/odd.json is not in force" in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_near_times_are_hours_and_far_ones_days():
    now = 1_800_000_000
    assert module._when(now + HOUR, now) == "09:00Z"
    assert module._when(now + 10 * DAY, now) == "25 Jan"
    assert module._when(now + 400 * DAY, now) == "19 Feb 2028"
    assert module._when(None, now) == "–"  # noqa: RUF001


def test_what_is_written_is_in_the_audit_file_and_what_is_only_looked_at_is_not(place, tmp_path):
    log = tmp_path / "audit.jsonl"
    assert place.run("rotate", "--if-due", TOKENRY_AUDIT_FILE=str(log)).exit_code == 0
    assert place.run("list", TOKENRY_AUDIT_FILE=str(log)).exit_code == 0
    (record,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (record["event"], sorted(record["kids"])) == ("keys written", sorted(place.keys()))
    assert place.run("publish", TOKENRY_AUDIT_FILE=str(log)).exit_code == 0
    assert len(log.read_text().splitlines()) == 2
    verified = CliRunner().invoke(app, ["audit", "verify", str(log)])
    assert (verified.exit_code, "1 chains, 2 records" in verified.output) == (0, True)
    sealed = json.loads((place.folder / "keys" / f"{record['kids'][0]}.json").read_text())["sealed"]
    assert str(sealed) not in log.read_text()


def test_without_its_audit_file_nothing_is_done(place, tmp_path):
    done = place.run("rotate", "--if-due", TOKENRY_AUDIT_FILE=str(tmp_path / "nowhere/audit.jsonl"))
    assert (done.exit_code, "nothing was done" in done.output) == (2, True)
    assert not (place.folder / "keys").exists()
