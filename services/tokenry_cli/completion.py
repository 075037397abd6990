"""`tokenry completion SHELL`: what a shell needs to complete the commands."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print the shell's script for completion, to be sourced."""
    script = get_completion_script(prog_name="tokenry", complete_var="_TOKENRY_COMPLETE", shell=shell.value)
    sys.stdout.write(f"{script}\n")
