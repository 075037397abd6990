"""`tokenry admin`: set a platform up. Everything can be run again, and overwrites nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError, TokenryError
from tokenry_admin.backup import BackupRefused, compare, read_backup, summary
from tokenry_admin.backup import restore as write_back
from tokenry_admin.key_opening import open_keys, open_store
from tokenry_admin.key_settings import KeySettings
from tokenry_cli import healthcheck as health
from tokenry_cli.app import App
from tokenry_cli.client import save_backup
from tokenry_cli.confirming import confirm, confirm_if_protected
from tokenry_cli.dev_folder import ADMIN_SCOPES, DEMO_SCOPES, REALM, write_private
from tokenry_cli.environment import known_to
from tokenry_cli.output import ExitCode, Format, data, fail, log_to_stderr, people, show
from tokenry_cli.registry import OpenRegistry, with_registry
from tokenry_cli.stored_objects import StoreRefused, open_objects
from tokenry_cli.token import Output
from tokenry_issuer.settings import Settings
from tokenry_registry import bootstrap as objects
from tokenry_registry.location import folder_of
from tokenry_registry.signing_keys import KeyUse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenry_cli.stored_objects import StoredObjects

app = App(name="admin", no_args_is_help=True, help="Set a platform up.")

_ENVELOPES = ("TOKENRY_LIST_ENVELOPE_KEY_FILE", "TOKENRY_INTROSPECTION_ENVELOPE_KEY_FILE")


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
    Make what a platform needs before its first start: envelope keys, signing keys, the store of revocations.

    Reads the settings of issuer and revocation service from the environment (the latter only if TOKENRY_STORE_URL
    is set). Keys for revocation lists are made where TOKENRY_LIST_ENVELOPE_KEY_FILE is set, keys for signed
    introspection where TOKENRY_INTROSPECTION_ENVELOPE_KEY_FILE is; each file is made where it is missing. What is
    there stays as it is, so it is safe to run at every deployment; undo by deleting objects.
    """
    try:
        settings = Settings.from_environment(known_to(Settings, os.environ))
        if demo and settings.environment == "production":
            fail("--demo makes well-known clients; TOKENRY_ENVIRONMENT is production", code=ExitCode.USAGE)
        store = open_objects(settings, create=create_bucket)
        objects.create_envelope_key(settings.envelope_key_file)
        for name in _ENVELOPES:
            if os.environ.get(name):
                objects.create_envelope_key(Path(os.environ[name]))
        log_to_stderr()
        for use, made in asyncio.run(_make_keys(os.environ, always=new_key)).items():
            people.print(f"keys that sign {use}s: {', '.join(made) + ' made' if made else 'there'}")
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

    if code := create_schema(known_to(CheckedSettings, environ)):
        raise typer.Exit(code)


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="File to write (mode 0600): the whole registry.", dir_okay=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file where there is one.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """
    Write the registry into one file: realms, clients, users, trust rules, revocation rules, and the sealed keys.

    The envelope key is not in it: without that the file signs nothing, and neither does what is restored from it.
    """
    if file.exists() and not overwrite:
        fail(f"{file} is there: choose another name, or --overwrite", code=ExitCode.CONFLICT)
    show(with_registry(lambda registry: save_backup(registry, file)), form=output)
    people.print("[green]written[/green]; keep it as you keep the bucket, and the manifest's digest somewhere else")


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="File of `tokenry admin backup`.", dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also overwrite what differs: secrets rotated since stop to work.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """
    Bring back what is missing in the registry. What differs may be newer: it is overwritten with --force alone.

    What is in the registry and not in the file stays. A file of another environment is refused.
    """

    async def act(registry: OpenRegistry) -> dict[str, Any]:
        environment = registry.settings.environment
        try:
            with file.open("rb") as content:
                manifest, bodies = await asyncio.to_thread(read_backup, content, environment=environment)
        except OSError as error:
            raise BackupRefused(f"{file} cannot be read: {error.strerror}") from None
        difference = await compare(registry.store, bodies)
        answer: dict[str, Any] = {
            **summary(manifest), "missing": len(difference.missing), "differing": sorted(difference.differing),
            "not_in_the_file": len(difference.more), "the_same": difference.same, "written": 0,
        }  # fmt: skip
        if not dry_run:
            if not force and difference.missing:
                confirm_if_protected(f"{len(difference.missing)} objects will be brought back")
            if force and difference.differing:
                count = len(difference.differing)
                confirm(f"{count} objects will be what they were. Type {environment} to go on", environment, yes=yes)
            answer["written"] = await write_back(registry.store, bodies, difference, force=force)
        return answer

    answer = with_registry(act)
    show(answer, form=output)
    if not dry_run:
        people.print("[green]restored[/green]; issuers know in 60 s; undo: restore a backup of before")


# --- keys ---------------------------------------------------------------------------------------------------


async def _make_keys(environ: Mapping[str, str], *, always: bool) -> dict[KeyUse, list[str]]:
    """See that of each use one key signs and one stands by, and return the kids that were made."""
    settings = KeySettings.from_environment(known_to(KeySettings, environ))
    if urlsplit(settings.credentials_url).scheme == "file":
        folder_of(settings.credentials_url).mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_store(settings)
    try:
        actions = open_keys(settings, store, clock=SystemClock())
        _, refused = await actions.views()
        for path, why in refused.items():
            raise StoreRefused(f"{path} is no signing key: {why}")
        made = {use: await actions.rotate_due(use) for use in actions.uses}
        if always and not made[KeyUse.TOKEN]:
            # As if all that are there were revoked.
            anew = open_keys(settings, store, clock=SystemClock(), revoked=lambda kids: kids)
            made[KeyUse.TOKEN] = await anew.rotate_due(KeyUse.TOKEN)
    finally:
        await store.close()
    return {use: [key.kid for key in keys] for use, keys in made.items()}


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
