"""What a command prints: data on standard output, everything else on standard error; and its exit codes."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rich.console import Console
from rich.table import Table

from tokenry_cli.invocation import Form, Kind, current

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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


MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "wrong usage or settings, or not confirmed; nothing was changed",
    ExitCode.NOT_FOUND: "what was named is not there",
    ExitCode.NOT_ALLOWED: "not allowed",
    ExitCode.CONFLICT: "a conflict with what is there",
    ExitCode.WAITED_IN_VAIN: "waited in vain",
    ExitCode.PARTLY_DONE: "partly done",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}

# What to do next, where nobody knows better.
_NEXT: Final = {
    ExitCode.FAILED: "tokenry doctor says what works from here and what does not",
    ExitCode.USAGE: "tokenry {command} --help",
    ExitCode.NOT_FOUND: "look at the name again: the list command shows what is there",
    ExitCode.NOT_ALLOWED: "tokenry token get shows as whom you act; the page says which scope or right is needed",
    ExitCode.CONFLICT: "look at what is there now, then decide",
    ExitCode.WAITED_IN_VAIN: "tokenry validators list shows who is behind",
    ExitCode.PARTLY_DONE: "running the same again goes on and repeats nothing",
}

# The page about each command.
PAGES: Final = {
    "admin": "docs/operations/backup.md",
    "audit": "docs/operations/audit.md",
    "bench": "docs/performance.md",
    "canary": "docs/operations/monitor.md",
    "client": "docs/operations/clients-as-code.md",
    "config": "docs/settings.md",
    "credentials": "docs/library/call-a-service.md",
    "demo": "README.md",
    "dev": "docs/library/first-token.md",
    "doctor": "docs/library/doctor.md",
    "drill": "docs/operations/drills.md",
    "job": "docs/operations/incident.md",
    "keys": "docs/operations/keys.md",
    "revoke": "docs/operations/incident.md",
    "routes": "docs/library/README.md",
    "token": "docs/library/errors.md",
    "validators": "docs/operations/incident.md",
}
PAGE: Final = "docs/operations/command-line.md"


class Format(StrEnum):
    """For whom a command prints: a table for people, a document for machines."""

    TABLE = "table"
    JSON = "json"


people = Console(stderr=True, highlight=False, soft_wrap=True)
data = Console(highlight=False, soft_wrap=True)


def log_to_stderr() -> None:
    """Have what the services' modules log go to standard error, and only what somebody should know."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def fail(
    message: str, *, code: ExitCode = ExitCode.FAILED, advice: str | None = None, page: str | None = None
) -> NoReturn:
    """
    End the command.

    Args:
        message: What went wrong.
        code: The exit code.
        advice: What to do next; default: what fits the code.
        page: The page of the documentation; default: that of the command.
    """
    complain(message, code=code, advice=advice, page=page)
    sys.exit(code)


def complain(
    message: str, *, code: ExitCode = ExitCode.FAILED, advice: str | None = None, page: str | None = None
) -> None:
    """Print what `fail` prints, and go on."""
    command = current().command
    people.quiet = False
    people.print(f"[red]error:[/red] {escape(message)}")
    following = advice or _NEXT.get(code, "").format(command=command)
    if following:
        people.print(f"[dim]next:[/dim]  {escape(following)}")
    people.print(f"[dim]page:[/dim]  {page or PAGES.get(command.partition(' ')[0], PAGE)}")


def show(document: Mapping[str, Any], *, form: Format) -> None:
    """Print *document* as it is, or as a table of two columns; moments in it are Unix seconds by their names."""
    if form is Format.JSON:
        wanted = current().form
        write_document(document, form=wanted if wanted.is_for_machines else Form(Kind.JSON))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    now = time.time()
    for name, value in document.items():
        if is_moment(name, value):
            text = when(value, now=now)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
        table.add_row(f"[dim]{escape(name)}[/dim]", escape(text))
    print_table(table)


def print_table(table: Table) -> None:
    """Print *table*, with the context in use in its head."""
    if (name := current().context_name) is not None:
        table.title = f"{table.title or ''}   [dim]context: {escape(name)}[/dim]".lstrip()
        table.title_justify = "left"
    data.print(table)


def write_document(document: Any, *, form: Form) -> None:  # noqa: ANN401 -- any JSON value
    """Write *document* for machines; Unix seconds under the names of moments become RFC 3339."""
    told = with_moments(document)
    match form.kind:
        case Kind.YAML:
            import yaml

            text = yaml.safe_dump(told, sort_keys=True, allow_unicode=True)
        case Kind.NAME:
            text = "".join(f"{name}\n" for name in _names(document))
        case Kind.JSONPATH:
            text = "".join(
                f"{value if isinstance(value, str) else json.dumps(value, sort_keys=True)}\n"
                for value in form.pick(told)
            )
        case _:
            text = json.dumps(told, indent=2, sort_keys=True) + "\n"
    sys.stdout.write(text)


_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_DIGITS: Final = 12
_CLOCKS_DIFFER_SECONDS: Final = 60
_IDS: Final = ("id", "kid", "name", "client_id", "username", "instance", "job", "check", "path")


def _names(document: Any) -> Iterator[str]:  # noqa: ANN401 -- any JSON value
    """Yield the name of *document*, or of each thing in its lists."""
    if not isinstance(document, dict):
        return
    own = next((document[name] for name in _IDS if isinstance(document.get(name), str)), None)
    if own is not None:
        yield own
        return
    for value in document.values():
        for each in value if isinstance(value, list) else ():
            yield from _names(each)


_MOMENTS: Final = frozenset(
    {"applied_as_of", "expires", "issued_before", "last_poll", "now", "old_until", "plan_b_by", "propagated_by"}
)


def is_moment(name: str, value: object) -> bool:
    """Tell whether *value* under *name* is a moment in Unix seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return name in _MOMENTS or name.endswith(("_at", "_until", "_after"))


def with_moments(value: Any, name: str = "") -> Any:  # noqa: ANN401 -- any JSON value
    """Return *value* with its moments in RFC 3339; what the claims of a token say stays as it was signed."""
    if isinstance(value, dict):
        return {key: each if key == "claims" else with_moments(each, key) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_moments(each) for each in value]
    return moment(value) if is_moment(name, value) else value


def moment(seconds: float) -> str:
    """Return Unix *seconds* in UTC as RFC 3339, with milliseconds where there are some."""
    whole = isinstance(seconds, int) or seconds.is_integer()
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds" if whole else "milliseconds")
    return text.replace("+00:00", "Z")


def parse_moment(text: str, *, now: float) -> int:
    """
    Return the Unix second that *text* names: `now`, a span such as `2h` for so long ago, RFC 3339, or Unix seconds.

    Raises:
        ValueError: It names none, or one in the future.
    """
    if text == "now":
        return int(now)
    if span := _SPAN.fullmatch(text):
        return int(now) - int(span[1]) * _SECONDS[span[2]]
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS:
        named = int(text)
    else:
        try:
            moment_ = datetime.fromisoformat(text)
        except ValueError:
            fault = f"{text[:40]!r} is no moment; such as now, 2h (ago), 2026-11-21T18:00Z, or Unix seconds"
            raise ValueError(fault) from None
        named = int((moment_ if moment_.tzinfo else moment_.replace(tzinfo=UTC)).timestamp())
    if named > now + _CLOCKS_DIFFER_SECONDS:
        raise ValueError(f"{text[:40]!r} lies in the future: only tokens that were issued can be revoked")
    return named


def when(seconds: float, *, now: float) -> str:
    """Return Unix *seconds* for people: the moment, and how far from *now* it is."""
    return f"{moment(int(seconds))} ({relative(seconds, now=now)})"


def relative(seconds: float, *, now: float) -> str:
    """Return Unix *seconds* as people say it at *now*: `4 s ago`, `in 59 min`."""
    return f"in {span(seconds - now)}" if seconds > now else f"{span(now - seconds)} ago"


def span(seconds: float) -> str:
    """Return a span of time in words, as much as people want of it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def escape(text: str) -> str:
    """Return *text* so that rich prints it as it is."""
    return text.replace("[", r"\[")
