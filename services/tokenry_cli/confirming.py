"""
Asking before something dangerous is done: its name has to be typed. Where nobody is there nothing is asked.

On a protected context `--yes` is not enough: `--yes-on NAME` says that this very context is meant.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tokenry.errors import ConfigurationError
from tokenry_cli.context import find_context
from tokenry_cli.invocation import current
from tokenry_cli.output import ExitCode, escape, fail, people

if TYPE_CHECKING:
    from typing import TextIO

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]


def confirm(question: str, word: str, *, yes: bool = False, terminal: TextIO | None = None) -> None:
    """
    Return if *word* is typed in answer to *question*, or it was confirmed; else end the command with exit status 2.

    Args:
        question: What would be done, and what to type.
        word: What has to be typed.
        yes: It was confirmed on the command line, as `--yes` does.
        terminal: Where the answer comes from; default: standard input.
    """
    name, protected = _context_in_use()
    if _is_confirmed(name, protected=protected, yes=yes):
        return
    asked = terminal or sys.stdin
    if current().no_input or not asked.isatty():
        how = f"--yes-on {name}" if protected else "--yes"
        fail(f"{question}: nobody is there to ask; nothing was changed", code=ExitCode.USAGE, advice=f"confirm: {how}")
    where = "" if name is None else f"[bold]{escape(name)}[/bold]: "
    people.print(f"{where}{escape(question)}: ", end="")
    if asked.readline().rstrip("\n") != word:
        fail("not confirmed; nothing was changed", code=ExitCode.USAGE)


def confirm_if_protected(what: str) -> None:
    """Ask, on a protected context only, before *what* is done: its name has to be typed."""
    name, protected = _context_in_use()
    if protected and name is not None:
        confirm(f"{what}. Type {name} to go on", name)


def _is_confirmed(name: str | None, *, protected: bool, yes: bool) -> bool:
    called = current()
    if called.yes_on is not None:
        if called.yes_on != name:
            fail(
                f"--yes-on names {called.yes_on}, and the context in use is {name or 'none'}; nothing was changed",
                code=ExitCode.USAGE,
                advice="tokenry context list shows the current one; --context NAME uses another",
            )
        return True
    if (yes or called.yes) and protected:
        fail(
            f"the context {name} is protected, and --yes is not enough; nothing was changed",
            code=ExitCode.USAGE,
            advice=f"confirm: --yes-on {name}",
        )
    return yes or called.yes


def _context_in_use() -> tuple[str | None, bool]:
    """Return the name of the context in use, and whether it is protected."""
    try:
        found = find_context(os.environ, current().context)
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)
    return found.name, found.name is not None and bool(found.members.get("protected"))
