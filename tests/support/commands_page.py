"""docs/commands.md: every command, option and exit code, from what the commands say themselves."""

import re
from collections.abc import Iterator
from typing import Any

import typer
import typer.core

from tokenry_cli.app import PANEL
from tokenry_cli.commands import ENTRIES, load
from tokenry_cli.output import MEANINGS

_SHARED = ("yes", "yes_on", "no_input", "quiet", "verbose", "no_color", "timeout")
_KINDS = {"int": "NUMBER", "float": "NUMBER", "str": "TEXT"}
_EVERYWHERE = "revoke", "claim"  # a command that has all of them, and --output and --context as well


def commands_page() -> str:
    """Return docs/commands.md."""
    lines = [
        "# Commands",
        "",
        "Made from the commands themselves by `make docs`. How they behave, contexts, and forms of output:",
        "[The command line](operations/command-line.md).",
        "",
        "## Options of every command",
        "",
        "`serve` and `healthcheck` have their own only. Where data is printed there is `--output`, where a platform is",
        "asked `--context`, where something is written `--dry-run`.",
        "",
        *_table(_shared()),
        "",
        "## Exit codes",
        "",
        "| code | |",
        "|---|---|",
        *(f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items()),
    ]
    for name in ENTRIES:
        lines += _described(name)
    return "\n".join(lines) + "\n"


def _shared() -> list[Any]:
    group, name = _EVERYWHERE
    params = load(group).commands[name].params  # type: ignore[union-attr]
    return [param for param in params if param.name in {*_SHARED, "output", "context"}]


def _described(name: str) -> Iterator[str]:
    command: Any = load(name)
    yield from ("", f"## `tokenry {name}`", "", *_paragraphs(command.help))
    if not hasattr(command, "commands"):
        yield from _own(command)
        return
    for each, leaf in command.commands.items():
        yield from ("", f"### `{_usage(f'tokenry {name} {each}', leaf)}`", "", *_paragraphs(leaf.help))
        yield from _own(leaf)


def _usage(words: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    return " ".join([words, *map(_name, arguments)])


def _name(param: Any) -> str:
    name = (param.metavar or param.name).upper() + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _own(command: Any) -> Iterator[str]:
    shown = [
        param
        for param in command.params
        if param.name not in {"output", "context", "help"}
        and getattr(param, "rich_help_panel", None) != PANEL
        and not getattr(param, "hidden", False)
    ]
    if shown:
        yield ""
        yield from _table(shown)


def _table(params: list[Any]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for param in params:
        if param.param_type_name == "argument":
            label = f"`{_name(param)}`"
        else:
            names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
            value = "" if param.is_flag else f" `{param.metavar or _kind(param)}`"
            label = f"{names}{value}"
        yield f"| {_cell(label)} | {_cell(_explained(param))} |"


def _kind(param: Any) -> str:
    told = param.display_type(typer.Context(typer.core.TyperCommand("any"))).strip("<>")
    told = told.removeprefix("list[").removesuffix("]")
    return told if "|" in told else _KINDS.get(told.removesuffix(" range"), "FILE")


def _explained(param: Any) -> str:
    text = param.help or ""
    default = param.default
    if param.required:
        return f"{text} Required."
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    if not plain or default == "" or "Default" in text:
        return text
    return f"{text} Default: `{getattr(default, 'value', default)}`."


def _paragraphs(text: str | None) -> list[str]:
    parts = [re.sub(r"\s+", " ", part).strip() for part in (text or "").split("\n\n")]
    return "\n\n".join(parts).split("\n")


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()
