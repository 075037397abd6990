"""Contexts: what is kept, what is refused, and whom a command acts as."""

import json
import os
import pty
import stat
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from tests.support.processes import base_environment
from tokenry.errors import ConfigurationError
from tokenry_cli.__main__ import app
from tokenry_cli.confirming import confirm
from tokenry_cli.context import load_context
from tokenry_cli.contexts import changing, read_contexts
from tokenry_cli.invocation import Invocation, calling

PROD = "https://tokens.prod.test"
STAGING = "https://tokens.staging.test"


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("TOKENRY_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "here" / "contexts.json"
    monkeypatch.setenv("TOKENRY_CONTEXTS", str(path))
    secret = tmp_path / "secret"
    secret.write_text("of-prod\n")
    return path


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def add(place, name, issuer, *more, code=0):
    secret = place.parent.parent / "secret"
    identity = ("--client-id", f"ops-{name}", "--client-secret-file", secret)
    return run("context", "add", name, "--issuer", issuer, *identity, *more, code=code)


def loaded(environ, place, **named):
    return load_context({"TOKENRY_CONTEXTS": str(place), **environ}, **named)


def test_a_context_is_added_used_shown_listed_and_removed_and_each_says_its_undo(place):
    added = add(place, "prod", PROD, "--protected", "--environment", "production", "--revocation", f"{PROD}/r")
    assert "undo: tokenry context remove prod" in added.stderr
    assert add(place, "staging", STAGING).stderr.count("next: tokenry context use staging") == 1
    assert "undo: tokenry context use prod" in run("context", "use", "staging").stderr
    listed = json.loads(run("context", "list", "-o", "json").stdout)
    assert [(each["name"], each["current"]) for each in listed["contexts"]] == [("prod", False), ("staging", True)]
    assert run("context", "list", "-o", "name").stdout.split() == ["prod", "staging"]
    shown = json.loads(run("context", "show", "prod", "-o", "json").stdout)
    assert (shown["issuer"], shown["protected"], shown["client_id"]) == (PROD, True, "ops-prod")
    removed = run("context", "remove", "staging")
    assert "undo: tokenry context add staging --client-id ops-staging" in removed.stderr
    assert read_contexts(place).current is None


def test_the_file_is_for_its_owner_alone_and_holds_no_secret(place):
    add(place, "prod", PROD)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert "of-prod" not in place.read_text()
    assert "of-prod" not in run("context", "show", "prod", "-o", "json").output


@pytest.mark.parametrize("verb", [("use", "nope"), ("show", "nope"), ("remove", "nope")])
def test_a_context_that_is_not_there_is_not_found(place, verb):
    add(place, "prod", PROD)
    result = run("context", *verb, code=3)
    assert "there are: prod" in result.stderr


def test_a_literal_secret_is_refused_with_what_to_do(place):
    result = run("context", "add", "x", "--issuer", PROD, "--client-id", "c", "--client-secret", "s3cret-text", code=2)
    assert "--client-secret-file" in result.stderr
    assert "s3cret-text" not in result.output
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"contexts": {"x": {"issuer": PROD, "client_secret": "s3cret-text"}}}))
    place.chmod(0o600)
    result = run("context", "list", code=2)
    assert "client_secret_file" in result.stderr
    assert "s3cret-text" not in result.output


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "issuer is missing"),
        ({"issuer": "ftp://x"}, "issuer is a URL"),
        ({"issuer": "https://user:pw@x"}, "issuer is a URL"),
        ({"issuer": PROD, "isuer": "y"}, "no member isuer"),
        ({"issuer": PROD, "client_id": "c"}, "belong together"),
        ({"issuer": PROD, "protected": "yes"}, "protected is true or false"),
        ({"issuer": PROD, "realm": 5}, "realm is a text"),
        ([], "has no members"),
    ],
)
def test_a_file_that_is_wrong_says_where(place, members, words):
    place.parent.mkdir()
    place.write_text(json.dumps({"contexts": {"x": members}}))
    place.chmod(0o600)
    assert words in run("context", "list", code=2).stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"contexts": []}', "{", "[" * 100_000])
def test_a_file_that_is_none_is_refused_and_stays(place, text):
    place.parent.mkdir()
    place.write_text(text)
    place.chmod(0o600)
    assert "cannot be read" in add(place, "x", PROD, code=2).stderr
    assert place.read_text() == text


def test_a_file_that_others_can_write_is_refused(place):
    add(place, "prod", PROD)
    place.chmod(0o622)
    assert "chmod 600" in run("context", "list", code=2).stderr


def test_a_name_is_taken_once_and_dry_runs_write_nothing(place):
    add(place, "prod", PROD)
    before = place.read_bytes()
    assert "--overwrite" in add(place, "prod", STAGING, code=5).stderr
    add(place, "new", STAGING, "--dry-run")
    run("context", "remove", "prod", "--dry-run")
    run("context", "use", "prod", "--dry-run")
    assert "no name for a context" in add(place, "../x", STAGING, "--dry-run", code=2).stderr
    assert place.read_bytes() == before


def test_many_writers_lose_nothing(place):
    def write(number):
        with changing(place) as contexts:
            contexts.named[f"c{number}"] = {"issuer": PROD}

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_contexts(place).named) == 20


# --- whom a command acts as -----------------------------------------------------------------------------------


def test_a_context_is_chosen_by_name_then_environment_then_the_current_one(place):
    add(place, "prod", PROD)
    add(place, "staging", STAGING)
    assert loaded({}, place).issuer == PROD
    assert loaded({"TOKENRY_CONTEXT": "staging"}, place).name == "staging"
    chosen = loaded({"TOKENRY_CONTEXT": "staging"}, place, file="prod")
    assert (chosen.name, chosen.client_id, chosen.client_secret.reveal()) == ("prod", "ops-prod", "of-prod")


def test_no_context_at_all_can_be_asked_for(place):
    add(place, "prod", PROD)
    assert loaded({"TOKENRY_ISSUER": STAGING}, place, file="-").client_id is None
    with pytest.raises(ConfigurationError, match="no issuer"):
        loaded({}, place, file="-")


def test_a_secret_goes_to_no_other_issuer_than_its_own(place):
    add(place, "prod", PROD)
    with pytest.raises(ConfigurationError, match="must not go to the other"):
        loaded({"TOKENRY_ISSUER": STAGING}, place)
    assert loaded({"TOKENRY_ISSUER": f"{PROD}/"}, place).issuer == PROD
    assert "must not go" in " ".join(run_with({"TOKENRY_ISSUER": STAGING}, "revoke", "list", code=2).stderr.split())


def run_with(environ, *words, code):
    result = CliRunner().invoke(app, list(words), env=environ)
    assert result.exit_code == code, result.output
    return result


def test_an_identity_is_from_one_place(place):
    add(place, "prod", PROD)
    both = loaded({"TOKENRY_CLIENT_ID": "me", "TOKENRY_CLIENT_SECRET": "mine"}, place)
    assert (both.client_id, both.client_secret.reveal()) == ("me", "mine")
    for half in ({"TOKENRY_CLIENT_ID": "me"}, {"TOKENRY_CLIENT_SECRET": "mine"}):
        with pytest.raises(ConfigurationError, match="half of the environment"):
            loaded(half, place)


def test_single_settings_of_the_environment_win(place):
    add(place, "prod", PROD, "--revocation", f"{PROD}/r")
    assert loaded({"TOKENRY_REVOCATION_URL": "https://other.test"}, place).revocation == "https://other.test"


def test_a_file_of_dev_is_a_context_as_well_and_a_name_wins_over_a_file(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ready = {"issuer": STAGING, "client": {"client_id": "demo", "client_secret": "d"}}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    assert loaded({}, place, file="ready.json").client_id == "demo"
    (tmp_path / "prod").write_text(json.dumps(ready))
    add(place, "prod", PROD)
    assert loaded({}, place, file="prod").issuer == PROD
    with pytest.raises(ConfigurationError, match="no context 'nope'"):
        loaded({}, place, file="nope")


@pytest.mark.parametrize("text", ["", " \n", "x" * 5000])
def test_a_file_without_a_usable_secret_is_an_error_that_names_the_setting(place, text):
    add(place, "prod", PROD)
    (place.parent.parent / "secret").write_text(text)
    with pytest.raises(ConfigurationError, match="client_secret_file"):
        loaded({}, place)


# --- protected contexts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--yes",), "--yes is not enough"),
        ((), "nobody is there to ask"),
        (("--yes-on", "staging"), "--yes-on names staging"),
        (("--no-input",), "nobody is there to ask"),
    ],
)
def test_a_protected_context_is_not_changed_by_the_way(place, words, said):
    add(place, "prod", PROD, "--protected", "--revocation", "http://127.0.0.1:9")
    for command in (("revoke", "all"), ("revoke", "claim", "sub=x"), ("revoke", "undo", "r1"), ("revoke", "key", "k")):
        result = run(*command, *words, code=2)
        assert said in result.stderr, command
        assert "nothing was changed" in result.stderr


def test_a_protected_context_is_changed_by_its_name(place):
    add(place, "prod", "http://127.0.0.1:9", "--protected", "--revocation", "http://127.0.0.1:9")
    assert "nothing is known to be revoked" in run("revoke", "claim", "sub=x", "--yes-on", "prod", code=1).stderr


def test_yes_is_enough_where_nothing_is_protected(place):
    add(place, "dev", "http://127.0.0.1:9", "--revocation", "http://127.0.0.1:9")
    assert "nothing is known to be revoked" in run("revoke", "all", "--yes", code=1).stderr


class Terminal:
    def __init__(self, typed):
        self._typed = typed

    def isatty(self):
        return True

    def readline(self):
        return self._typed


def test_where_somebody_is_the_name_is_asked_for_and_the_prompt_shows_the_context(place, capfd):
    add(place, "prod", PROD, "--protected")
    confirm("Type x", "x", terminal=Terminal("x\n"))
    assert "prod: Type x" in capfd.readouterr().err
    with pytest.raises(SystemExit) as ended:
        confirm("Type x", "x", terminal=Terminal("y\n"))
    assert ended.value.code == 2
    with calling(Invocation(no_input=True)), pytest.raises(SystemExit):
        confirm("Type x", "x", terminal=Terminal("x\n"))


def test_a_terminal_is_really_asked(place):
    """Over a real pseudo-terminal: the right word goes on, another one ends with 2."""
    add(place, "prod", "http://127.0.0.1:9", "--protected", "--revocation", "http://127.0.0.1:9")
    for typed, code in ((b"all\n", 1), (b"no\n", 2)):
        outer, inner = pty.openpty()
        try:
            os.write(outer, typed)
            done = subprocess.run(
                [sys.executable, "-m", "tokenry_cli", "revoke", "all"],
                stdin=inner, capture_output=True, timeout=120, check=False,
                env={**base_environment(), "TOKENRY_CONTEXTS": str(place)},
            )  # fmt: skip
        finally:
            os.close(outer)
            os.close(inner)
        assert done.returncode == code, done.stderr.decode()
        assert b"prod: Every token of the platform will be refused" in done.stderr
