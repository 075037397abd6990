"""Asking before something dangerous is done: its name has to be typed. Where nobody is there nothing is asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tokenry_cli.output import ExitCode, escape, fail, people

if TYPE_CHECKING:
    from typing import TextIO


def confirm(question: str, word: str, *, yes: bool, terminal: TextIO | None = None) -> None:
    """
    Return if *word* is typed in answer to *question*; else end the command with exit status 2.

    Args:
        question: What would be done, and what to type.
        word: What has to be typed.
        yes: It was confirmed on the command line.
        terminal: Where the answer comes from; default: standard input.
    """
    if yes:
        return
    asked = terminal or sys.stdin
    if not asked.isatty():
        fail(f"{question}: nobody is there to ask; confirm with --yes", code=ExitCode.USAGE)
    people.print(f"{escape(question)}: ", end="")
    if asked.readline().rstrip("\n") != word:
        fail("not confirmed; nothing was changed", code=ExitCode.USAGE)
