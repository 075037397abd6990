"""The command `tokenry`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from tokenry_cli.commands import LazyGroup

app = typer.Typer(
    name="tokenry",
    cls=LazyGroup,
    help="Service-to-service tokens: issue, validate, revoke.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"tokenry {version('tokenry')}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Service-to-service tokens: issue, validate, revoke."""


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="tokenry")


if __name__ == "__main__":
    main()
