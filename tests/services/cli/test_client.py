"""`tokenry client` and `tokenry admin backup|restore` over a folder, with the operator's own rights."""

import io
import json
import tarfile

import pytest
from typer.testing import CliRunner

from tests.services.issuer.support import weak_bcrypt
from tokenry.jose.sealing import EnvelopeKey
from tokenry_cli.__main__ import app
from tokenry_cli.confirming import confirm
from tokenry_registry import bootstrap

SECRET = "a-secret-of-before-0123456789-0123456789-0123"
FILE = """\
realm: services
clients:
  - client_id: orders
    scopes: [stock.read]
  - client_id: web
    scopes: [orders.read]
    application: shop
users:
  - username: robot
    scopes: [stock.read]
"""


class Shell:
    """The command, its registry and the applications' files."""

    def __init__(self, folder, monkeypatch):
        self.root, self.files = folder / "registry", folder / "applications"
        self.root.mkdir()
        self.folder = folder
        monkeypatch.chdir(folder)
        for name in ("TOKENRY_CONTEXT", "TOKENRY_REVOCATION_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TOKENRY_CREDENTIALS_URL", self.root.as_uri() + "/")
        monkeypatch.setenv("TOKENRY_ENVIRONMENT", "test")
        bootstrap.write_realm(self.root, "services", environment="test")
        self.client("orders", scopes=["stock.read"])

    def client(self, name, **members):
        hashes = [bootstrap.hash_secret(SECRET)]
        bootstrap.write_client(self.root, "services", name, hashes=hashes, created_at=1, **members)

    def user(self, name):
        bootstrap.write_user(self.root, "services", name, hashes=[bootstrap.hash_secret(SECRET)], created_at=1)

    def run(self, *words, code=0, typed=None):
        result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
        assert result.exit_code == code, result.output
        return result

    def json(self, *words, code=0):
        return json.loads(self.run(*words, "-o", "json", code=code).stdout)

    def write(self, text=FILE):
        path = self.folder / "clients.yaml"
        path.write_text(text)
        return path

    def stored(self, path):
        return json.loads((self.root / "realms/services" / path).read_text())

    def snapshot(self):
        return {path: path.read_bytes() for path in self.root.rglob("*.json")}


@pytest.fixture
def shell(tmp_path, monkeypatch):
    return Shell(tmp_path, monkeypatch)


# --- as code ------------------------------------------------------------------------------------------------


def test_applying_makes_the_registry_what_the_file_says_and_twice_writes_nothing(shell):
    file = shell.write()
    first = shell.run("client", "apply", "-f", file)
    assert "2 to create" in first.output
    assert "without a secret: web" in first.output
    assert shell.stored("clients/web.json")["scopes"] == ["orders.read"]
    before = shell.snapshot()
    second = shell.json("client", "apply", "-f", file)
    assert second == {"changes": [], "unchanged": 3}
    assert shell.snapshot() == before


def test_secrets_stay_as_they_are_and_everything_else_is_what_the_file_says(shell):
    shell.client("orders", scopes=["stock.read", "gone"], audiences=["gone"])
    secrets = shell.stored("clients/orders.json")["secrets"]
    shell.run("client", "apply", "-f", shell.write())
    stored = shell.stored("clients/orders.json")
    assert (stored["scopes"], stored["secrets"]) == (["stock.read"], secrets)
    assert "audiences" not in stored


@pytest.mark.parametrize("words", [("diff",), ("apply", "--dry-run"), ("apply", "--dry-run", "--prune")])
def test_looking_changes_nothing(shell, words):
    shell.client("old")
    before = shell.snapshot()
    result = shell.run("client", words[0], "-f", shell.write(), *words[1:], code=5 if words[0] == "diff" else 0)
    assert "web" in result.output
    assert ("old" in result.output) == ("--prune" in words)
    assert shell.snapshot() == before


def test_a_diff_without_difference_ends_with_0(shell):
    file = shell.write("realm: services\nclients:\n  - client_id: orders\n    scopes: [stock.read]\n"
                       "    grant_types: [client_credentials]\n    audiences: []\n    enabled: true\n")  # fmt: skip
    shell.run("client", "diff", "-f", file)


def test_what_is_not_in_the_file_is_deleted_with_prune_alone_and_confirmed_by_the_realms_name(shell):
    shell.client("old")
    file = shell.write()
    shell.run("client", "apply", "-f", file)
    assert (shell.root / "realms/services/clients/old.json").exists()
    nobody = shell.run("client", "apply", "-f", file, "--prune", code=2)
    assert "--yes" in nobody.output
    assert (shell.root / "realms/services/clients/old.json").exists()
    done = shell.run("client", "apply", "-f", file, "--prune", "--yes", "--backup", shell.folder / "before.tar")
    assert not (shell.root / "realms/services/clients/old.json").exists()
    assert "tokenry admin restore" in done.output
    shell.run("admin", "restore", shell.folder / "before.tar")
    assert (shell.root / "realms/services/clients/old.json").exists()


def test_a_prune_that_issuers_would_take_for_an_accident_is_refused(shell):
    for number in range(40):
        shell.client(f"c{number}")
    before = shell.snapshot()
    result = shell.run("client", "apply", "-f", shell.write(), "--prune", "--yes", code=2)
    assert "accident" in result.output
    assert shell.snapshot() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("realm: services\nclients:\n  - client_id: web\n    scopes: [a b]\n", "clients.yaml:4: "),
        ("realm: services\nclients:\n  - client_id: web\n    grant_types: [magic]\n", "clients.yaml:4: "),
        ("realm: services\nclients:\n  - client_id: web\n    token_lifetime: 999999\n", "clients.yaml:4: "),
        ("realm: services\nclients:\n  - client_id: web\n    jwks: {keys: []}\n", "clients.yaml:4: "),
        ("realm: services\nclients:\n  - client_id: web\n    default_scopes: [x]\n", "clients.yaml:4: "),
        ("realm: nowhere\nclients:\n  - client_id: web\n", "clients.yaml:3: there is no realm /nowhere"),
        ("realm: services\nusers:\n  - username: orders\n", "clients.yaml:3: orders is the name of a client"),
        ("realm: services\nclients:\n  - client_id: web\n    scop: []\n", "clients.yaml:4: scop: there is no such"),
    ],
)
def test_a_file_that_no_issuer_would_follow_writes_nothing_at_all(shell, text, said):
    before = shell.snapshot()
    result = shell.run("client", "apply", "-f", shell.write(text), code=2)
    assert said in result.output.replace("\n", " ")
    assert shell.snapshot() == before


def test_a_new_realm_gets_the_environment_that_was_set_and_one_of_another_is_not_touched(shell, monkeypatch):
    file = shell.write("realms:\n  - realm: fresh\nclients:\n  - client_id: web\n    realm: fresh\n")
    shell.run("client", "apply", "-f", file)
    assert json.loads((shell.root / "realms/fresh/realm.json").read_text())["environment"] == "test"
    monkeypatch.setenv("TOKENRY_ENVIRONMENT", "production")
    before = shell.snapshot()
    result = shell.run("client", "apply", "-f", shell.write(), code=2)
    assert "another environment" in result.output
    shell.run("client", "disable", "services", "orders", "--yes", code=2)
    assert shell.snapshot() == before


# --- one at a time ------------------------------------------------------------------------------------------


def test_listing_and_showing_never_show_a_hash(shell):
    for words in (("list",), ("list", "-o", "json"), ("get", "services", "orders"), ("list", "--users")):
        assert "sha256:" not in shell.run("client", *words).output
    assert shell.json("client", "get", "services", "orders")["secrets"][0]["kind"] == "sha256"
    (shell.root / "realms/services/clients/broken.json").write_text("{")
    assert "broken" in shell.run("client", "list", code=7).output


def test_a_client_is_created_disabled_and_enabled_and_each_says_its_undo(shell):
    made = shell.run("client", "create", "services", "web", "--scope", "b", "--scope", "a")
    assert "rotate-secret services web" in made.output
    assert shell.stored("clients/web.json") == {"client_id": "web", "scopes": ["a", "b"]}
    shell.run("client", "create", "services", "web", code=5)
    shell.run("client", "create", "services", "web", "--user", code=5)
    assert "nobody is there to ask" in shell.run("client", "disable", "services", "web", code=2).output
    off = shell.run("client", "disable", "services", "web", "--yes")
    assert "undo: tokenry client enable services web" in off.output
    assert shell.stored("clients/web.json")["enabled"] is False
    shell.run("client", "enable", "services", "web")
    assert shell.stored("clients/web.json")["enabled"] is True
    shell.run("client", "enable", "services", "nobody", code=3)
    shell.run("client", "enable", "ser/vices", "nobody", code=2)


def test_the_name_has_to_be_typed(capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    confirm("Type orders", "orders", yes=False, terminal=Terminal("orders\n"))
    for typed in ("", "order\n", "yes\n"):
        with pytest.raises(SystemExit) as ended:
            confirm("Type orders", "orders", yes=False, terminal=Terminal(typed))
        assert ended.value.code == 2


def test_disabling_with_revocation_needs_a_revocation_service_and_does_nothing_without(shell):
    before = shell.snapshot()
    shell.run("client", "disable", "services", "orders", "--revoke", "--yes", code=2)
    assert shell.snapshot() == before


def test_a_registry_that_is_not_there_is_said_so(shell, monkeypatch):
    monkeypatch.setenv("TOKENRY_CREDENTIALS_URL", (shell.folder / "nowhere").as_uri() + "/")
    assert "TOKENRY_CREDENTIALS_URL" in shell.run("client", "list", code=1).output
    monkeypatch.setenv("TOKENRY_CREDENTIALS_URL", "ftp://nowhere/")
    assert "TOKENRY_CREDENTIALS_URL" in shell.run("client", "list", code=2).output


def test_without_a_place_for_files_a_secret_is_printed_only_where_it_is_asked_for(shell):
    before = shell.snapshot()
    result = shell.run("client", "rotate-secret", "services", "orders", code=2)
    assert "--show-once" in result.output
    assert shell.snapshot() == before


# --- taking over from Plan B --------------------------------------------------------------------------------


def test_plan_bs_clients_and_users_are_imported_once_and_wrong_lines_are_named(shell):
    client = {"realm": "/services", "client_id": "old", "secret_hash": weak_bcrypt("x"), "scopes": ["uid"],
              "is_confidential": True}  # fmt: skip
    user = {"realm": "services", "username": "robot", "password_hashes": [weak_bcrypt("y")], "scopes": {"uid": 1}}
    lines = [client, user, {**client, "client_id": "bad", "secret_hash": "plain"}, client, {"realm": "services"}]
    file = shell.folder / "plan-b.ndjson"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\nno json\n")
    assert shell.json("client", "import", "--from-plan-b", file, "--dry-run", code=7)["imported"] == 2
    assert not (shell.root / "realms/services/clients/old.json").exists()
    answer = shell.json("client", "import", "--from-plan-b", file, code=7)
    assert (answer["imported"], answer["there"]) == (2, 0)
    assert [failed["line"] for failed in answer["failed"]] == [3, 4, 5, 7]
    assert shell.stored("clients/old.json")["grant_types"] == ["password"]
    assert shell.stored("users/robot.json")["scopes"] == ["uid"]
    again = shell.json("client", "import", "--from-plan-b", file, code=7)
    assert (again["imported"], again["there"]) == (0, 2)


def test_what_is_there_and_says_something_else_is_not_overwritten_by_an_import(shell):
    file = shell.folder / "plan-b.ndjson"
    file.write_text(json.dumps({"realm": "services", "client_id": "orders", "secret_hash": weak_bcrypt("x")}))
    before = shell.snapshot()
    assert "already" in shell.run("client", "import", "--from-plan-b", file, code=7).output
    assert shell.snapshot() == before


# --- backup and restore -------------------------------------------------------------------------------------


def add_key(shell):
    return bootstrap.create_signing_key(
        shell.root, EnvelopeKey.generate(), publish_at=1, activate_at=2, retire_at=2_000_000_000
    )


def test_a_backup_brings_back_every_byte_sealed_keys_included(shell):
    kid = add_key(shell)
    shell.user("robot")
    (shell.root / "revocation-rules").mkdir()
    (shell.root / "revocation-rules/team.json").write_text("{}")
    before, file = shell.snapshot(), shell.folder / "registry.tar"
    said = shell.json("admin", "backup", file)
    assert said["objects"] == {"realms": 3, "keys": 1, "revocation-rules": 1}
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert f"keys/{kid}.json".encode() in content
    assert b'"sealed"' in content
    assert b'"d"' not in content
    for path in before:
        path.unlink()
    assert shell.json("admin", "restore", file, "--dry-run")["missing"] == 5
    assert shell.snapshot() == {}
    assert shell.json("admin", "restore", file)["written"] == 5
    assert shell.snapshot() == before
    assert shell.json("admin", "restore", file)["written"] == 0


def test_a_restore_does_not_overwrite_what_may_be_newer_unless_forced_and_confirmed(shell):
    file = shell.folder / "registry.tar"
    shell.run("admin", "backup", file)
    shell.run("client", "disable", "services", "orders", "--yes")
    shell.client("newer")
    (shell.root / "realms/services/realm.json").unlink()
    before = shell.snapshot()
    assert "differ" in shell.run("admin", "restore", file, code=5).output
    shell.run("admin", "restore", file, "--force", code=2)
    assert shell.snapshot() == before
    answer = shell.json("admin", "restore", file, "--force", "--yes")
    assert (answer["written"], answer["differing"], answer["not_in_the_file"]) == (
        2, ["realms/services/clients/orders.json"], 1,
    )  # fmt: skip
    assert shell.stored("clients/orders.json").get("enabled") is True
    assert (shell.root / "realms/services/clients/newer.json").exists()


def test_a_restore_refuses_another_environment(shell, monkeypatch):
    file = shell.folder / "registry.tar"
    shell.run("admin", "backup", file)
    monkeypatch.setenv("TOKENRY_ENVIRONMENT", "production")
    assert "environment" in shell.run("admin", "restore", file, "--force", "--yes", code=5).output
    # nor is a backup made of it under a wrong name
    shell.run("admin", "backup", shell.folder / "other.tar", code=5)
    assert not (shell.folder / "other.tar").exists()


def rewritten(path, change):
    """Write the archive at *path* anew with its members as *change* gives them back."""
    with tarfile.open(path) as archive:
        members = [(entry.name, archive.extractfile(entry).read()) for entry in archive]
    with tarfile.open(path, "w") as archive:
        for name, body in change(members):
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))


@pytest.mark.parametrize(
    "change",
    [
        lambda members: [*members[:-1], (members[-1][0], members[-1][1] + b" ")],
        lambda members: members[:-1],
        lambda members: [*members, ("realms/services/clients/extra.json", b"{}")],
        lambda members: [*members, members[-1]],
        lambda members: members[1:],
        lambda members: [*members, ("../outside.json", b"{}")],
        lambda members: [(name, body.replace(b'"version": 1', b'"version": 2')) for name, body in members],
        lambda members: [],
    ],
    ids=["changed", "incomplete", "more", "twice", "no manifest", "outside", "version", "empty"],
)
def test_a_file_that_is_not_what_its_manifest_says_restores_nothing(shell, change):
    file = shell.folder / "registry.tar"
    shell.run("admin", "backup", file)
    rewritten(file, change)
    (shell.root / "realms/services/clients/orders.json").unlink()
    before = shell.snapshot()
    shell.run("admin", "restore", file, "--force", "--yes", code=5)
    assert shell.snapshot() == before
    assert not list(shell.folder.glob("outside*"))


def test_a_key_that_is_not_sealed_never_gets_into_a_backup_or_out_of_one(shell):
    kid = add_key(shell)
    path = shell.root / f"keys/{kid}.json"
    members = json.loads(path.read_text())
    path.write_text(json.dumps({**members, "public_jwk": {**members["public_jwk"], "d": "AAAA"}}))
    file = shell.folder / "registry.tar"
    assert kid in shell.run("admin", "backup", file, code=5).output
    assert not file.exists()


def test_a_backup_is_not_overwritten_by_accident(shell):
    file = shell.folder / "registry.tar"
    file.write_text("mine")
    shell.run("admin", "backup", file, code=5)
    assert file.read_text() == "mine"
    shell.run("admin", "backup", file, "--overwrite")


def test_what_is_written_is_in_the_audit_file_and_a_rehearsal_is_not(shell, monkeypatch, tmp_path):
    log = tmp_path / "audit.jsonl"
    monkeypatch.setenv("TOKENRY_AUDIT_FILE", str(log))
    shell.run("client", "disable", "services", "orders", "--yes", "--dry-run")
    assert not log.exists()
    shell.run("client", "disable", "services", "orders", "--yes")
    shell.run("client", "enable", "services", "orders")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["event"], each["name"]) for each in records] == [("disabled", "orders"), ("enabled", "orders")]
    assert CliRunner().invoke(app, ["audit", "verify", str(log)]).exit_code == 0
