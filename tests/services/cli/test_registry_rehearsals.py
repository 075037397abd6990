"""`--dry-run` over the registry and the keys: what it says is what happens then, and nothing happens before."""

import json
import os

import pytest
from typer.testing import CliRunner

from tests.services.cli.test_client import shell  # noqa: F401 -- a fixture
from tests.services.cli.test_keys import begun, place  # noqa: F401 -- fixtures
from tests.services.issuer.support import weak_bcrypt
from tokenry_cli.__main__ import app
from tokenry_cli.rehearsal import RehearsedStore
from tokenry_registry.adapters.directory import DirectoryStore
from tokenry_registry.ports import ObjectUnreadable, WriteConflict
from tokenry_revocation.adapters.sqlite import create_schema


@pytest.fixture
def stores(tmp_path):
    (tmp_path / "root").mkdir()
    real = DirectoryStore(tmp_path / "root")
    return real, RehearsedStore(real)


async def test_what_is_rehearsed_is_seen_by_the_rehearsal_alone(stores):
    real, store = stores
    before = await real.put("a/x.json", b"1", replaces=None)
    etag = await store.put("a/x.json", b"2", replaces=before)
    created = await store.put("a/y.json", b"3", replaces=None)
    assert (await store.get("a/x.json")).body == b"2"
    assert await store.get("a/x.json", etag=etag) is None
    assert dict(await store.list("a/")) == {"a/x.json": etag, "a/y.json": created}
    await store.delete("a/y.json", replaces=created)
    with pytest.raises(ObjectUnreadable):
        await store.get("a/y.json")
    assert dict(await real.list("")) == {"a/x.json": before}
    assert store.written == ["a/x.json", "a/y.json", "a/y.json"]


async def test_a_rehearsal_meets_the_conflicts_that_the_store_would(stores):
    real, store = stores
    etag = await real.put("a.json", b"1", replaces=None)
    for replaces in (None, "another"):
        with pytest.raises(WriteConflict):
            await store.put("a.json", b"2", replaces=replaces)
    with pytest.raises(WriteConflict):
        await store.delete("gone.json", replaces=etag)
    await store.delete("a.json", replaces=etag)
    with pytest.raises(WriteConflict):
        await store.delete("a.json", replaces=etag)


def test_each_change_of_a_client_can_be_rehearsed(shell):  # noqa: F811
    before = shell.snapshot()
    for words, said in (
        (("create", "services", "new"), "would create new"),
        (("disable", "services", "orders"), "would disable orders"),
        (("enable", "services", "orders"), "nothing to do: enabled already"),
        (("rotate-secret", "services", "orders"), "would make a new secret for orders"),
        (("apply", "-f", shell.write()), "2 to create"),
    ):
        result = shell.run("client", *words, "--dry-run")
        assert said in result.output
    assert shell.snapshot() == before
    shell.run("client", "create", "services", "orders", "--dry-run", code=5)
    shell.run("client", "disable", "services", "nobody", "--dry-run", code=3)
    shell.run("client", "create", "no realm", "x", "--dry-run", code=2)


@pytest.mark.parametrize("words", [("rotate",), ("publish",), ("rotate", "--if-due")])
def test_each_change_of_keys_can_be_rehearsed(begun, words):  # noqa: F811
    before = {path: path.read_bytes() for path in begun.folder.rglob("*.json")}
    result = begun.run(*words, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "nothing was changed" in result.output
    assert {path: path.read_bytes() for path in begun.folder.rglob("*.json")} == before


def test_a_rehearsal_is_refused_what_would_be_refused(begun):  # noqa: F811
    result = begun.run("retire", begun.only("published"), "--dry-run")
    assert result.exit_code == 5
    assert "the only standby" in result.output


@pytest.fixture
def protected(tmp_path, monkeypatch):
    """A current context that is protected."""
    path = tmp_path / "contexts.json"
    members = {"issuer": "http://127.0.0.1:9", "protected": True}
    path.write_text(json.dumps({"current": "prod", "contexts": {"prod": members}}))
    path.chmod(0o600)
    monkeypatch.setenv("TOKENRY_CONTEXTS", str(path))
    return {"TOKENRY_CONTEXTS": str(path)}


def test_a_protected_context_guards_the_registry(shell, protected):  # noqa: F811
    imported = shell.folder / "plan-b.ndjson"
    imported.write_text(json.dumps({"realm": "services", "client_id": "c", "secret_hash": weak_bcrypt("x")}))
    shell.run("admin", "backup", shell.folder / "backup.tar")
    shell.run("client", "create", "services", "gone", "--yes-on", "prod")
    before = shell.snapshot()
    for words in (
        ("client", "create", "services", "new"), ("client", "enable", "services", "orders"),
        ("client", "disable", "services", "orders"), ("client", "rotate-secret", "services", "orders", "--show-once"),
        ("client", "apply", "-f", shell.write()), ("client", "import", "--from-plan-b", imported),
    ):  # fmt: skip
        for how in ((), ("--yes",), ("--yes-on", "staging")):
            result = shell.run(*words, *how, code=2)
            assert "nothing was changed" in result.stderr, words
    assert shell.snapshot() == before
    shell.run("client", "apply", "-f", shell.write(), "--yes-on", "prod")
    assert shell.snapshot() != before
    shell.client("orders", scopes=["other"])
    (shell.root / "realms/services/clients/orders.json").unlink()
    assert "--yes-on prod" in shell.run("admin", "restore", shell.folder / "backup.tar", code=2).stderr
    shell.run("admin", "restore", shell.folder / "backup.tar", "--yes-on", "prod")
    assert (shell.root / "realms/services/clients/orders.json").exists()


@pytest.mark.parametrize("words", [("rotate",), ("publish",), ("rotate", "--emergency", "KID"), ("retire", "KID")])
def test_a_protected_context_guards_the_keys(begun, protected, words):  # noqa: F811
    kid = begun.only("active")
    before = {path: path.read_bytes() for path in begun.folder.rglob("*.json")}
    for how in ((), ("--yes",)):
        result = begun.run(*(word.replace("KID", kid) for word in words), *how, **protected)
        assert result.exit_code == 2, result.output
        assert "--yes-on prod" in result.stderr
    assert {path: path.read_bytes() for path in begun.folder.rglob("*.json")} == before


def test_a_key_in_kms_is_not_rehearsed(begun):  # noqa: F811
    result = begun.run("publish", "--kms", "--dry-run")
    assert result.exit_code == 2
    assert "cannot be rehearsed" in result.output


def test_an_import_says_its_undo_and_how_far_it_is(shell):  # noqa: F811
    file = shell.folder / "plan-b.ndjson"
    rows = [{"realm": "services", "client_id": f"c{n}", "secret_hash": weak_bcrypt("x")} for n in range(3)]
    file.write_text("\n".join(map(json.dumps, rows)))
    result = shell.run("client", "import", "--from-plan-b", file, "--progress", "json")
    events = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert [event["done"] for event in events] == [1, 2, 3, 3]
    assert events[-1]["event"] == "end"
    assert "undo: tokenry client disable" in result.stderr


def test_a_restore_says_its_undo(shell):  # noqa: F811
    backup = shell.folder / "backup.tar"
    shell.run("admin", "backup", backup)
    assert "undo" in shell.run("admin", "restore", backup).stderr


def test_a_restore_of_revocations_says_its_undo(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("TOKENRY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENRY_ISSUER", "http://127.0.0.1:9")
    monkeypatch.setenv("TOKENRY_STORE_URL", f"sqlite:///{tmp_path}/revocations.sqlite")
    monkeypatch.setenv("TOKENRY_REVOCATION_HASHING_SALT", "0123456789abcdef0123456789abcdef")
    create_schema(tmp_path / "revocations.sqlite", now=1_800_000_000.0)
    for words in (("backup-revocations",), ("restore-revocations", "--dry-run"), ("restore-revocations", "--yes")):
        result = CliRunner().invoke(app, ["admin", words[0], str(tmp_path / "file"), *words[1:]])
        assert result.exit_code == 0, result.output
    assert "undo: tokenry revoke undo ID" in result.stderr
