"""`tokenry revoke`: take tokens out of force, one by one or by a claim."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenry.errors import TokenryError
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, fail, moment, people, show
from tokenry_cli.platform import Platform, Refused
from tokenry_cli.token import ContextFile, Output, TokenArgument, read_argument

app = typer.Typer(no_args_is_help=True, help="Revoke tokens by id or by claim.")

Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log (at most 500 characters).")]
Ticket = Annotated[str | None, typer.Option(help="Ticket of the incident; kept in the audit log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be hit.")]
Identity = Annotated[str, typer.Option(help="Identity of the context file: client or admin.")]
_CODES = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
}


@app.command("token")
def token(
    token: TokenArgument = "-",  # noqa: S107 -- standard input, no password
    jti: Annotated[str | None, typer.Option(help="Revoke by the id of a token instead.")] = None,
    expires_at: Annotated[
        int | None, typer.Option(help="With --jti: Unix seconds at which that token expires.")
    ] = None,
    reason: Reason = None,
    ticket: Ticket = None,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Revoke one token."""
    if jti is None:
        member: dict[str, Any] = {"token": read_argument(token)}
    else:
        member = {"jti": jti} if expires_at is None else {"jti": jti, "expires_at": expires_at}
    _post("TOKEN", member, reason, ticket, dry_run=dry_run, identity=identity, context=context, output=output)


@app.command("claim")
def claim(
    claims: Annotated[list[str], typer.Argument(help="name=value; with several, a token must carry them all.")],
    issued_before: Annotated[
        int | None,
        typer.Option(help="Unix seconds; tokens issued earlier are hit. Default: now, with the clocks' bound."),
    ] = None,
    reason: Reason = None,
    ticket: Ticket = None,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Revoke every token that carries these claims, such as sub=basket."""
    member: dict[str, Any] = {"claims": _pairs(claims)}
    if issued_before is not None:
        member["issued_before"] = issued_before
    _post("CLAIM", member, reason, ticket, dry_run=dry_run, identity=identity, context=context, output=output)


def _pairs(claims: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in claims:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            fail(f"{text} is not of the form name=value", code=ExitCode.USAGE)
        if name in pairs:
            fail(f"{name} is named twice", code=ExitCode.USAGE)
        pairs[name] = value
    return pairs


def _post(
    kind: str,
    member: dict[str, Any],
    reason: str | None,
    ticket: str | None,
    *,
    dry_run: bool,
    identity: str,
    context: Path | None,
    output: Format,
) -> None:
    told = {name: value for name, value in (("reason", reason), ("ticket", ticket)) if value}
    try:
        platform = Platform(load_context(os.environ, file=context, identity=identity))
        answer = platform.revoke({"type": kind, "data": member | told}, dry_run=dry_run)
    except Refused as error:
        fail(str(error), code=_CODES.get(error.status, ExitCode.FAILED))
    except TokenryError as error:
        fail(f"{error}; nothing is known to be revoked, and running the same again is safe")
    show(answer if output is Format.JSON else _readable(answer), form=output)
    if not dry_run:
        people.print("[green]stored[/green]; every healthy validator enforces it by the moment in propagated_by")


def _readable(answer: dict[str, Any]) -> dict[str, Any]:
    timed = {"revoked_at", "in_force_until", "propagated_by", "plan_b_by", "issued_before"}
    return {
        name: moment(value) if name in timed and isinstance(value, int | float) else value
        for name, value in answer.items()
    }
