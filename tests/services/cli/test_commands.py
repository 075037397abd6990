"""All commands at once: options, exit codes, errors and undo are the same everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from tests.support.processes import base_environment
from tokenry.http.fetch import Response
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer
from tokenry_cli.__main__ import app
from tokenry_cli.commands import ENTRIES, load
from tokenry_cli.invocation import Form, Kind
from tokenry_cli.output import PAGE, PAGES, moment, relative, with_moments

ROOT = Path(__file__).resolve().parents[3]
SHARED = {"--yes", "--yes-on", "--no-input", "--quiet", "--verbose", "--no-color", "--timeout"}


def leaves():
    """Return every command with its words."""
    for name in ENTRIES:
        command = load(name)
        if hasattr(command, "commands"):
            yield from ((f"{name} {each}", leaf) for each, leaf in command.commands.items())
        else:
            yield name, command


LEAVES = dict(leaves())
# Commands that change something outside of this machine's own files, and how each says that it can be taken back.
WRITING = {
    "admin restore", "admin restore-revocations", "client apply", "client create", "client disable", "client enable",
    "client import", "client rotate-secret", "context add", "context remove", "context use", "job cancel",
    "keys publish", "keys retire", "keys rotate", "revoke all", "revoke approve", "revoke bulk", "revoke claim",
    "revoke import", "revoke key", "revoke token", "revoke undo",
}  # fmt: skip
# These write as well, and have nothing that could be tried first: files of this machine that are named on the command
# line and never overwritten, what is run again without harm, and measurements that leave one revoked token.
NOTHING_TO_TRY = {
    "admin backup", "admin backup-revocations", "admin bootstrap", "bench propagation", "canary", "credentials sync",
    "demo", "dev", "drill", "serve", "validators extend", "validators extend-key",
}  # fmt: skip
READING = {
    "audit export", "audit list", "audit verify", "bench issue", "bench validate", "client diff", "client get",
    "client list", "completion", "config check", "config schema", "config show", "context list", "context show",
    "doctor", "healthcheck", "job show", "job watch", "keys list", "keys show", "revoke list", "revoke show", "routes",
    "token get", "token inspect", "token introspect", "token verify", "validators list", "validators watch",
}  # fmt: skip


def options_of(command):
    return {option for param in command.params for option in (*param.opts, *param.secondary_opts)}


def test_each_command_is_known_to_write_or_to_read():
    assert set(LEAVES) == WRITING | NOTHING_TO_TRY | READING
    assert not WRITING & (NOTHING_TO_TRY | READING)


@pytest.mark.parametrize("words", sorted(set(LEAVES) - {"serve", "healthcheck"}))
def test_the_shared_options_are_everywhere(words):
    assert options_of(LEAVES[words]) >= SHARED


@pytest.mark.parametrize("words", sorted(WRITING))
def test_what_writes_can_be_tried_first(words):
    assert "--dry-run" in options_of(LEAVES[words])


@pytest.mark.parametrize("words", sorted(LEAVES))
def test_every_option_and_command_is_explained(words):
    command = LEAVES[words]
    assert command.help
    if words not in {"serve", "healthcheck"}:
        silent = [
            param.name for param in command.params if param.name != "help" and not param.hidden and not param.help
        ]
        assert silent == []


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_help_of_the_whole_says_what_the_command_says_itself(name):
    assert load(name).help.partition("\n\n")[0].replace("\n", " ") == ENTRIES[name].help


def test_the_pages_that_errors_name_are_there():
    assert set(PAGES) <= set(ENTRIES)
    for page in {PAGE, *PAGES.values()}:
        assert (ROOT / page).is_file(), page


def test_help_imports_no_driver():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom tokenry_cli.__main__ import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['revoke', 'claim', '--help']).exit_code == 0\n"
        "print(sorted(set(sys.modules) & {'aiohttp', 'boto3', 'botocore', 'cassandra', 'structlog', 'yaml',"
        " 'prometheus_client'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_the_version_is_printed():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("tokenry ")


# --- exit codes -----------------------------------------------------------------------------------------------


class Platform:
    """Issuer and revocation service; the second answers whatever it is told to."""

    def __init__(self):
        self.issuer = FakeIssuer()
        self.status, self.body, self.asked = 200, {}, []
        self.server = LoopbackServer(self.answer)
        self.url = self.issuer.serve()
        self.environ = {
            "TOKENRY_ISSUER": self.url, "TOKENRY_TOKENINFO_URL": self.server.url,
            "TOKENRY_REVOCATION_URL": self.server.url, "TOKENRY_CLIENT_ID": "test-client",
            "TOKENRY_CLIENT_SECRET": "test-secret",
        }  # fmt: skip

    def answer(self, request):
        self.asked.append(request)
        return Response(status=self.status, body=json.dumps(self.body).encode())

    def run(self, *words, **environ):
        return CliRunner().invoke(app, list(words), env={**self.environ, **environ})


@pytest.fixture
def platform(monkeypatch):
    for name in [name for name in os.environ if name.startswith("TOKENRY_")]:
        monkeypatch.delenv(name)
    platform = Platform()
    yield platform
    platform.server.close()
    platform.issuer.close()


# Every command that asks the revocation service or token info, as somebody would call it.
ASKING = {
    "audit export": (), "audit list": (), "audit verify": (), "bench validate": (),
    "job cancel": ("j", "--yes"), "job show": ("j",), "job watch": ("j",),
    "revoke all": ("--yes",), "revoke approve": ("r",), "revoke claim": ("sub=x",),
    "revoke key": ("k", "--yes"), "revoke list": (), "revoke show": ("r",), "revoke token": ("--jti", "x"),
    "revoke undo": ("r",), "token introspect": ("t",), "token verify": ("t",), "validators list": (),
    "validators watch": (),
}  # fmt: skip
CODES = {400: 2, 401: 4, 403: 4, 404: 3, 409: 5, 500: 1, 503: 1}


@pytest.mark.parametrize("words", sorted(ASKING))
def test_a_refusal_is_the_same_exit_code_everywhere_with_cause_next_step_and_page(platform, words):
    platform.body = {"title": "Refused", "detail": "because of a reason"}
    for status, code in CODES.items():
        platform.status = status
        result = platform.run(*words.split(), *ASKING[words])
        assert result.exit_code == code, (words, status, result.output)
        assert "error: " in result.stderr
        assert "because of a reason" in result.stderr
        assert "next:  " in result.stderr
        assert f"page:  {PAGES[words.split()[0]]}" in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("words", sorted({*ASKING, "token get", "bench issue", "bench propagation", "canary"}))
def test_no_issuer_and_wrong_usage_are_2(platform, words):
    more = ASKING.get(words, ())
    result = platform.run(*words.split(), *more, TOKENRY_ISSUER="")
    assert result.exit_code == 2
    assert "tokenry context add" in result.stderr
    assert platform.run(*words.split(), *more, "--no-such-option").exit_code == 2
    assert platform.run(*words.split(), *more, "--timeout", "0").exit_code == 2
    assert platform.asked == []


@pytest.mark.parametrize("words", sorted({*ASKING, "token get", "bench issue"} - {"validators watch"}))
def test_nobody_answers_is_1_and_safe_to_repeat(platform, words):
    result = platform.run(
        *words.split(), *ASKING.get(words, ()), TOKENRY_ISSUER="http://127.0.0.1:9",
        TOKENRY_REVOCATION_URL="http://127.0.0.1:9", TOKENRY_TOKENINFO_URL="http://127.0.0.1:9",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "next:  " in result.stderr


def test_ctrl_c_really_ends_with_130(platform, tmp_path):
    import signal
    import time

    platform.body = {"now": 0, "validators": []}
    # Whatever was started in the background has SIGINT ignored, and so would have what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "tokenry_cli", "validators", "watch"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**base_environment(), **platform.environ},
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        deadline = time.monotonic() + 60
        while not platform.asked and time.monotonic() < deadline:
            time.sleep(0.05)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, said


# --- what a success says --------------------------------------------------------------------------------------

ANSWER = {"id": "rev-1", "status": "accepted", "revoked_at": 1_800_000_000, "propagated_by": 1_800_000_031}


@pytest.mark.parametrize(
    ("words", "undo"),
    [
        (("revoke", "token", "--jti", "x"), "undo: tokenry revoke undo rev-1"),
        (("revoke", "claim", "sub=x"), "undo: tokenry revoke undo rev-1"),
        (("revoke", "all", "-y"), "undo: tokenry revoke undo rev-1"),
        (("revoke", "key", "k", "-y"), "There is no undo."),
        (("revoke", "undo", "rev-1"), "undo: revoke the same again"),
        (("revoke", "approve", "rev-1"), "undo: tokenry revoke undo rev-1"),
    ],
)
def test_each_success_says_how_to_undo_it_and_each_rehearsal_that_nothing_happened(platform, words, undo):
    platform.body = ANSWER
    result = platform.run(*words)
    assert result.exit_code == 0, result.output
    assert undo in result.stderr
    assert "rev-1" in result.stdout
    platform.asked.clear()
    tried = platform.run(*words, "--dry-run")
    assert tried.exit_code == 0, tried.output
    assert "nothing was" in tried.stderr
    assert undo not in tried.stderr
    assert all(request.method == "GET" or "dry_run=true" in request.url for request in platform.asked)
    quiet = platform.run(*words, "-q")
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert "rev-1" in quiet.stdout


def test_every_writing_command_has_a_test_of_its_undo():
    """The others are in the files of their commands: here is the list, so that none is forgotten."""
    here = {
        "revoke token", "revoke claim", "revoke all", "revoke key", "revoke undo", "revoke approve",
    }  # fmt: skip
    there = {
        "test_client.py": {"client create", "client enable", "client disable", "client rotate-secret", "client apply"},
        "test_registry_rehearsals.py": {"client import", "admin restore", "admin restore-revocations"},
        "test_keys.py": {"keys rotate", "keys publish", "keys retire"},
        "test_bulk.py": {"revoke bulk"},
        "test_plan_b_import.py": {"revoke import"},
        "test_contexts.py": {"context add", "context use", "context remove"},
        "test_asking.py": {"job cancel"},
    }
    assert here.union(*there.values()) == WRITING
    for name in there:
        assert "undo" in (Path(__file__).parent / name).read_text().lower()


# --- forms of output ------------------------------------------------------------------------------------------


def test_moments_are_rfc_3339_for_machines_and_relative_for_people(platform):
    platform.body = ANSWER
    told = json.loads(platform.run("revoke", "claim", "sub=x", "-o", "json").stdout)
    assert told["revoked_at"] == "2027-01-15T08:00:00Z"
    assert with_moments({"claims": {"exp_at": 5}, "a": [{"last_poll": 1.25}], "at": True}) == {
        "claims": {"exp_at": 5}, "a": [{"last_poll": "1970-01-01T00:00:01.250Z"}], "at": True
    }  # fmt: skip
    assert "(in " in platform.run("revoke", "claim", "sub=x").stdout
    assert (relative(5, now=9), relative(3609, now=9), moment(0)) == ("4 s ago", "in 60 min", "1970-01-01T00:00:00Z")


def test_the_forms_of_output(platform):
    platform.body = ANSWER
    ask = ("revoke", "claim", "sub=x", "-o")
    assert yaml.safe_load(platform.run(*ask, "yaml").stdout)["id"] == "rev-1"
    assert platform.run(*ask, "name").stdout == "rev-1\n"
    assert platform.run(*ask, "jsonpath={.status}").stdout == "accepted\n"
    assert "rev-1" in platform.run(*ask, "wide").stdout
    assert platform.run("revoke", "claim", "sub=x", TOKENRY_OUTPUT="name").stdout == "rev-1\n"
    assert platform.run(*ask, "table", TOKENRY_OUTPUT="name").stdout != "rev-1\n"
    platform.asked.clear()
    for wrong in ("xml", "jsonpath=", "jsonpath=.a[", "json=x", ""):
        result = platform.run(*ask, wrong)
        assert result.exit_code == 2, wrong
        assert "table|wide|json" in result.stderr or "JSONPath" in result.stderr
    assert platform.asked == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a", [{"b": [1, 2]}]), ("a.b[0]", [1]), ("{.a.b[*]}", [1, 2]), ("$.a['b'][1]", [2]), (".a.*", [[1, 2]]),
        (".nothing", []), (".a.b[7]", []), ("$.", [{"a": {"b": [1, 2]}}]),
    ],
)  # fmt: skip
def test_a_path_picks_values(path, found):
    form = Form.parse(f"jsonpath={path}")
    assert form.kind is Kind.JSONPATH
    assert form.pick({"a": {"b": [1, 2]}}) == found


@pytest.mark.parametrize("path", ["", "..", ".a[-1]", ".a[?(@.b)]", "." * 600, ".a b"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ValueError, match="JSONPath"):
        Form.parse(f"jsonpath={path}")


def test_no_colour_is_no_colour(platform):
    platform.body = ANSWER
    environ = {**base_environment(), **platform.environ, "FORCE_COLOR": "1"}
    words = [sys.executable, "-m", "tokenry_cli", "revoke", "claim", "sub=x"]

    def said(*more, **named):
        done = subprocess.run([*words, *more], capture_output=True, env={**environ, **named}, timeout=60, check=True)
        return done.stdout + done.stderr

    assert b"\x1b[3" in said()
    assert b"\x1b[3" not in said("--no-color")
    assert b"\x1b[3" not in said(NO_COLOR="1")


def test_verbose_shows_requests_and_no_secret(platform):
    platform.body = ANSWER
    result = platform.run("revoke", "claim", "sub=somebody", "-v")
    assert "POST" in result.stderr
    assert "/revocations: 200" in result.stderr
    for hidden in ("test-secret", "somebody", "Bearer", "eyJ"):
        assert hidden not in result.stderr


def test_a_request_takes_no_longer_than_was_said(platform):
    import threading

    over = threading.Event()
    server = LoopbackServer(lambda _: over.wait(60) and None)
    try:
        result = platform.run("revoke", "list", "--timeout", "0.3", TOKENRY_REVOCATION_URL=server.url)
    finally:
        over.set()
        server.close()
    assert result.exit_code == 1
    assert "doctor" in result.stderr


@pytest.fixture
def named(platform, tmp_path, monkeypatch):
    """The same platform as the context `prod`."""
    monkeypatch.setenv("TOKENRY_CONTEXTS", str(tmp_path / "contexts.json"))
    (tmp_path / "secret").write_text("test-secret")
    members = ("--client-id", "test-client", "--client-secret-file", str(tmp_path / "secret"))
    urls = ("--issuer", platform.url, "--revocation", platform.server.url)
    added = CliRunner().invoke(app, ["context", "add", "prod", *urls, *members])
    assert added.exit_code == 0, added.output
    return lambda *words: CliRunner().invoke(app, list(words))


def test_heads_of_tables_show_the_context_and_documents_do_not(platform, named):
    platform.body = {"now": 1_800_000_000, "validators": []}
    assert "context: prod" in named("validators", "list").stdout
    assert json.loads(named("validators", "list", "-o", "json").stdout)["validators"] == []
    platform.body = ANSWER
    assert "context: prod" in named("revoke", "show", "rev-1").stdout


def test_the_identity_of_the_context_is_sent_to_its_issuer(platform, named):
    assert named("token", "get").exit_code == 0
    assert platform.issuer.token_requests()


# --- completion -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell):
    result = CliRunner().invoke(app, ["completion", shell])
    assert result.exit_code == 0
    assert "_TOKENRY_COMPLETE" in result.stdout


def completed(words, tmp_path):
    """Return what bash completes after *words*, by the script that it is given."""
    (tmp_path / "tokenry").write_text(f'#!/bin/sh\nexec {sys.executable} -m tokenry_cli "$@"\n')
    (tmp_path / "tokenry").chmod(0o755)
    script = (
        'eval "$(tokenry completion bash)"\n'
        f"COMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        '"$(complete -p tokenry | sed -E "s/.* -F ([^ ]+) .*/\\1/")" tokenry\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environ = base_environment()
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=120, check=True,
        env={**environ, "PATH": f"{tmp_path}:{environ.get('PATH', os.defpath)}"},
    )  # fmt: skip
    return done.stdout.split()


def test_bash_completes_commands_and_options(tmp_path):
    assert completed("tokenry rev", tmp_path) == ["revoke"]
    assert {"claim", "token", "undo"} <= set(completed("tokenry revoke ''", tmp_path))
    assert "--yes-on" in completed("tokenry revoke claim --ye", tmp_path)


def test_the_root_command_is_a_group_that_knows_all():
    assert set(get_command(app).list_commands(None)) == set(ENTRIES)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_key_id_that_begins_with_a_dash_is_a_key_id_wherever_it_stands(platform, place):
    """One thumbprint in 64 does; in an incident nobody thinks of `--`."""
    platform.body = ANSWER
    kid = "-yqvoC_" + "A" * 36
    words = ["--yes", "--reason=leak"]
    words.insert(place, kid)
    result = platform.run("revoke", "key", *words)
    assert result.exit_code == 0, result.output
    (asked,) = [request for request in platform.asked if request.method == "POST" and "/revocations" in request.url]
    assert json.loads(asked.body)["data"]["kid"] == kid


def test_an_option_keeps_a_value_that_begins_with_a_dash_and_what_is_no_key_id_stays_an_option(platform):
    platform.body = ANSWER
    kid = "-yqvoC_" + "A" * 36
    assert platform.run("revoke", "token", "--jti", kid).exit_code == 0
    assert platform.run("revoke", "key", "-yes-please").exit_code == 2
