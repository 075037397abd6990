"""
What a release puts on the wire and into its stores, recorded: `python -m tests.support.wire_fixtures FOLDER`.

Run it once for a release that changes a form, into a folder of its own (`tests/fixtures/wire-2`), and never again over
one that is there: what was recorded stands for programs that run somewhere. Everything in it was made for this.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.http import call
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tokenry.jose.encoding import b64url_decode, parse_json_object
from tokenry.revocation.wire import BINARY_TYPE

PUBLISH_SECONDS = 5
WANTED = 60.0


def record(folder: Path) -> None:
    """Start a platform, do what leaves every form behind, and keep what it said."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        processes = Processes(Path(name) / "processes")
        try:
            _record(Deployment(Path(name), processes), folder, processes)
        finally:
            processes.end()


def _record(platform: Deployment, folder: Path, processes: Processes) -> None:
    platform.use_folder()
    platform.use_sqlite()
    platform.use_signed_list(seconds=PUBLISH_SECONDS)
    platform.write_client("leaked", **_client(platform))
    platform.start()
    began = int(time.time())
    tokens = {name: platform.token() for name in ("good", "revoked", "revoked_by_id", "undone")}
    tokens["of_a_leaked_client"] = _token(platform, realm="/services", client_id="leaked")
    tokens["plan_b"] = _token(platform, realm="/plan-b", client_id=platform.identities.client["client_id"])
    admin = platform.admin_token()
    _post(platform, admin, "TOKEN", {"token": tokens["revoked"]})
    cursor = quote(call("GET", platform.url("revocation", "/revocations/snapshot")).json["cursor"], safe="")
    _post(platform, admin, "TOKEN", {"jti": _claims(tokens["revoked_by_id"])["jti"], "expires_at": began + 3600})
    _post(platform, admin, "CLAIM", {"claims": {"client_id": "leaked"}, "block_until": began + 3600})
    _post(platform, admin, "KEY", {"kid": "a-key-that-leaked"})
    undone = _post(platform, admin, "TOKEN", {"token": tokens["undone"], "reason": "test"})
    url = platform.url("revocation", f"/revocations/{undone['id']}/undo")
    assert call("POST", url, document={}, bearer=admin).status in {200, 201}
    _wait_for_lists(platform)
    lists = {
        "snapshot.json": call("GET", platform.url("revocation", "/revocations/snapshot")),
        "snapshot.bin": call(
            "GET", platform.url("revocation", "/revocations/snapshot"), headers={"Accept": BINARY_TYPE}
        ),
        "snapshot-created-at.json": call("GET", platform.url("revocation", "/revocations/snapshot?created_at=true")),
        "changes.json": call("GET", platform.url("revocation", f"/revocations/changes?after={cursor}")),
        "jwks.json": call("GET", platform.url("issuer", "/.well-known/jwks.json")),
        "list-jwks.json": call("GET", _metadata(platform)["revocation_list_jwks_uri"]),
        "metadata.json": call("GET", platform.url("issuer", "/.well-known/oauth-authorization-server")),
    }
    for name, answer in lists.items():
        assert answer.status == 200, (name, answer)
        (folder / name).write_bytes(answer.body)
    shutil.copy(platform._folder.published / "revocation-list.jwt", folder / "signed-list.jwt")
    _keep_stored(platform, folder)
    saved = processes.start(
        "backup",
        [Path(sys.executable).with_name("tokenry"), "admin", "backup-revocations", str(folder / "store.ndjson")],
        env=platform._environment("revocation"),
    )
    assert saved.wait(seconds=WANTED) == 0, saved.output()
    facts = {"recorded_at": int(time.time()), "issuer": platform.url("issuer", ""), "environment": "dev"}
    (folder / "tokens.json").write_text(json.dumps({**facts, "tokens": tokens}, indent=1) + "\n")


def _client(platform: Deployment) -> dict[str, Any]:
    path = platform._folder.credentials / "realms" / "services" / "clients"
    members: dict[str, Any] = json.loads((path / f"{platform.identities.client['client_id']}.json").read_bytes())
    return {name: value for name, value in members.items() if name != "client_id"}


def _token(platform: Deployment, *, realm: str, client_id: str) -> str:
    form = {"grant_type": "client_credentials", "realm": realm}
    basic = (client_id, platform.identities.client["client_secret"])
    answer = call("POST", platform.url("issuer", "/oauth2/token"), form=form, basic=basic)
    assert answer.status == 200, answer
    return str(answer.json["access_token"])


def _claims(token: str) -> dict[str, Any]:
    return parse_json_object(b64url_decode(token.split(".")[1]))


def _post(platform: Deployment, admin: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    document = {"type": kind, "data": data}
    answer = call("POST", platform.url("revocation", "/revocations"), document=document, bearer=admin)
    assert answer.status == 201, answer
    found: dict[str, Any] = answer.json
    return found


def _metadata(platform: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = call("GET", platform.url("issuer", "/.well-known/oauth-authorization-server")).json
    return found


def _wait_for_lists(platform: Deployment) -> None:
    """Return when a signed list was published that has everything."""
    end = time.monotonic() + WANTED
    published, needed = platform._folder.published / "revocation-list.jwt", time.time() + 1
    while not published.exists() or _claims(published.read_text())["as_of"] < needed:
        assert time.monotonic() < end
        time.sleep(0.2)


def _keep_stored(platform: Deployment, folder: Path) -> None:
    root = platform._folder.credentials
    for path in (each for each in root.rglob("*.json") if each.is_file()):
        kept = folder / "stored" / path.relative_to(root)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
    shutil.copyfile(platform._folder.envelope_key, folder / "envelope-key.txt")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
