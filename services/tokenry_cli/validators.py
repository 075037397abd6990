"""`tokenry validators`: which validators there are, and what they have applied."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from tokenry_cli.app import App
from tokenry_cli.context import load_context
from tokenry_cli.output import Format, data, escape, print_table, show
from tokenry_cli.platform import Platform
from tokenry_cli.token import ContextFile, Identity, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

app = App(name="validators", no_args_is_help=True, help="Which validators there are, and what they have applied.")

_LATE_SECONDS = 31.0  # beyond what is promised to a validator that polls


@app.command("list")
def list_(identity: Identity = "admin", context: ContextFile = None, output: Output = Format.TABLE) -> None:
    """Show every validator that polls: name, version, when it was heard of, how far behind it is."""
    answer = Platform(load_context(os.environ, file=context, identity=identity)).validators()
    if output is Format.JSON:
        show(answer, form=Format.JSON)
    else:
        print_table(table(answer))


@app.command("watch")
def watch(
    seconds: Annotated[float, typer.Option(min=0.5, help="Between two looks.")] = 2.0,
    identity: Identity = "admin",
    context: ContextFile = None,
) -> None:
    """Show the same, again and again until Ctrl-C; on a pipe one line of JSON a look."""
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    bearer = platform.bearer()
    if data.is_terminal:
        with Live(console=data, auto_refresh=False, screen=False) as live:
            while True:
                live.update(table(platform.validators(bearer=bearer)), refresh=True)
                time.sleep(seconds)
    while True:
        print(json.dumps(platform.validators(bearer=bearer)), flush=True)
        time.sleep(seconds)


def table(answer: Mapping[str, Any]) -> Table:
    """Return the answer of the service as a table, the one that is furthest behind first."""
    validators = furthest_behind_first(answer["validators"])
    now = answer["now"]
    late = sum(is_late(each) for each in validators)
    shown = Table(title=f"{len(validators)} validators, {late} late", title_justify="left", box=None, pad_edge=False)
    for name in ("name", "version", "heard of", "behind", "list age", "said by"):
        right = name in {"heard of", "behind", "list age"}
        shown.add_column(name, overflow="fold", justify="right" if right else "left")
    for each in validators:
        style = "red" if is_late(each) else None
        shown.add_row(
            escape(each["name"]), escape(each["version"]), f"{max(0.0, now - each['last_poll']):.0f} s ago",
            _seconds(each["lag"]), _seconds(each["list_age"]), "token" if each["verified"] else "its own word",
            style=style,
        )  # fmt: skip
    return shown


def furthest_behind_first(validators: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return *validators* in the order in which somebody should look at them; those that said nothing last."""
    return sorted(validators, key=lambda each: (each["lag"] is None, -(each["lag"] or 0.0), each["name"]))


def is_late(validator: Mapping[str, Any]) -> bool:
    """Tell whether *validator* is further behind than the promise allows."""
    return validator["lag"] is not None and validator["lag"] > _LATE_SECONDS


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} s"
