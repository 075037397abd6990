"""`tokenry context`: the platforms that somebody works with, by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from tokenry_cli.app import App
from tokenry_cli.confirming import DryRun, confirm
from tokenry_cli.contexts import TEXTS, changing, contexts_file, read_contexts
from tokenry_cli.output import ExitCode, Format, escape, fail, people, print_table, show
from tokenry_cli.token import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

app = App(name="context", no_args_is_help=True, help="Platforms by name: add, use, list.")

Name = Annotated[str, typer.Argument(help="Name of the context, such as prod.")]
_COLUMNS: Final = ("issuer", "realm", "client_id", "environment")


@app.command("add")
def add(
    name: Name,
    issuer: Annotated[str, typer.Option(help="Issuer, https://…")],
    tokeninfo: Annotated[str | None, typer.Option(help="Token info service.")] = None,
    revocation: Annotated[str | None, typer.Option(help="Revocation service.")] = None,
    admin: Annotated[str | None, typer.Option(help="Administration.")] = None,
    console: Annotated[str | None, typer.Option(help="Console.")] = None,
    realm: Annotated[str | None, typer.Option(help="Realm to ask tokens of.")] = None,
    client_id: Annotated[str | None, typer.Option(help="Whom to act as.")] = None,
    client_secret_file: Annotated[
        Path | None, typer.Option(help="File with their secret (mode 0600); the secret itself is never kept.")
    ] = None,
    client_secret: Annotated[str | None, typer.Option(hidden=True)] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificates of a private authority (PEM).")] = None,
    environment: Annotated[str | None, typer.Option(help="Such as production.")] = None,
    protected: Annotated[
        bool, typer.Option("--protected", help="Changes need its name typed, or --yes-on NAME; --yes is not enough.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the context of this name.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Add a context; the first one becomes the current one."""
    if client_secret is not None:
        fail(
            "a secret on a command line ends up in the shell's history, and does not belong into the contexts",
            code=ExitCode.USAGE,
            advice="write it into a file (mode 0600), --client-secret-file FILE, and change the secret: it was seen",
        )
    given = {
        "issuer": issuer, "tokeninfo": tokeninfo, "revocation": revocation, "admin": admin, "console": console,
        "realm": realm, "client_id": client_id, "environment": environment,
        "client_secret_file": client_secret_file and str(client_secret_file.absolute()),
        "ca_file": ca_file and str(ca_file.absolute()),
    }  # fmt: skip
    members: dict[str, Any] = {key: value for key, value in given.items() if value}
    if protected:
        members["protected"] = True
    path = contexts_file(os.environ)
    before = read_contexts(path)
    if name in before.named and not overwrite:
        fail(f"there is a context {name} already", code=ExitCode.CONFLICT, advice="--overwrite replaces it")
    if before.named.get(name, {}).get("protected"):
        confirm(f"The protected context {name} would be replaced. Type its name to go on", name)
    if dry_run:
        _check(name, members)
        people.print(f"would add {escape(name)} to {escape(str(path))}; nothing was changed")
        return
    with changing(path) as contexts:
        contexts.named[name] = members
        contexts.current = contexts.current or name
        is_current = contexts.current == name
    people.print(f"[green]added[/green] {escape(name)} to {escape(str(path))}")
    people.print(f"undo: tokenry context remove {escape(name)}")
    if not is_current:
        people.print(f"next: tokenry context use {escape(name)}")


def _check(name: str, members: Mapping[str, Any]) -> None:
    from tokenry.errors import ConfigurationError
    from tokenry_cli.contexts import faults_of

    if faults := list(faults_of(name, dict(members))):
        raise ConfigurationError(faults)


@app.command("use")
def use(name: Name, dry_run: DryRun = False) -> None:
    """Make a context the current one."""
    path = contexts_file(os.environ)
    before = read_contexts(path)
    _known(before.named, name)
    if dry_run:
        people.print(f"would use {escape(name)} instead of {escape(before.current or 'none')}; nothing was changed")
        return
    with changing(path) as contexts:
        _known(contexts.named, name)
        contexts.current = name
    mark = "; it is protected" if before.named[name].get("protected") else ""
    people.print(f"[green]using[/green] {escape(name)} ({escape(before.named[name]['issuer'])}){mark}")
    if before.current not in {None, name}:
        people.print(f"undo: tokenry context use {escape(str(before.current))}")
    else:
        people.print("undo: --context - uses none for one command")


@app.command("list")
def list_(output: Output = Format.TABLE) -> None:
    """Show the contexts; the current one has a mark."""
    contexts = read_contexts(contexts_file(os.environ))
    if output is Format.JSON:
        rows = [{"name": name, "current": name == contexts.current, **members} for name, members in _sorted(contexts)]
        show({"contexts": rows, "current": contexts.current}, form=Format.JSON)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("", "name", *_COLUMNS, "protected"):
        table.add_column(column, overflow="fold")
    for name, members in _sorted(contexts):
        cells = [str(members.get(column, "")) for column in _COLUMNS]
        marks = ("*" if name == contexts.current else "", name)
        table.add_row(*marks, *map(escape, cells), "yes" if members.get("protected") else "")
    print_table(table)


def _sorted(contexts: Any) -> list[tuple[str, dict[str, Any]]]:  # noqa: ANN401 -- Contexts
    return sorted(contexts.named.items())


@app.command("show")
def show_(
    name: Annotated[str | None, typer.Argument(help="Name of the context. Default: the current one.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show one context; of its secret only where it is."""
    contexts = read_contexts(contexts_file(os.environ))
    wanted = name or os.environ.get("TOKENRY_CONTEXT") or contexts.current
    if wanted is None:
        fail("there is no current context", code=ExitCode.NOT_FOUND, advice="tokenry context add, or context use NAME")
    members = _known(contexts.named, wanted)
    ordered: dict[str, Any] = {key: members[key] for key in (*TEXTS, "protected") if key in members}
    show({"name": wanted, "current": wanted == contexts.current, **ordered}, form=output)


@app.command("remove")
def remove(name: Name, dry_run: DryRun = False) -> None:
    """Forget a context; the file with its secret stays."""
    path = contexts_file(os.environ)
    members = _known(read_contexts(path).named, name)
    if dry_run:
        people.print(f"would remove {escape(name)}; nothing was changed")
        return
    if members.get("protected"):
        confirm(f"The protected context {name} would be forgotten. Type its name to go on", name)
    with changing(path) as contexts:
        contexts.named.pop(name, None)
        if contexts.current == name:
            contexts.current = None
    people.print(f"[green]removed[/green] {escape(name)}; the file of its secret stays")
    again = " ".join(
        f"--{key.replace('_', '-')}" if value is True else f"--{key.replace('_', '-')} {value}"
        for key, value in members.items()
    )
    people.print(f"undo: tokenry context add {escape(name)} {escape(again)}")


def _known(named: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in named:
        known = ", ".join(sorted(named)) or "none"
        fail(f"there is no context {name}; there are: {known}", code=ExitCode.NOT_FOUND)
    return named[name]
