"""`tokenry config`: the settings of a service, as it would read them from this environment."""

from __future__ import annotations

import importlib
import json
import os
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from tokenry.errors import ConfigurationError
from tokenry.serving.settings import FILE_SUFFIX, describe
from tokenry_cli.app import App
from tokenry_cli.invocation import Kind, current
from tokenry_cli.output import ExitCode, Format, complain, escape, people, print_table, show
from tokenry_cli.token import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tokenry.serving.settings import ServiceSettings, SettingDescription

app = App(
    name="config",
    no_args_is_help=True,
    help="The settings of a service: what is set, whether it is right, what there is.",
)


class Role(StrEnum):
    """Services with settings."""

    ISSUER = "issuer"
    TOKENINFO = "tokeninfo"
    REVOCATION = "revocation"
    ADMIN = "admin"
    CONSOLE = "console"
    AGENT = "agent"


# What a service reads at its start, with the checks that it makes then.
_CLASSES: Final = {
    Role.ISSUER: ("tokenry_issuer.settings", "Settings"),
    Role.TOKENINFO: ("tokenry_tokeninfo.settings", "Settings"),
    Role.REVOCATION: ("tokenry_revocation.__main__", "CheckedSettings"),
    Role.ADMIN: ("tokenry_admin.settings", "Settings"),
    Role.CONSOLE: ("tokenry_console.settings", "Settings"),
    Role.AGENT: ("tokenry_cli.agent", "AgentSettings"),
}
MASK: Final = "(secret)"
_USERINFO: Final = re.compile(r"(?<=//)[^/@\s]*@")
RoleArgument = Annotated[Role, typer.Argument(help="Which service.")]


def settings_class(role: Role) -> type[ServiceSettings]:
    """Return the settings of *role*, imported now: some services bring drivers with them."""
    module, name = _CLASSES[role]
    found: type[ServiceSettings] = getattr(importlib.import_module(module), name)
    return found


@app.command("show")
def show_(
    role: RoleArgument,
    effective: Annotated[bool, typer.Option("--effective", help="Also the defaults of what is not set.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what is set; secrets are masked. Whether it is right says `config check`."""
    rows = list(settings_of(settings_class(role), os.environ, effective=effective))
    if output is Format.JSON:
        show({"role": role.value, "settings": rows}, form=Format.JSON)
        return
    table = Table(box=None, pad_edge=False)
    is_wide = current().form.kind is Kind.WIDE
    for column in ("setting", "value", "source", *(["type", "meaning"] if is_wide else [])):
        table.add_column(column, overflow="fold")
    for row in rows:
        more = [row["type"], row["description"]] if is_wide else []
        table.add_row(*(escape(str(each)) for each in (row["name"], row["value"], row["source"], *more)))
    print_table(table)


def settings_of(cls: type[ServiceSettings], environ: Mapping[str, str], *, effective: bool) -> Iterator[dict[str, Any]]:
    """Yield the settings of *cls* that *environ* names, with *effective* all of them; nothing secret is in them."""
    for setting in describe(cls):
        told = {"name": setting.name, "type": setting.type, "description": setting.description}
        found = False
        for name in (setting.name, *setting.other_names):
            for source in (name, name + FILE_SUFFIX):
                if not environ.get(source):
                    continue
                found = True
                yield {**told, "value": _shown(setting, source, name, environ[source]), "source": source}
        if effective and not found:
            value = "" if setting.default is None else setting.default
            source = "required, and not set" if setting.required else "default"
            yield {**told, "value": value, "source": source}


def _shown(setting: SettingDescription, source: str, name: str, value: str) -> str:
    if source != name:
        return f"(in {value})"
    return MASK if setting.secret else _USERINFO.sub(f"{MASK}@", value)


@app.command("check")
def check(role: RoleArgument, output: Output = Format.TABLE) -> None:
    """Check the settings as the service does at its start; ends with 2 and every fault at once."""
    faults: tuple[str, ...] = ()
    try:
        settings_class(role).from_environment(os.environ)
    except ConfigurationError as error:
        faults = error.faults
    if output is Format.JSON:
        show({"role": role.value, "valid": not faults, "faults": list(faults)}, form=Format.JSON)
    if not faults:
        people.print(f"[green]✓[/green] {role.value}: the settings are right")
        return
    count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
    text = "\n".join(f"  {fault}" for fault in faults)
    complain(
        f"{role.value}: {count} in the settings of this environment\n{text}",
        code=ExitCode.USAGE,
        advice=f"mend all of them, then: tokenry config check {role.value}",
    )
    raise typer.Exit(ExitCode.USAGE)


@app.command("schema")
def schema(role: RoleArgument) -> None:
    """Print a JSON Schema (2020-12) of the environment that the service reads."""
    typer.echo(json.dumps(schema_of(settings_class(role), role.value), indent=2, ensure_ascii=False))


def schema_of(cls: type[ServiceSettings], role: str) -> dict[str, Any]:
    """
    Return the JSON Schema of an environment for *cls*.

    An environment holds texts: of a number the schema says what it is, and its bounds are checked by the service.
    """
    properties: dict[str, Any] = {}
    required: list[dict[str, Any]] = []
    for setting in describe(cls):
        names = (setting.name, *setting.other_names)
        for name in names:
            properties[name] = _property(setting)
            properties[name + FILE_SUFFIX] = {
                "type": "string", "minLength": 1, "description": f"File that holds the value of {name}.",
            }  # fmt: skip
        if setting.required:
            given = [each for name in names for each in (name, name + FILE_SUFFIX)]
            required.append({"anyOf": [{"required": [name]} for name in given]})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Environment of tokenry serve {role}",
        "type": "object",
        "properties": properties,
        **({"allOf": required} if required else {}),
        "additionalProperties": True,
    }


def _property(setting: SettingDescription) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string", "description": setting.description, "x-tokenry-type": setting.type}
    if setting.default is not None and not setting.secret:
        found["default"] = setting.default
    if setting.secret:
        found["writeOnly"] = True
    if " | " in setting.type:
        found["enum"] = setting.type.split(" | ")
    return found
