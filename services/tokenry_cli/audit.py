"""`tokenry audit`: who did what, and whether the log of it is still what was written."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tokenry.errors import ProtocolError
from tokenry.serving.audit_chain import BrokenChain, Head, Verified, check_record, record_of, verify
from tokenry_cli.app import App
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, data, escape, fail, people, print_table, show
from tokenry_cli.platform import Platform
from tokenry_cli.token import ContextFile, Identity, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

app = App(name="audit", no_args_is_help=True, help="Who did what, and whether the log of it is whole.")

_PAGE = 1000
_SHOWN = ("seq", "time", "event", "who", "id", "reason", "ticket")
Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Collected log lines, or what `audit export` wrote; - for standard input. Default: ask."),
]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="How many, the last ones.")] = 50,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the last records of the replica that answers, the last one first."""
    answer = _page(_platform(context, identity), limit=limit)
    if output is Format.JSON:
        show(answer, form=Format.JSON)
    else:
        print_table(table(answer["records"]))


@app.command("export")
def export(identity: Identity = "admin", context: ContextFile = None) -> None:
    """Print all records that the replica that answers still has, a line of JSON each, the first one first."""
    records, _ = _everything(_platform(context, identity))
    for record in records:
        sys.stdout.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    people.print(f"{len(records)} records")


@app.command("verify")
def verify_(
    files: Files = None,
    part: Annotated[
        bool, typer.Option("--part", help="The lines begin anywhere, and need not be of all replicas.")
    ] = False,
    heads: Annotated[
        bool, typer.Option("--heads", help="Compare with the heads that the service keeps, so that no end is missing.")
    ] = False,
    identity: Identity = "admin",
    context: ContextFile = None,
) -> None:
    """
    Tell whether records were changed, removed or put in; exit with 1 and the first such record if so.

    Without files the service is asked for the records that the replica that answers still has.
    """
    kept: list[Head] = []
    if files:
        try:
            records: Sequence[Mapping[str, Any]] = [record for path in files for record in _records(path)]
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}", code=ExitCode.USAGE)
        except (ProtocolError, UnicodeDecodeError) as error:
            fail(str(error))
        if heads:
            kept = _heads(_page(_platform(context, identity), limit=1).get("heads"))
    else:
        records, newest = _everything(_platform(context, identity))
        kept, part = [_head(newest)], True
    report(records, heads=kept, part=part)


def report(records: Sequence[Mapping[str, Any]], *, heads: Iterable[Head], part: bool) -> None:
    """
    Print what was found in *records*, or end with it.

    Args:
        records: All records.
        heads: What is kept elsewhere.
        part: Whether the records may begin anywhere, and chains may be missing.
    """
    if not records and not heads:
        fail("there is no audit record in this: give lines of the log as the services write them, or of `audit export`")
    there = {record["instance"] for record in records}
    wanted = [head for head in heads if not part or head.instance in there]
    try:
        chains = verify(records, heads=wanted, from_the_first=not part)
    except BrokenChain as error:
        hint = "; with --part the beginning may be missing" if error.seq == 1 and not part else ""
        fail(f"the audit log is broken: {error}{hint}")
    for chain in chains:
        data.print(escape(_line(chain)))
    people.print(f"[green]✓[/green] {len(chains)} chains, {len(records)} records, nothing changed and nothing missing")


def table(records: Iterable[Mapping[str, Any]]) -> Table:
    """Return *records* as a table."""
    shown = Table(box=None, pad_edge=False)
    for name in _SHOWN:
        shown.add_column(name, overflow="fold", justify="right" if name == "seq" else "left")
    for record in records:
        actor = record.get("actor") or {}
        who = actor.get("sub") or actor.get("client_id") or "?"
        cells = [str(record.get(name, "")) for name in _SHOWN]
        cells[_SHOWN.index("who")] = str(who)
        shown.add_row(*map(escape, cells))
    return shown


def _line(chain: Verified) -> str:
    return f"{chain.instance}  records {chain.first} to {chain.last}  head {chain.hash}"


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    """
    Yield the audit records among the lines of the file at *path*.

    Raises:
        ProtocolError: A line is an audit record of no chain.
    """
    lines = sys.stdin if str(path) == "-" else path.open(encoding="utf-8")
    with lines:
        for number, line in enumerate(lines, 1):
            try:
                record = record_of(line)
            except ProtocolError as error:
                raise ProtocolError(f"{path}, line {number}: {error}") from None
            if record is not None:
                yield record


def _platform(context: str | None, identity: str) -> Platform:
    return Platform(load_context(os.environ, file=context, identity=identity))


def _page(platform: Platform, *, limit: int, before: int | None = None) -> dict[str, Any]:
    return platform.audit(limit=limit, before=before)


def _everything(platform: Platform) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return all records that one replica has, the first one first, and its head."""
    answer = _page(platform, limit=_PAGE)
    newest, records = answer["head"], answer["records"]
    while answer["records"] and answer["records"][-1]["seq"] > 1:
        answer = _page(platform, limit=_PAGE, before=answer["records"][-1]["seq"])
        if answer["head"]["instance"] != newest["instance"]:
            fail("another replica answered in between: ask one replica (TOKENRY_REVOCATION_URL), or verify its log")
        records += answer["records"]
    try:
        for record in records:
            check_record(record)
    except ProtocolError as error:
        fail(f"the service's answer: {error}")
    return records[::-1], newest


def _heads(members: object) -> list[Head]:
    if not isinstance(members, list):
        fail("the service cannot tell the heads now, because its store does not answer")
    return [_head(each) for each in members]


def _head(members: object) -> Head:
    try:
        return Head.read(members)
    except ProtocolError as error:
        fail(f"the service's answer: {error}")
