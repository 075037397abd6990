"""
The options that all commands share, and what becomes of their errors.

A command names in its signature what it needs; `App.command` adds the rest, in one place, so that an option is
called the same and means the same everywhere.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer
from typer.core import TyperCommand

from tokenry.errors import TokenryError
from tokenry_cli.explaining import explain
from tokenry_cli.invocation import FORMS, Form, Invocation, calling
from tokenry_cli.output import ExitCode, Format, data, fail, people

if TYPE_CHECKING:
    from collections.abc import Callable

PANEL: Final = "Everywhere"
_OUTPUT: Final = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar=FORMS, envvar="TOKENRY_OUTPUT", help="Form of the data. Default: table."),
]
_CONTEXT: Final = Annotated[
    str | None,
    typer.Option(
        "--context", "-C", metavar="NAME|FILE", help="Platform and identity: a context, or a file of `tokenry dev`; "
        "- is none. Default: TOKENRY_CONTEXT, else the current context.",
    ),
]  # fmt: skip
# Name of the parameter, and what typer is told of it.
_SHARED: Final[dict[str, Any]] = {
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", rich_help_panel=PANEL)],
    "yes_on": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Do not ask, on this context: for protected ones.", rich_help_panel=PANEL),
    ],
    "no_input": Annotated[
        bool, typer.Option("--no-input", help="Ask nothing: end with 2 instead.", rich_help_panel=PANEL)
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only data and errors.", rich_help_panel=PANEL)],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Show each request on standard error.", rich_help_panel=PANEL)
    ],
    "no_color": Annotated[
        bool, typer.Option("--no-color", help="No colours, as with NO_COLOR.", rich_help_panel=PANEL)
    ],
    "timeout": Annotated[
        float | None,
        typer.Option(min=0.1, max=600, metavar="SECONDS", help="For each request.", rich_help_panel=PANEL),
    ],
}
_DEFAULTS: Final = {"yes_on": None, "timeout": None}


_KEY_ID: Final = re.compile(r"-[A-Za-z0-9_-]{42}")  # a thumbprint (RFC 7638); one in 64 begins with a dash


class Command(TyperCommand):
    """A command to which a key id is one, also where it looks like an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 -- click's, by whichever name
        """Parse *args*, with key ids that begin with a dash behind the end of the options."""
        takes_value = {
            name
            for param in self.params
            if getattr(param, "is_flag", True) is False and param.param_type_name == "option"
            for name in (*param.opts, *param.secondary_opts)
        }
        end = args.index("--") if "--" in args else len(args)
        before, after = args[:end], args[end + 1 :]
        ids = [
            place
            for place, text in enumerate(before)
            if _KEY_ID.fullmatch(text) and (place == 0 or before[place - 1] not in takes_value)
        ]
        if ids:
            kept = [text for place, text in enumerate(before) if place not in ids]
            args = [*kept, "--", *(before[place] for place in ids), *after]
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A group of commands that have the shared options."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:  # noqa: ANN401 -- typer's own
        """Add a command as typer does, with the shared options."""
        register = super().command(name, **{"cls": Command, **options})

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            group = self.info.name if isinstance(self.info.name, str) else ""
            own = name or function.__name__.strip("_").replace("_", "-")
            register(_sharing(function, words=f"{group} {own}".strip()))
            return function

        return decorate


def _sharing(function: Callable[..., Any], *, words: str) -> Callable[..., Any]:
    """Return *function* with the shared options beside its own."""
    hints = get_type_hints(function, include_extras=True)
    own = {
        name: each.replace(annotation=hints.get(name, each.annotation), kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in inspect.signature(function).parameters.items()
    }
    given = {name: each.default for name, each in own.items()}
    parameters = dict(own)
    for name, annotation in (("output", _OUTPUT), ("context", _CONTEXT)):
        if name in own:
            parameters[name] = own[name].replace(annotation=annotation, default=None)
    for name, annotation in _SHARED.items():
        if name in own and name != "yes":  # `tokenry dev -v` means its own
            continue
        parameters[name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=_DEFAULTS.get(name, False)
        )

    @wraps(function)
    def command(**options: Any) -> Any:  # noqa: ANN401 -- as *function*
        shared = {name: options[name] for name in _SHARED if name not in own or name == "yes"}
        colourless = shared.pop("no_color", False)
        invocation = Invocation(command=words, **shared, context=options.get("context"))
        told = {name: options[name] for name in own}
        with calling(invocation), _Consoles(quiet=invocation.quiet, colourless=colourless):
            if "output" in own:
                told["output"] = _form(options["output"], invocation, otherwise=given["output"])
            return _ending(function, told)

    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return command


def _form(text: str | None, invocation: Invocation, *, otherwise: Any) -> Any:  # noqa: ANN401 -- the command's default
    if text is None:
        return otherwise
    try:
        invocation.form = Form.parse(text)
    except ValueError as error:
        fail(str(error), code=ExitCode.USAGE)
    return Format.JSON if invocation.form.is_for_machines else Format.TABLE


def _ending(function: Callable[..., Any], told: dict[str, Any]) -> Any:  # noqa: ANN401 -- as *function*
    """Return what *function* returns, or end the process as its error says."""
    try:
        return function(**told)
    except KeyboardInterrupt:
        people.print("interrupted; running the same again is safe")
        sys.exit(ExitCode.INTERRUPTED)
    except TokenryError as error:
        explain(error)


class _Consoles:
    """Quiet and colourless for one command."""

    def __init__(self, *, quiet: bool, colourless: bool) -> None:
        self._quiet = quiet
        self._colourless = colourless or bool(os.environ.get("NO_COLOR"))

    def __enter__(self) -> None:
        self._before = [(console, console.quiet, console.no_color) for console in (people, data)]
        people.quiet = self._quiet
        for console in (people, data):
            console.no_color = console.no_color or self._colourless

    def __exit__(self, *_: object) -> None:
        for console, quiet, no_color in self._before:
            console.quiet, console.no_color = quiet, no_color
