import json
import stat

import pytest

from tests.services.issuer.support import NOW
from tokenry.jose.sealing import EnvelopeKey
from tokenry_registry import bootstrap
from tokenry_registry.realms import Refusal, RefusedObject, read_key, read_object
from tokenry_registry.signing_keys import open_key, read_stored_key


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_the_issuer_reads(tmp_path):
    bootstrap.write_realm(tmp_path, "/services", environment="dev", grant_types=["password"])
    bootstrap.write_client(
        tmp_path, "services", "orders", hashes=[bootstrap.hash_secret("s")], created_at=NOW, scopes=["b", "a"],
        default_scopes=["a"], audiences=["x"], token_lifetime=60, enabled=False,
    )  # fmt: skip
    bootstrap.write_user(tmp_path, "/services", "robot", hashes=[], created_at=NOW, scopes=["a"], clients=["orders"])
    assert everything(tmp_path) == {
        "realms/services/realm.json",
        "realms/services/clients/orders.json",
        "realms/services/users/robot.json",
    }
    for key in everything(tmp_path):
        body = (tmp_path / key).read_bytes()
        read_object(read_key(key), body, environment="dev", max_token_lifetime=3600)
    client = json.loads((tmp_path / "realms/services/clients/orders.json").read_bytes())
    assert client["scopes"] == ["a", "b"]
    assert client["enabled"] is False


def test_nobody_else_may_read_it_and_no_temporary_file_stays(tmp_path):
    root = tmp_path / "credentials"
    envelope = EnvelopeKey.generate()
    kid = bootstrap.create_signing_key(root, envelope, publish_at=1, activate_at=2, retire_at=3)
    path = root / "keys" / f"{kid}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert everything(root) == {f"keys/{kid}.json"}
    open_key(read_stored_key(path.read_bytes(), kid=kid), envelope=envelope)


def test_writing_again_replaces_the_whole_object(tmp_path):
    for lifetime in (60, 120):
        bootstrap.write_realm(tmp_path, "services", environment="dev", token_lifetime=lifetime)
    assert json.loads((tmp_path / "realms/services/realm.json").read_bytes())["token_lifetime"] == 120


def test_what_the_issuer_would_refuse_is_not_written(tmp_path):
    with pytest.raises(RefusedObject) as refused:
        bootstrap.write_client(tmp_path, "services", "orders", hashes=["plain"], created_at=NOW)
    assert refused.value.cause is Refusal.MALFORMED
    with pytest.raises(RefusedObject):
        bootstrap.write_client(tmp_path, "services", "../../escape", hashes=[], created_at=NOW)
    with pytest.raises(RefusedObject):
        bootstrap.write_realm(tmp_path, "a/b", environment="dev")
    assert everything(tmp_path) == set()
