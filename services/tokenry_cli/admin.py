"""`tokenry admin`: set a platform up. Everything can be run again, and overwrites nothing."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenry.errors import ConfigurationError, TokenryError
from tokenry.serving.settings import FILE_SUFFIX, describe
from tokenry_cli import healthcheck as health
from tokenry_cli.dev_folder import ADMIN_SCOPES, DEMO_SCOPES, REALM, write_private
from tokenry_cli.output import ExitCode, data, fail, people
from tokenry_cli.stored_objects import StoreRefused, open_objects
from tokenry_issuer.settings import Settings
from tokenry_registry import bootstrap as objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenry.jose.sealing import EnvelopeKey
    from tokenry.serving.settings import ServiceSettings
    from tokenry_cli.stored_objects import StoredObjects

app = typer.Typer(no_args_is_help=True, help="Set a platform up.")

_DAY = 86_400
KEY_SIGNS = 180 * _DAY  # seconds until the standby takes over
KEY_LIVES = 365 * _DAY  # seconds in the JWK Set: signing, and until its last token is over
HANDOVER = 30 * _DAY  # seconds before a key's end at which its successor signs at the latest


def healthcheck(context: typer.Context) -> None:
    """Ask whether the service in this container is ready; exit 0 if so."""
    sys.exit(health.main(context.args, os.environ))


@app.command("bootstrap")
def bootstrap(
    demo: Annotated[
        bool, typer.Option("--demo", help="Also make a realm with a demo client and an administrator.")
    ] = False,
    context_file: Annotated[
        Path | None, typer.Option(help="With --demo: file (mode 0600) for their secrets; a context for all commands.")
    ] = None,
    create_bucket: Annotated[
        bool, typer.Option("--create-bucket", help="Make the bucket of TOKENRY_CREDENTIALS_URL where it is missing.")
    ] = False,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make a signing key and a standby in any case: after a revoked one.")
    ] = False,
) -> None:
    """
    Make what a platform needs before its first start: envelope key, signing keys, the store of revocations.

    Reads the settings of issuer and revocation service from the environment (the latter only if TOKENRY_STORE_URL
    is set). What is there stays as it is, so it is safe to run at every deployment; undo by deleting objects.
    """
    try:
        settings = Settings.from_environment(_known_to(Settings, os.environ))
        if demo and settings.environment == "production":
            fail("--demo makes well-known clients; TOKENRY_ENVIRONMENT is production", code=ExitCode.USAGE)
        store = open_objects(settings, create=create_bucket)
        envelope = objects.create_envelope_key(settings.envelope_key_file)
        made = _make_keys(store, envelope, announce=settings.announce, now=int(time.time()), always=new_key)
        people.print(f"signing keys: {', '.join(made) + ' made' if made else 'there'}")
        if demo:
            _demo(store, settings, context_file)
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)
    except (TokenryError, OSError) as error:
        fail(f"{error}; what was made stays, and running the same again is safe")
    if os.environ.get("TOKENRY_STORE_URL"):
        _create_schema(os.environ)


def _create_schema(environ: Mapping[str, str]) -> None:
    from tokenry_revocation.__main__ import CheckedSettings, create_schema

    if code := create_schema(_known_to(CheckedSettings, environ)):
        raise typer.Exit(code)


def _known_to(cls: type[ServiceSettings], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what *cls* reads of *environ*: here two services share one environment."""
    names = {name for setting in describe(cls) for name in (setting.name, *setting.other_names)}
    return {name: value for name, value in environ.items() if name in names or name.removesuffix(FILE_SUFFIX) in names}


# --- keys ---------------------------------------------------------------------------------------------------


def _make_keys(
    store: StoredObjects, envelope: EnvelopeKey, *, announce: int, now: int, always: bool
) -> tuple[str, ...]:
    """See that one key signs and one stands by, and return the kids that were made."""
    known = list(_key_times(store))
    wanted = list(_wanted_keys([] if always else known, first=not known, announce=announce, now=now))
    kids = []
    with tempfile.TemporaryDirectory() as name:
        for publish_at, activate_at, retire_at in wanted:
            kids.append(
                objects.create_signing_key(
                    Path(name), envelope, publish_at=publish_at, activate_at=activate_at, retire_at=retire_at
                )
            )
        _upload(store, Path(name))
    return tuple(kids)


def _wanted_keys(
    known: list[tuple[int, int]], *, first: bool, announce: int, now: int
) -> Iterator[tuple[int, int, int]]:
    """Yield (publish_at, activate_at, retire_at) of the keys that are missing beside the *known* ones."""
    # Nobody has cached a key set that never was, so the first keys count as announced.
    publish_at = now - announce if first else now
    signing = [retire_at for activate_at, retire_at in known if activate_at <= now < retire_at - _DAY]
    if not signing:
        signing = [now + KEY_LIVES]
        yield publish_at, now, now + KEY_LIVES
    if not any(activate_at > now for activate_at, _ in known):
        takes_over = max(now + announce, min(now + KEY_SIGNS, max(signing) - HANDOVER))
        yield publish_at, takes_over, takes_over + KEY_LIVES


def _key_times(store: StoredObjects) -> Iterator[tuple[int, int]]:
    for key in store.keys("keys/"):
        try:
            members = json.loads(store.read(key))
            times = int(members["activate_at"]), int(members["retire_at"])
        except (ValueError, KeyError, TypeError):
            raise StoreRefused(f"{key} is no signing key") from None
        if members.get("use") == "token":
            yield times


# --- the demo's people --------------------------------------------------------------------------------------


def _demo(store: StoredObjects, settings: Settings, context_file: Path | None) -> None:
    if f"realms/{REALM.strip('/')}/realm.json" in store.keys(f"realms/{REALM.strip('/')}/"):
        people.print(f"realm {REALM}: there; its secrets are in the context file of the first run")
        return
    identities = {name: {"client_id": name, "client_secret": objects.new_secret()} for name in ("demo", "admin")}
    document: dict[str, Any] = {
        "issuer": settings.issuer,
        "tokeninfo": settings.tokeninfo_url,
        "revocation": settings.revocation_url,
        "realm": REALM,
        "client": identities["demo"],
        "admin": identities["admin"],
    }
    if context_file is not None:
        # Before the clients: without their secrets they would be of no use to anybody.
        write_private(context_file, json.dumps(document, indent=2).encode())
    with tempfile.TemporaryDirectory() as name:
        for person, scopes in (("demo", DEMO_SCOPES), ("admin", ADMIN_SCOPES)):
            objects.write_client(
                Path(name),
                REALM,
                person,
                hashes=[objects.hash_secret(identities[person]["client_secret"])],
                created_at=int(time.time()),
                scopes=scopes,
                default_scopes=scopes,
                audiences=["orders"],
            )
        objects.write_realm(Path(name), REALM, environment=settings.environment)
        _upload(store, Path(name))
    people.print(f"realm {REALM} with the clients demo and admin: made. They are for trying out only.")
    for line in _curl_lines(document, context_file):
        data.print(line, markup=False)


def _curl_lines(document: dict[str, Any], context_file: Path | None) -> Iterator[str]:
    pair = "{client_id}:{client_secret}".format(**document["client"])
    asked = f"-d grant_type=client_credentials -d realm={REALM}"
    yield f"curl -s -u '{pair}' {asked} {document['issuer']}/oauth2/token"
    if document["tokeninfo"]:
        yield f'curl -s -H "Authorization: Bearer $TOKEN" {document["tokeninfo"]}/oauth2/tokeninfo'
    if document["revocation"] and context_file is not None:
        yield f"tokenry revoke claim sub=demo --context {context_file}"


def _upload(store: StoredObjects, folder: Path) -> None:
    """Write what is below *folder*, realms last: one that is there is complete, also after an interruption."""
    paths = sorted(folder.rglob("*.json"), key=lambda path: (path.name == "realm.json", path))
    for path in paths:
        store.create(path.relative_to(folder).as_posix(), path.read_bytes())
