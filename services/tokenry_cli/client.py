"""`tokenry client`: the clients and users of the registry, one at a time or as code, with the operator's own rights."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tokenry_admin.applying import Action, carry_out, plan, read_realms
from tokenry_admin.backup import BackupRefused, summary, write_backup
from tokenry_admin.clients import client_key, user_key
from tokenry_admin.disabling import Disabled, disable_and_revoke
from tokenry_admin.documents import NotValid, Taken
from tokenry_admin.importing import read_lines, take_over
from tokenry_admin.views import view
from tokenry_cli.app import App
from tokenry_cli.clients_file import FileRefused, read_clients_file
from tokenry_cli.confirming import DryRun, confirm, confirm_if_protected
from tokenry_cli.context import load_context
from tokenry_cli.files import replace_file
from tokenry_cli.output import ExitCode, Format, data, escape, fail, moment, people, print_table, show
from tokenry_cli.platform import Platform
from tokenry_cli.progress import ProgressForm, ProgressOption, Reporter
from tokenry_cli.registry import OpenRegistry, compact, with_registry
from tokenry_cli.token import ContextFile, Identity, Output
from tokenry_issuer.registry import check_removals
from tokenry_registry.realms import ObjectKey, ObjectKind, RefusedObject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from tokenry_admin.applying import Step
    from tokenry_admin.clients import Changed
    from tokenry_admin.secret_rotation import Rotated
    from tokenry_cli.clients_file import Entry

app = App(name="client", no_args_is_help=True, help="Clients and users of the registry: as code, or one at a time.")

Realm = Annotated[str, typer.Argument(help="Realm, such as services or /services.")]
Name = Annotated[str, typer.Argument(help="Client id; with --user the name of a user.")]
IsUser = Annotated[bool, typer.Option("--user", help="A service user (password grant) instead of a client.")]
ClientsFile = Annotated[Path, typer.Option("--file", "-f", help="YAML file with clients.", dir_okay=False)]
_REMOVAL_SHARE = 0.2  # TOKENRY_CREDENTIALS_REMOVAL_SHARE's default
_MARKS = {Action.CREATE: "[green]+[/green]", Action.CHANGE: "[yellow]~[/yellow]", Action.DELETE: "[red]-[/red]"}


# --- looking ------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    realm: Annotated[str | None, typer.Option(help="Of this realm alone.")] = None,
    users: Annotated[bool, typer.Option("--users", help="Users instead of clients.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show clients, without the hashes of their secrets."""
    kind = ObjectKind.USER if users else ObjectKind.CLIENT

    async def act(registry: OpenRegistry) -> tuple[list[dict[str, Any]], Mapping[ObjectKey, str]]:
        keys = await registry.documents.keys(realm=realm, kinds={kind})
        found, faults = await registry.documents.read_all(keys)
        return [view(document) for document in found], faults

    rows, faults = with_registry(act)
    for key, why in faults.items():
        people.print(f"[red]cannot be read:[/red] {escape(f'{key.realm} {key.name}')}: {escape(why)}")
    if output is Format.JSON:
        show({"users" if users else "clients": rows}, form=Format.JSON)
    else:
        print_table(_table(rows, users=users))
    if faults:
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _table(rows: Sequence[Mapping[str, Any]], *, users: bool) -> Table:
    noun = "user" if users else "client"
    table = Table(title=f"{len(rows)} {noun}{'' if len(rows) == 1 else 's'}", title_justify="left", box=None)
    name, secrets = ("username", "password_hashes") if users else ("client_id", "secrets")
    for column in ("realm", name, "enabled", "scopes", "secrets", "newest secret", "owner"):
        table.add_column(column, overflow="fold")
    for row in rows:
        held = row.get(secrets, [])
        newest = max((each["created_at"] for each in held), default=None)
        table.add_row(
            escape(row["realm"]), escape(row[name]), "yes" if row["enabled"] else "[red]no[/red]",
            escape(compact(row["scopes"])), str(len(held)), "none" if newest is None else moment(newest),
            escape(compact(row.get("owner"))),
        )  # fmt: skip
    return table


@app.command("get")
def get(realm: Realm, name: Name, user: IsUser = False, output: Output = Format.TABLE) -> None:
    """Show one client and how far a rotation of its secret has come, without hashes."""

    async def act(registry: OpenRegistry) -> dict[str, Any]:
        document = await registry.documents.get(_key(realm, name, user=user))
        rotating = await registry.rotation.state(document.key)
        state = None if rotating is None else {"step": str(rotating.step), "started_at": rotating.started_at}
        return {**view(document), "rotation": state}

    show(with_registry(act), form=output)


# --- one at a time ------------------------------------------------------------------------------------------


@app.command("create")
def create(
    realm: Realm,
    name: Name,
    scope: Annotated[list[str] | None, typer.Option(help="Scope that it may be granted; may repeat.")] = None,
    audience: Annotated[list[str] | None, typer.Option(help="Target that it may ask for; may repeat.")] = None,
    application: Annotated[
        str | None, typer.Option(help="Whose files its secret goes to. Default: its own name.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Who is asked about it.")] = None,
    user: IsUser = False,
    dry_run: DryRun = False,
) -> None:
    """Create a client without a secret; `rotate-secret` gives it one."""
    members: dict[str, Any] = {"scopes": sorted(set(scope or ()))}
    if audience:
        if user:
            fail("--audience is for clients", code=ExitCode.USAGE)
        members["audiences"] = sorted(set(audience))
    members |= {key: value for key, value in (("application", application), ("owner", owner)) if value}
    if not dry_run:
        confirm_if_protected(f"{name} will be created")
    with_registry(lambda registry: registry.editor.create(_key(realm, name, user=user), members), dry_run=dry_run)
    if dry_run:
        people.print(f"would create {escape(name)}; nothing was changed")
        return
    people.print(f"[green]created[/green] {escape(name)}; it has no secret yet")
    people.print(f"next: tokenry client rotate-secret {_words(realm, name, user=user)}")
    people.print(f"undo: tokenry client disable {_words(realm, name, user=user)}")


@app.command("enable")
def enable(realm: Realm, name: Name, user: IsUser = False, dry_run: DryRun = False) -> None:
    """Let a client authenticate again."""
    if not dry_run:
        confirm_if_protected(f"{name} will get tokens again")
    changed = _switch(realm, name, user=user, enabled=True, dry_run=dry_run)
    if dry_run:
        _say_dry(name, "enable", changed)
        return
    people.print(f"[green]{'enabled' if changed.was_needed else 'was enabled already'}[/green]; issuers know in 60 s")
    people.print(f"undo: tokenry client disable {_words(realm, name, user=user)}")


@app.command("disable")
def disable(
    realm: Realm,
    name: Name,
    user: IsUser = False,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Also revoke its tokens, with no gap; needs revocation.admin.")
    ] = False,
    reason: Annotated[str, typer.Option(help="With --revoke: why; kept with the revocations.")] = "client disabled",
    dry_run: DryRun = False,
    yes: bool = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Take a client out of action; its tokens live on until they expire, unless they are revoked."""
    if dry_run:
        _say_dry(name, "disable", _switch(realm, name, user=user, enabled=False, dry_run=True))
        return
    what = "Every token of it will be refused" if revoke else "It will get no token any more"
    confirm(f"{what}. Type {name} to disable it", name, yes=yes)
    undo = f"undo: tokenry client enable {_words(realm, name, user=user)}"
    if not revoke:
        changed = _switch(realm, name, user=user, enabled=False)
        people.print(f"[green]{'disabled' if changed.was_needed else 'was disabled already'}[/green]; issuers know "
                     "in 60 s, and its tokens live on until they expire")  # fmt: skip
        people.print(undo)
        return

    async def act(registry: OpenRegistry) -> Disabled:
        platform = Platform(load_context(os.environ, file=context, identity=identity))

        async def post(body: Mapping[str, Any]) -> Mapping[str, Any]:
            return await asyncio.to_thread(platform.revoke, body)

        return await disable_and_revoke(
            registry.editor, _key(realm, name, user=user), revoke=post, settled=registry.settled,
            clock=registry.clock, reason=reason,
        )  # fmt: skip

    done = with_registry(act)
    if output is Format.JSON:
        show({"enabled": False, "revocations": [dict(done.block), dict(done.final)]}, form=Format.JSON)
    for answer in (done.block, done.final):
        if answer.get("status") == "pending":
            people.print(f"[yellow]waiting for a second person[/yellow]: tokenry revoke approve {answer['id']}")
    people.print("[green]disabled[/green], every issuer has read it, and what it held is revoked")
    people.print(f"{undo}; its old tokens: tokenry revoke undo {done.final.get('id')}")


def _switch(realm: str, name: str, *, user: bool, enabled: bool, dry_run: bool = False) -> Changed:
    def act(registry: OpenRegistry) -> Awaitable[Changed]:
        return registry.editor.switch(_key(realm, name, user=user), enabled=enabled)

    return with_registry(act, dry_run=dry_run)


def _say_dry(name: str, verb: str, changed: Changed) -> None:
    words = f"would {verb} {escape(name)}" if changed.was_needed else f"nothing to do: {verb}d already"
    people.print(f"{words}; nothing was changed")


@app.command("rotate-secret")
def rotate_secret(
    realm: Realm,
    name: Name,
    user: IsUser = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="The secret that was shown is handed over: old ones get their end.")
    ] = False,
    show_once: Annotated[
        bool, typer.Option("--show-once", help="Where there is no place for files: print the secret, once.")
    ] = False,
    leaked: Annotated[
        bool, typer.Option("--leaked", help="Old ones end as soon as the new one is in the file, with no overlap.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Whoever is at it is known to be gone: do not wait for them.")
    ] = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """
    Give an application a new secret: into the registry, then into its file; old ones work on for a while.

    An interrupted rotation goes on when this is run again. The secret is not shown, unless there is no place for files
    (TOKENRY_APPLICATION_FILES) and --show-once asks for it.
    """
    if dry_run:
        _say_rotation(realm, name, user=user, finish=finish)
        return
    confirm_if_protected(f"{name} will get a new secret")

    async def act(registry: OpenRegistry) -> Rotated:
        key = _key(realm, name, user=user)
        if finish:
            return await registry.rotation.finish(key)
        if not registry.settings.application_files and not show_once:
            raise NotValid(
                "there is no place for the application's file: set TOKENRY_APPLICATION_FILES, or take the secret "
                "yourself with --show-once"
            )
        return await registry.rotation.rotate(key, take_over=take_over, leaked=leaked)

    done = with_registry(act)
    answer: dict[str, Any] = {
        "step": str(done.step), "application": done.application, "old_until": done.old_until, "resumed": done.resumed,
    }  # fmt: skip
    if done.secret is not None:
        answer["secret"] = done.secret.reveal()
    if output is Format.JSON:
        show(answer, form=Format.JSON)
    elif done.secret is not None:
        sys.stdout.write(f"{answer['secret']}\n")
    _say_rotated(done, _words(realm, name, user=user))


def _say_rotation(realm: str, name: str, *, user: bool, finish: bool) -> None:
    """Say what a rotation would begin with."""

    async def act(registry: OpenRegistry) -> str | None:
        document = await registry.documents.get(_key(realm, name, user=user))
        state = await registry.rotation.state(document.key)
        return None if state is None else str(state.step)

    step = with_registry(act)
    verb = "finish the rotation of" if finish else "make a new secret for"
    where = "" if step is None else f", going on from the step {step} of a rotation that is under way"
    people.print(f"would {verb} {escape(name)}{where}; nothing was changed")


def _say_rotated(done: Rotated, words: str) -> None:
    if done.old_until is None:
        people.print("[green]the new secret works[/green], and the old ones go on; it is not shown again")
        people.print(f"when it is handed over: tokenry client rotate-secret {words} --finish")
        return
    where = "" if done.application is None else f" of {done.application}"
    how = "an interrupted rotation was finished" if done.resumed else f"the new secret is in the file{where}"
    people.print(f"[green]{escape(how)}[/green]; old secrets work until {moment(done.old_until)}")
    people.print("tokens that were got with them live until they expire; tokenry revoke claim takes them too")
    people.print(f"undo: there is none, and none is needed: tokenry client rotate-secret {words} makes another one")


# --- as code ------------------------------------------------------------------------------------------------


@app.command("diff")
def diff(
    file: ClientsFile,
    prune: Annotated[bool, typer.Option("--prune", help="Also what would be deleted with --prune.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what `apply` would do; exit status 0 when that is nothing, 5 when they differ."""
    steps = _plan(file, prune=prune)
    _show_plan(steps, output)
    if any(step.action is not Action.NOTHING for step in steps):
        raise typer.Exit(ExitCode.CONFLICT)


@app.command("apply")
def apply(
    file: ClientsFile,
    dry_run: DryRun = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete clients and users of the file's realms that it does not name.")
    ] = False,
    backup: Annotated[
        Path | None, typer.Option(help="First write the registry into this file, from which it can be restored.")
    ] = None,
    yes: bool = False,
    output: Output = Format.TABLE,
) -> None:
    """Make the registry what the file says. Secrets stay as they are; applying it twice writes nothing."""
    steps = _plan(file, prune=prune)
    todo = [step for step in steps if step.action is not Action.NOTHING]
    _show_plan(steps, output)
    if dry_run or not todo:
        return
    deleted = [step.key for step in todo if step.action is Action.DELETE]
    if not deleted:
        confirm_if_protected(f"{len(todo)} will be written")
    else:
        realms = " ".join(sorted({key.realm for key in deleted}))
        confirm(f"{len(deleted)} will be deleted, with their secrets. Type {realms} to go on", realms, yes=yes)

    async def act(registry: OpenRegistry) -> int:
        if backup is not None:
            await save_backup(registry, backup)
        return await carry_out(steps, registry.editor, done=_say_done)

    written = with_registry(act)
    people.print(f"[green]{written} written[/green]; issuers know in 60 s")
    if without := _without_secret(todo):
        people.print(f"without a secret: {escape(', '.join(without))}: tokenry client rotate-secret REALM NAME")
    undo = "apply the file of before" if backup is None else f"tokenry admin restore {backup} --force"
    people.print(f"undo: {escape(undo)}{'' if not deleted or backup else '; deleted secrets are gone'}")


def _plan(file: Path, *, prune: bool) -> tuple[Step, ...]:
    try:
        entries = read_clients_file(_read(file), name=file.name)
    except FileRefused as error:
        fail(str(error), code=ExitCode.USAGE)
    steps: tuple[Step, ...] = with_registry(lambda registry: _planned(registry, entries, file.name, prune=prune))
    return steps


async def _planned(
    registry: OpenRegistry, entries: Mapping[ObjectKey, Entry], name: str, *, prune: bool
) -> tuple[Step, ...]:
    there, faults = await read_realms(registry.documents, {key.realm for key in entries})
    if faults:
        raise NotValid(f"{next(iter(faults.values()))}; repair it first, or delete it")
    steps = plan(
        {key: entry.members for key, entry in entries.items()},
        there,
        prune=prune,
        environment=registry.settings.environment,
    )
    known = {document.key for document in there}
    realms = {step.key.realm for step in steps if step.key.kind is ObjectKind.REALM}
    for step in steps:
        if step.members is None:
            continue
        entry = entries[step.key]
        try:
            registry.documents.check(step.key, step.members)
        except NotValid as error:
            raise FileRefused(f"{name}:{entry.line_of(str(error))}: {error}") from None
        if ObjectKey(ObjectKind.REALM, step.key.realm, "") not in known and step.key.realm not in realms:
            raise FileRefused(f"{name}:{entry.line}: there is no realm {step.key.realm}: add it under realms")
    _check_names(steps, known, entries, name)
    gone = [step.key for step in steps if step.action is Action.DELETE]
    if gone:
        await _check_removals(registry, gone)
    return steps


def _check_names(
    steps: Iterable[Step], known: Iterable[ObjectKey], entries: Mapping[ObjectKey, Entry], name: str
) -> None:
    """Refuse a client that has the name of a user: a token's subject has to be one of them."""
    gone = {step.key for step in steps if step.action is Action.DELETE}
    names: dict[tuple[str, str], ObjectKey] = {}
    for key in sorted({*known, *entries} - gone, key=lambda key: (key.realm, key.name, key.kind)):
        if key.kind in {ObjectKind.CLIENT, ObjectKind.USER}:
            other = names.setdefault((key.realm, key.name), key)
            if other != key:
                line = (entries.get(key) or entries[other]).line
                raise FileRefused(f"{name}:{line}: {key.name} is the name of a client and of a user of {key.realm}")


async def _check_removals(registry: OpenRegistry, gone: Sequence[ObjectKey]) -> None:
    """Refuse what the issuers would refuse to follow, taking it for an accident."""
    try:
        check_removals(await registry.documents.keys(), gone, share=_REMOVAL_SHARE)
    except RefusedObject as error:
        raise NotValid(
            f"{error}: issuers take that for an accident and keep what they have; delete in parts, or raise "
            "TOKENRY_CREDENTIALS_REMOVAL_SHARE of the issuers first"
        ) from None


def _show_plan(steps: Sequence[Step], output: Format) -> None:
    todo = [step for step in steps if step.action is not Action.NOTHING]
    if output is Format.JSON:
        rows = [
            {
                "action": str(step.action), "kind": str(step.key.kind), "realm": step.key.realm,
                "name": step.key.name, "changes": step.changes,
            }
            for step in todo
        ]  # fmt: skip
        show({"changes": rows, "unchanged": len(steps) - len(todo)}, form=Format.JSON)
        return
    for step in todo:
        data.print(f"{_MARKS[step.action]} {step.key.kind} {escape(step.key.realm)} {escape(step.key.name)}")
        for name, change in step.changes.items():
            if step.action is Action.CHANGE:
                data.print(f"    {escape(name)}: {escape(compact(change['before']) or 'nothing')} → "
                           f"{escape(compact(change['after']) or 'nothing')}")  # fmt: skip
    counts = {action: sum(step.action is action for step in steps) for action in Action}
    people.print(
        f"{counts[Action.CREATE]} to create, {counts[Action.CHANGE]} to change, {counts[Action.DELETE]} to delete, "
        f"{counts[Action.NOTHING]} as they are"
    )


def _say_done(step: Step) -> None:
    people.print(f"{_MARKS[step.action]} {step.key.kind} {escape(step.key.realm)} {escape(step.key.name)}: written")


def _without_secret(steps: Iterable[Step]) -> list[str]:
    ways = {"secrets", "jwks", "jwks_uri", "tls_client_auth"}
    return [
        step.key.name
        for step in steps
        if step.action is Action.CREATE and step.key.kind is ObjectKind.CLIENT and not ways & set(step.members or ())
    ]


@app.command("import")
def import_(
    from_plan_b: Annotated[
        Path, typer.Option("--from-plan-b", help="Lines of JSON, each a client or user; - is standard input.")
    ],
    dry_run: DryRun = False,
    progress: ProgressOption = ProgressForm.AUTO,
    output: Output = Format.TABLE,
) -> None:
    """Take over clients and users of Plan B with their bcrypt hashes; what is there already stays."""
    text = sys.stdin.buffer.read() if str(from_plan_b) == "-" else _read(from_plan_b)
    found, faults = read_lines(text.splitlines(), now=int(time.time()))
    if found and not dry_run:
        confirm_if_protected(f"{len(found)} will be imported")

    async def act(registry: OpenRegistry) -> tuple[int, int]:
        written = same = 0
        with Reporter("imported", total=len(found), form=progress) as reporter:
            for count, each in enumerate(found, 1):
                try:
                    if dry_run:
                        registry.documents.check(each.key, each.members)
                        is_new = await registry.documents.find(each.key) is None
                    else:
                        is_new = await take_over(each, registry.editor)
                    written, same = written + is_new, same + (not is_new)
                except (NotValid, Taken) as error:
                    faults[each.number] = str(error)
                reporter.update(count, errors=len(faults))
        return written, same

    written, same = with_registry(act)
    if output is Format.JSON:
        rows = [{"line": number, "fault": text} for number, text in sorted(faults.items())]
        show({"imported": written, "there": same, "failed": rows}, form=Format.JSON)
    for number, why in sorted(faults.items()):
        people.print(f"[red]line {number}:[/red] {escape(why)}")
    verb = "would be imported" if dry_run else "imported"
    people.print(f"{written} {verb}, {same} there already, {len(faults)} failed; running the same again is safe")
    if written and not dry_run:
        people.print("undo: tokenry client disable REALM NAME, one at a time")
    if faults:
        raise typer.Exit(ExitCode.PARTLY_DONE)


# --- shared -------------------------------------------------------------------------------------------------


async def save_backup(registry: OpenRegistry, path: Path) -> dict[str, Any]:
    """
    Write the registry into the file *path* (mode 0600), whole or not at all, and return what is in it.

    Raises:
        TokenryError: The registry cannot be read, or *path* not be written.
    """
    content = io.BytesIO()
    manifest = await write_backup(
        registry.store, content, environment=registry.settings.environment, now=int(registry.clock.now())
    )
    try:
        replace_file(path, content.getvalue(), mode=0o600)
    except OSError as error:
        raise BackupRefused(f"{path} cannot be written: {error.strerror}") from None
    return summary(manifest)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", code=ExitCode.USAGE)


def _key(realm: str, name: str, *, user: bool) -> ObjectKey:
    return user_key(realm, name) if user else client_key(realm, name)


def _words(realm: str, name: str, *, user: bool) -> str:
    return f"{escape(realm)} {escape(name)}{' --user' if user else ''}"
