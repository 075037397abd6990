"""What a command prints: data on standard output, everything else on standard error; and its exit codes."""

from __future__ import annotations

import json
import logging
import sys
import time
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    WAITED_IN_VAIN = 6
    PARTLY_DONE = 7
    INTERRUPTED = 130


class Format(StrEnum):
    """Forms of output: a table for people, JSON for machines."""

    TABLE = "table"
    JSON = "json"


people = Console(stderr=True, highlight=False, soft_wrap=True)
data = Console(highlight=False, soft_wrap=True)


def log_to_stderr() -> None:
    """Have what the services' modules log go to standard error, and only what somebody should know."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def fail(message: str, *, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """End the command with *message* and *code*."""
    people.print(f"[red]error:[/red] {escape(message)}")
    sys.exit(code)


def show(document: Mapping[str, Any], *, form: Format) -> None:
    """Print *document* as it is, or as a table of two columns."""
    if form is Format.JSON:
        sys.stdout.write(json.dumps(document, indent=2, sort_keys=True) + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in document.items():
        text = value if isinstance(value, str) else json.dumps(value)
        table.add_row(f"[dim]{escape(name)}[/dim]", escape(text))
    data.print(table)


def moment(seconds: float) -> str:
    """Return Unix *seconds* in UTC as RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def escape(text: str) -> str:
    """Return *text* so that rich prints it as it is."""
    return text.replace("[", r"\[")
