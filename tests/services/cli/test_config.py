"""`tokenry config`: what a service would read, without its secrets, and every fault at once."""

import json
import os

import jsonschema
import pytest
from typer.testing import CliRunner

from tokenry.serving.settings import describe
from tokenry_cli.__main__ import app
from tokenry_cli.config import MASK, Role, schema_of, settings_class
from tokenry_cli.serve import Role as ServeRole

SALT = "0123456789abcdef0123456789abcdef"
RIGHT = {
    "TOKENRY_ISSUER": "https://tokens.test",
    "TOKENRY_REVOCATION_HASHING_SALT": SALT,
    "TOKENRY_STORE_URL": "cassandra://user:hunter2@db.test/tokenry",
}


@pytest.fixture
def run(monkeypatch):
    for name in [name for name in os.environ if name.startswith("TOKENRY_")]:
        monkeypatch.delenv(name)

    def run(*words, code=0, **environ):
        result = CliRunner().invoke(app, ["config", *words], env=environ)
        assert result.exit_code == code, result.output
        return result

    return run


def test_every_service_that_can_be_run_has_its_settings_here():
    assert [role.value for role in Role] == [role.value for role in ServeRole]


def test_what_is_set_is_shown_with_its_source_and_no_secret(run):
    shown = run("show", "revocation", "-o", "json", **RIGHT)
    rows = {row["name"]: row for row in json.loads(shown.stdout)["settings"]}
    assert rows["TOKENRY_ISSUER"]["value"] == "https://tokens.test"
    assert rows["TOKENRY_REVOCATION_HASHING_SALT"]["value"] == MASK
    assert "TOKENRY_LISTEN_ADDRESS" not in rows
    for form in ("table", "wide", "json", "yaml"):
        said = run("show", "revocation", "--effective", "-o", form, **RIGHT).output
        assert SALT not in said
        assert "hunter2" not in said


def test_effective_shows_every_setting_with_its_default(run):
    shown = json.loads(run("show", "issuer", "--effective", "-o", "json").stdout)
    rows = {row["name"]: row for row in shown["settings"]}
    assert set(rows) == {setting.name for setting in describe(settings_class(Role.ISSUER))}
    assert rows["TOKENRY_ENVIRONMENT"] | {"description": ""} == {
        "name": "TOKENRY_ENVIRONMENT", "type": "text", "description": "", "value": "development", "source": "default"
    }  # fmt: skip


def test_a_file_is_named_and_not_read(run, tmp_path):
    (tmp_path / "salt").write_text(SALT)
    environ = {"TOKENRY_REVOCATION_HASHING_SALT_FILE": str(tmp_path / "salt")}
    shown = run("show", "revocation", "-o", "json", **environ)
    assert json.loads(shown.stdout)["settings"][0]["value"] == f"(in {tmp_path}/salt)"
    assert SALT not in shown.output


def test_all_faults_are_named_at_once_with_2(run):
    result = run("check", "tokeninfo", code=2, TOKENRY_ISSUER="nothing", TOKENRY_DRAIN_SECONDS="soon")
    for name in ("TOKENRY_ISSUER", "TOKENRY_DRAIN_SECONDS"):
        assert name in result.stderr
    assert "next:  mend all of them" in result.stderr
    told = json.loads(run("check", "tokeninfo", "-o", "json", code=2, TOKENRY_ISSUER="nothing").stdout)
    assert told["valid"] is False
    assert told["faults"]


def test_right_settings_pass(run):
    result = run("check", "tokeninfo", TOKENRY_ISSUER="https://t.test", TOKENRY_REVOCATION_URL="https://r.test")
    assert "are right" in result.stderr


@pytest.mark.parametrize("role", list(Role))
def test_the_schema_is_one_and_fits_the_settings(run, role):
    schema = json.loads(run("schema", role.value).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    cls = settings_class(role)
    assert schema == schema_of(cls, role.value)
    assert {setting.name for setting in describe(cls)} <= set(schema["properties"])
    required = [setting.name for setting in describe(cls) if setting.required]
    validator = jsonschema.Draft202012Validator(schema)
    given = dict.fromkeys(required, "x")
    assert validator.is_valid({**given, "PATH": "/bin"})
    for name in required:
        assert not validator.is_valid({other: "x" for other in required if other != name})
        assert validator.is_valid({**{other: "x" for other in required if other != name}, f"{name}_FILE": "/f"})
    assert not validator.is_valid({**given, "TOKENRY_LISTEN_ADDRESS": 80})
