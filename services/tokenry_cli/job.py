"""`tokenry job`: batches of revocations as the revocation service knows them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tokenry_cli.app import App
from tokenry_cli.confirming import DryRun, confirm
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, escape, people, show
from tokenry_cli.platform import Platform
from tokenry_cli.progress import ProgressForm, ProgressOption, Reporter
from tokenry_cli.token import ContextFile, Identity, Output

if TYPE_CHECKING:
    from collections.abc import Callable

app = App(name="job", no_args_is_help=True, help="Batches of revocations: how far they have come.")

LOOK_SECONDS: Final = 1.0
_MAX_SHOWN: Final = 10
Id = Annotated[str, typer.Argument(help="Id of the job, as `tokenry revoke bulk` prints it.")]


@app.command("show")
def show_(name: Id, identity: Identity = "admin", context: ContextFile = None, output: Output = Format.TABLE) -> None:
    """Show how far a job has come, and which of its lines failed."""
    _show(Platform(load_context(os.environ, file=context, identity=identity)).job(name), output)


@app.command("watch")
def watch(
    name: Id,
    progress: ProgressOption = ProgressForm.AUTO,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Watch a job until it is done (exit status 0), some lines failed (7), or it was interrupted (1)."""
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    with Reporter("done", total=None, form=progress) as reporter:
        answer = followed(lambda: platform.job(name), reporter, sleep=time.sleep)
    _show(answer, output)
    if answer["state"] != "done":
        people.print("it was interrupted: run the same `tokenry revoke bulk` again, and it goes on")
        raise typer.Exit(ExitCode.FAILED)
    if answer["failed"]:
        raise typer.Exit(ExitCode.PARTLY_DONE if answer["accepted"] else ExitCode.FAILED)


@app.command("cancel")
def cancel(
    name: Id,
    dry_run: DryRun = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Stop a job that runs, whoever sends it. What it has revoked stays revoked.

    It stops within some seconds of the next line that its sender sends. Needs the scope revocation.admin.
    """
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    if dry_run:
        _show(platform.job(name), output)
        people.print("nothing was stopped; without --dry-run a job that is running would be")
        return
    confirm("The rest of the job's lines is not revoked. Type the job's id to stop it", name)
    _show(platform.cancel_job(name), output)
    people.print(
        f"it is asked to stop: see tokenry job show {escape(name)}\n"
        "undo: run the same `tokenry revoke bulk` again, and it goes on where it ended"
    )


def followed(
    look: Callable[[], dict[str, Any]], reporter: Reporter, *, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Return the last answer of *look*, as soon as the job no longer runs."""
    while True:
        answer = look()
        reporter.update(answer["lines"], errors=answer["failed"])
        if answer["state"] != "running":
            return answer
        sleep(LOOK_SECONDS)


def _show(answer: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        show(answer, form=output)
        return
    show({name: value for name, value in answer.items() if name not in {"failures", "next_page"}}, form=output)
    for failure in answer["failures"][:_MAX_SHOWN]:
        people.print(f"[red]line {failure['line']}[/red]: {escape(failure['detail'])}")
    if answer["failed"] > _MAX_SHOWN:
        people.print(f"and {answer['failed'] - _MAX_SHOWN} more: --output json")
