"""
The commands by name, imported only when they are called: the help of the whole is there at once.

Each entry has the words of its help, which a test compares with what the command says itself.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One command of the first level.

    Attributes:
        module: Module of `tokenry_cli` that it is in.
        help: What it does, in a line.
        attribute: The function; None: the module's `app`, a group.
        shares: Whether it has the shared options; a service that is started has its own.
    """

    module: str
    help: str
    attribute: str | None = None
    shares: bool = True


ENTRIES: Final[Mapping[str, Entry]] = {
    "dev": Entry("dev", "Run issuer, token info and revocation service on loopback until Ctrl-C, for development only.",
                 "dev"),
    "demo": Entry("demo", "Show the whole story on this machine; exit 0 only if every step was as it should be.",
                  "demo"),
    "serve": Entry("serve", "Run one service; its own options follow, such as --check-settings.", "serve",
                   shares=False),
    "healthcheck": Entry("admin", "Ask whether the service in this container is ready; exit 0 if so.", "healthcheck",
                         shares=False),
    "token": Entry("token", "Get a token, or look into one."),
    "revoke": Entry("revoke", "Revoke tokens: one, by claims, by key, or all; look, undo, approve."),
    "job": Entry("job", "Batches of revocations: how far they have come."),
    "keys": Entry("keys", "The signing keys: look at them, rotate, retire."),
    "client": Entry("client", "Clients and users of the registry: as code, or one at a time."),
    "credentials": Entry("credentials", "An application's own credentials."),
    "validators": Entry("extend", "Which validators there are, and what they have applied."),
    "audit": Entry("audit", "Who did what, and whether the log of it is whole."),
    "admin": Entry("revocations_backup", "Set a platform up."),
    "context": Entry("context_commands", "Platforms by name: add, use, list."),
    "config": Entry("config", "The settings of a service: what is set, whether it is right, what there is."),
    "doctor": Entry("doctor", "Say what works from here and what does not, and what to do; ends with 1 when something "
                    "is wrong.", "doctor"),
    "routes": Entry("routes", "List every route of an application with the scopes that it asks for.", "routes"),
    "canary": Entry("canary", "Time the whole way of a revocation, again and again: from the store's word to the first "
                    "refusal.", "canary"),
    "drill": Entry("drill", "Practise an outage or a leak: break or leak something for real, mend it, measure, and "
                   "write a report.", "drill"),
    "bench": Entry("bench", "How fast this is from here: validating, issuing, and how soon a revocation bites."),
    "completion": Entry("completion", "Print the shell's script for completion, to be sourced.", "completion"),
}  # fmt: skip
_PASSED_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}


def load(name: str) -> TyperCommand | TyperGroup:
    """Return the command *name* of the first level, imported."""
    from tokenry_cli.app import App

    entry = ENTRIES[name]
    module = importlib.import_module(f"tokenry_cli.{entry.module}")
    found: Any
    if entry.attribute is None:
        found = get_group(module.app)
    elif entry.shares:
        app = App(add_completion=False)
        app.command(name)(getattr(module, entry.attribute))
        found = get_command(app)
    else:
        plain = typer.Typer(add_completion=False)
        plain.command(name, context_settings=_PASSED_ON)(getattr(module, entry.attribute))
        found = get_command(plain)
    found.name = name
    return found  # type: ignore[no-any-return]


class LazyGroup(TyperGroup):
    """The commands of the first level: known by name and help, imported when one is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 -- typer keeps its type to itself
        """Return the names in the order of the help."""
        return list(ENTRIES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 -- as above
        """Return what the help needs of a command."""
        entry = ENTRIES.get(cmd_name)
        return None if entry is None else TyperCommand(cmd_name, help=entry.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 -- as above
        """Return the command that *args* call, imported, and the rest of them."""
        name, found, rest = super().resolve_command(ctx, args)
        return (name, load(name), rest) if name is not None and name in ENTRIES else (name, found, rest)
