"""`tokenry serve`: run one service in the foreground, with its settings from the environment."""

from __future__ import annotations

import importlib
import os
import sys
from enum import StrEnum
from typing import Annotated

import typer


class Role(StrEnum):
    """The services that can be run."""

    ISSUER = "issuer"
    TOKENINFO = "tokeninfo"
    REVOCATION = "revocation"
    ADMIN = "admin"
    CONSOLE = "console"
    AGENT = "agent"


def serve(
    context: typer.Context,
    role: Annotated[Role, typer.Argument(help="Which service.")],
) -> None:
    """Run one service; its own options follow, such as --check-settings."""
    # Imported here: each service brings drivers that the others, and this command line, do not need.
    module = "tokenry_cli.agent" if role is Role.AGENT else f"tokenry_{role}.__main__"
    service = importlib.import_module(module)
    sys.exit(service.main(context.args, os.environ))
