"""`tokenry revoke`: take tokens out of force, wait until that is so, look, and take a mistake back."""

from __future__ import annotations

import inspect
import os
import time
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.table import Table

from tokenry.errors import ConfigurationError, TokenryError
from tokenry_cli.app import App, Command
from tokenry_cli.bulk import bulk
from tokenry_cli.confirming import confirm, confirm_if_protected
from tokenry_cli.context import load_context
from tokenry_cli.explaining import explain
from tokenry_cli.output import ExitCode, Format, escape, fail, parse_moment, people, print_table, relative, show, span
from tokenry_cli.plan_b_import import import_
from tokenry_cli.platform import Platform, Refused
from tokenry_cli.progress import ProgressForm, ProgressOption
from tokenry_cli.token import ContextFile, Identity, Output, TokenArgument, read_argument
from tokenry_cli.waiting import summary, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry.revocation.wire import ListDocument

app = App(
    name="revoke", no_args_is_help=True, help="Revoke tokens: one, by claims, by key, or all; look, undo, approve."
)

WAIT_SECONDS = 60.0  # twice what is promised to a validator that polls

Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log (at most 500 characters).")]
Ticket = Annotated[str | None, typer.Option(help="Ticket of the incident; kept in the audit log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be hit.")]
IssuedBefore = Annotated[
    str | None,
    typer.Option(
        metavar="MOMENT",
        help="Tokens issued earlier are hit: 2h (so long ago), 2026-11-21T18:00Z, Unix seconds. Default: now, with the "
        "clocks' bound.",
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        min=1,
        metavar="[=SECONDS]",
        help=f"Wait until every validator enforces it, at most {WAIT_SECONDS:g} s; exit status 6 if one does not.",
    ),
]
Id = Annotated[str, typer.Argument(help="Id of the revocation.")]


class _Waiting(Command):
    """A command whose --wait may stand alone or have a value, as in --wait=30."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 -- typer keeps its type to itself
        """Parse *args* as if a lone --wait had its default."""
        return super().parse_args(ctx, [f"--wait={WAIT_SECONDS:g}" if each == "--wait" else each for each in args])


def _post(
    kind: str,
    member: dict[str, Any],
    *,
    reason: Reason = None,
    ticket: Ticket = None,
    dry_run: DryRun = False,
    wait: Wait = None,
    progress: ProgressOption = ProgressForm.AUTO,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    told = {name: value for name, value in (("reason", reason), ("ticket", ticket)) if value}
    posted_at = time.time()
    try:
        platform = Platform(load_context(os.environ, file=context, identity=identity))
        # Before the post: a caller may well be hit by what it revokes.
        watcher = None if wait is None or dry_run else platform.bearer()
        posted_at = time.time()
        answer = platform.revoke({"type": kind, "data": member | told}, dry_run=dry_run)
    except Refused as error:
        explain(error, more="nothing was revoked")
    except ConfigurationError as error:
        explain(error)
    except TokenryError as error:
        explain(error, more="nothing is known to be revoked, and running the same again is safe")
    _print(answer, output)
    if dry_run:
        people.print("nothing was revoked; run it again without --dry-run")
        return
    if answer.get("status") == "pending":
        people.print(f"[yellow]waiting for a second person[/yellow]: tokenry revoke approve {answer['id']}")
        people.print("undo: let it expire unapproved")
        return
    people.print("[green]stored[/green]; every healthy validator enforces it by the moment in propagated_by")
    final = kind == "KEY"
    people.print("There is no undo." if final else f"undo: tokenry revoke undo {answer['id']}")
    if watcher is not None and wait is not None:
        _wait(platform, watcher, answer, posted_at=posted_at, seconds=wait, form=progress)


def _posting(kind: str) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., None]]:
    """
    Make a command that posts one revocation, with the options that all of them share (those of `_post`).

    The decorated function has the command's own parameters and returns the request's members; where it names one of the
    shared options, it is told that too.
    """

    def decorate(members: Callable[..., dict[str, Any]]) -> Callable[..., None]:
        own = _parameters(members)
        shared = {name: each for name, each in _parameters(_post).items() if name not in {"kind", "member"}}

        @wraps(members)
        def command(**options: Any) -> None:  # noqa: ANN401 -- whatever the options' types are
            told = {name: options[name] for name in own}
            _post(kind, members(**told), **{name: options[name] for name in shared})

        # What typer reads: our own first, as in the help.
        parameters = {**own, **shared}
        command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        command.__annotations__ = {name: each.annotation for name, each in parameters.items()}
        return command

    return decorate


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of *function* by name, with annotations that were evaluated."""
    hints = get_type_hints(function, include_extras=True)
    found = inspect.signature(function).parameters
    return {
        name: each.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY) for name, each in found.items()
    }


@app.command("token", cls=_Waiting)
@_posting("TOKEN")
def token(
    token: TokenArgument = "-",  # noqa: S107 -- standard input, no password
    jti: Annotated[str | None, typer.Option(help="Revoke by the id of a token instead.")] = None,
    expires_at: Annotated[
        int | None, typer.Option(help="With --jti: Unix seconds at which that token expires.")
    ] = None,
) -> dict[str, Any]:
    """Revoke one token."""
    if jti is None:
        return {"token": read_argument(token)}
    return {"jti": jti} if expires_at is None else {"jti": jti, "expires_at": expires_at}


@app.command("claim", cls=_Waiting)
@_posting("CLAIM")
def claim(
    claims: Annotated[list[str], typer.Argument(help="name=value; with several, a token must carry them all.")],
    issued_before: IssuedBefore = None,
    dry_run: DryRun = False,
) -> dict[str, Any]:
    """Revoke every token that carries these claims, such as sub=basket."""
    member: dict[str, Any] = {"claims": _pairs(claims)}
    if not dry_run:
        confirm_if_protected(f"Every token with {' and '.join(claims)} will be refused")
    return member | _cut(issued_before)


@app.command("key", cls=_Waiting)
@_posting("KEY")
def key(
    kid: Annotated[str, typer.Argument(help="Id of the signing key.")],
    dry_run: DryRun = False,
) -> dict[str, Any]:
    """Revoke a signing key, and with it every token that it has signed; this is never taken back."""
    if not dry_run:
        confirm("Revoking a key is final. Type the kid to confirm", kid)
    return {"kid": kid}


@app.command("all", cls=_Waiting)
@_posting("GLOBAL")
def all_(
    issued_before: IssuedBefore = None,
    dry_run: DryRun = False,
) -> dict[str, Any]:
    """Revoke every token of the platform."""
    if not dry_run:
        confirm("Every token of the platform will be refused. Type all to confirm", "all")
    member: dict[str, Any] = {"confirm": True}
    return member | _cut(issued_before)


app.command("bulk")(bulk)
app.command("import")(import_)


@app.command("list")
def list_(identity: Identity = "admin", context: ContextFile = None, output: Output = Format.TABLE) -> None:
    """Show what is in force."""
    rows = listed(_ask(context, identity, lambda platform: platform.entries()))
    if output is Format.JSON:
        show({"revocations": rows}, form=Format.JSON)
        return
    now = time.time()
    table = Table(title=f"{len(rows)} in force", title_justify="left", box=None, pad_edge=False)
    for name in ("id", "kind", "claims", "issued before", "until"):
        table.add_column(name, overflow="fold", min_width=32 if name == "id" else None)
    for row in rows:
        table.add_row(
            row["id"], "+".join(row["kinds"]), escape(" ".join(row["names"])), _moment(row["issued_before"], "", now),
            _moment(row["in_force_until"], "for ever", now),
        )  # fmt: skip
    print_table(table)


@app.command("show")
def show_(name: Id, identity: Identity = "admin", context: ContextFile = None, output: Output = Format.TABLE) -> None:
    """Show who revoked what, when and why, and how often it was refused since."""
    _print(_ask(context, identity, lambda platform: platform.about(name)), output)


@app.command("undo")
def undo(
    name: Id,
    reason: Reason = None,
    ticket: Ticket = None,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Take a mistake back; Plan B's validators keep it until they restart."""
    if dry_run:
        show_(name, identity, context, output)
        people.print(f"would take {escape(name)} back; nothing was changed")
        return
    confirm_if_protected(f"What {name} revoked will be accepted again")
    answer = _ask(context, identity, lambda platform: platform.change(name, "undo", reason=reason, ticket=ticket))
    _print(answer, output)
    people.print("[green]taken back[/green]; undo: revoke the same again")


@app.command("approve")
def approve(
    name: Id,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Put in force what another person asked for."""
    if dry_run:
        show_(name, identity, context, output)
        people.print(f"would put {escape(name)} in force; nothing was changed")
        return
    confirm_if_protected(f"{name} will be in force")
    _print(_ask(context, identity, lambda platform: platform.change(name, "approve")), output)
    people.print(f"[green]in force[/green]; undo: tokenry revoke undo {escape(name)}")


def listed(document: ListDocument) -> list[dict[str, Any]]:
    """Return what *document* says is in force, one row for each revocation; those that were undone are left out."""
    undone = {entry.undoes for entry in document.entries if entry.undoes is not None}
    rows: dict[str, dict[str, Any]] = {}
    for entry in document.entries:
        if entry.undoes is not None or entry.id in undone:
            continue
        row = rows.setdefault(
            entry.id,
            {
                "id": entry.id, "kinds": [], "names": list(entry.names), "issued_before": entry.issued_before,
                "in_force_until": entry.in_force_until,
            },
        )  # fmt: skip
        row["kinds"].append(entry.kind.value)
    return sorted(rows.values(), key=lambda row: (row["in_force_until"] is not None, row["in_force_until"] or 0))


def _cut(text: str | None) -> dict[str, int]:
    if text in {None, "now"}:
        return {}  # the service's own now, with the clocks' bound
    try:
        return {"issued_before": parse_moment(str(text), now=time.time())}
    except ValueError as error:
        fail(f"--issued-before: {error}", code=ExitCode.USAGE)


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


def _ask(context: str | None, identity: str, ask: Callable[[Platform], Any]) -> Any:  # noqa: ANN401 -- as *ask*
    return ask(Platform(load_context(os.environ, file=context, identity=identity)))


def _wait(
    platform: Platform,
    bearer: dict[str, str],
    answer: dict[str, Any],
    *,
    posted_at: float,
    seconds: float,
    form: ProgressForm,
) -> None:
    held = [bearer]

    def look() -> dict[str, Any]:
        try:
            return platform.validators(bearer=held[0], revocation=answer["id"])
        except Refused:
            held[0] = platform.bearer()  # the one at hand may be among those that were revoked
            raise

    result = wait(look, revoked_at=answer["revoked_at"], posted_at=posted_at, seconds=seconds, form=form)
    people.print(escape(summary(result)))
    if not result.is_complete:
        fail(f"not every validator enforces it after {seconds:g} s", code=ExitCode.WAITED_IN_VAIN)


def _print(answer: dict[str, Any], output: Format) -> None:
    show(answer if output is Format.JSON else _readable(answer), form=output)


def _moment(seconds: float | None, otherwise: str, now: float) -> str:
    return otherwise if seconds is None else relative(seconds, now=now)


def _readable(answer: dict[str, Any]) -> dict[str, Any]:
    shown = dict(answer)
    if "refused" in answer:
        del shown["refused"]
        shown["denied"] = denied(answer["refused"])
    return shown


def denied(known: Mapping[str, Any] | None) -> str:
    """Return in words how often tokens were refused because of a revocation, as validators have reported it."""
    if known is None:
        return "not known: the service's store does not answer"
    if not known["count"]:
        return "never, as far as validators have reported"
    times = "once" if known["count"] == 1 else f"{known['count']:,} times"
    validators = f"{known['validators']} validator{'' if known['validators'] == 1 else 's'}"
    if known["validators_are_more"]:
        validators += " or more"
    return f"{times} since, last {span(known['last_seconds_ago'])} ago, from {validators}"
