"""What `tokenry dev` puts into its folder: keys, two realms with the same people in both, an empty store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenry_cli.dev_folder import ADMIN_SCOPES, DEMO_SCOPES, PLAN_B_REALM, REALM, DevFolder, Identities
from tokenry_registry import bootstrap
from tokenry_revocation.adapters.sqlite import create_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = 86_400
_KEY_SIGNS = 180 * _DAY  # seconds until the standby takes over
_KEY_LIVES = 365 * _DAY
_ENVIRONMENT = "dev"
_GRANTS = ("client_credentials", "password")


def prepare(folder: DevFolder, identities: Identities, *, now: float) -> None:
    """Bring the folder's credentials, keys and store to what *identities* and Unix time *now* ask for."""
    create_schema(folder.revocations, now=now, environment=_ENVIRONMENT)
    _keys(folder, int(now))
    for realm, profile in ((REALM, "rfc9068"), (PLAN_B_REALM, "plan-b")):
        _realm(folder, identities, realm, profile, created_at=int(now))


def _realm(folder: DevFolder, identities: Identities, realm: str, profile: str, *, created_at: int) -> None:
    if (folder.credentials / "realms" / realm.strip("/") / "realm.json").exists():
        return  # made by an earlier start; what was changed by hand since then stays
    root = folder.credentials
    for person, scopes in ((identities.client, DEMO_SCOPES), (identities.admin, ADMIN_SCOPES)):
        bootstrap.write_client(
            root,
            realm,
            person["client_id"],
            hashes=[bootstrap.hash_secret(person["client_secret"])],
            created_at=created_at,
            scopes=scopes,
            default_scopes=scopes,
            audiences=["orders"],
            grant_types=_GRANTS,
        )
    bootstrap.write_user(
        root,
        realm,
        identities.user["username"],
        hashes=[bootstrap.hash_secret(identities.user["password"])],
        created_at=created_at,
        scopes=DEMO_SCOPES,
    )
    # Last: a realm that is there is complete, also when a first start was interrupted.
    bootstrap.write_realm(root, realm, environment=_ENVIRONMENT, claims_profile=profile, grant_types=_GRANTS)


def _keys(folder: DevFolder, now: int) -> None:
    """See that one key signs and one stands by, also when the folder was last used long ago."""
    envelope_key = bootstrap.create_envelope_key(folder.envelope_key)
    known = list(_key_times(folder))
    if not any(activate_at <= now < retire_at - _DAY for activate_at, retire_at in known):
        # Nobody has cached this platform's key set, so the key counts as announced.
        bootstrap.create_signing_key(
            folder.credentials,
            envelope_key,
            publish_at=now - _DAY,
            activate_at=now - _DAY,
            retire_at=now + _KEY_LIVES,
        )
    if not any(retire_at > now + _DAY for _, retire_at in _key_times(folder, use="list")):
        bootstrap.create_signing_key(
            folder.credentials,
            envelope_key,
            publish_at=now - _DAY,
            activate_at=now - _DAY,
            retire_at=now + _KEY_LIVES,
            use="list",
        )
    if not any(activate_at > now for activate_at, _ in known):
        bootstrap.create_signing_key(
            folder.credentials,
            envelope_key,
            publish_at=now - _DAY,
            activate_at=now + _KEY_SIGNS,
            retire_at=now + _KEY_SIGNS + _KEY_LIVES,
        )


def _key_times(folder: DevFolder, *, use: str = "token") -> Iterator[tuple[int, int]]:
    for path in sorted((folder.credentials / "keys").glob("*.json")):
        key = json.loads(path.read_bytes())
        if key["use"] == use:
            yield key["activate_at"], key["retire_at"]
