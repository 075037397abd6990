"""
The reference pages that are made from the code: settings, metrics and endpoints.

`make docs` writes them; a test compares what is committed with what the code says, so that nothing can be
added, renamed or removed without its documentation.
"""

import ast
import asyncio
import importlib
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from tests.support.commands_page import commands_page
from tests.support.rules import rules_page
from tokenry.serving.keys import METRICS
from tokenry.serving.settings import ServiceSettings, describe
from tokenry_admin.openapi import openapi_document as admin_document
from tokenry_admin.settings import Settings as AdminSettings
from tokenry_cli.agent import AgentSettings
from tokenry_cli.dev import Addresses, console_service, services
from tokenry_cli.dev_folder import DevFolder
from tokenry_cli.dev_registry import prepare
from tokenry_cli.processes import Service
from tokenry_console.openapi import openapi_document as console_document
from tokenry_console.settings import Settings as ConsoleSettings
from tokenry_issuer.openapi import openapi_document
from tokenry_issuer.settings import Settings as IssuerSettings
from tokenry_revocation.openapi import OPENAPI
from tokenry_revocation.settings import Settings as RevocationSettings
from tokenry_tokeninfo.openapi import document
from tokenry_tokeninfo.settings import Settings as TokeninfoSettings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "issuer": IssuerSettings,
    "tokeninfo": TokeninfoSettings,
    "revocation": RevocationSettings,
    "agent": AgentSettings,
    "admin": AdminSettings,
    "console": ConsoleSettings,
}
# Metrics of the process and of the interpreter, which prometheus-client documents itself.
_METHODS = {"get", "post", "put", "patch", "delete", "head", "options"}
_FOREIGN_METRICS = ("process_", "python_")


def settings_page() -> str:
    """Return docs/settings.md."""
    common = {setting.name for setting in describe(ServiceSettings)}
    lines = [
        "# Settings",
        "",
        "Every service reads its settings from the environment, checks them as a whole, and does not start while",
        "one is wrong: it lists all faults at once and ends with status 2. `tokenry serve ROLE --check-settings`",
        "only checks. `NAME_FILE` names a file that holds the value of `NAME`. Durations are written `30s`, `1h10m`,",
        "`100ms` or as bare seconds; lists are separated by commas.",
        "",
        "## All services",
        "",
        *_settings_table(ServiceSettings, skip=frozenset()),
    ]
    for role, settings in SETTINGS.items():
        lines += ["", f"## `tokenry serve {role}`", ""]
        above = next((name for name, each in SETTINGS.items() if each is settings.__base__), None)
        if above is None:
            lines += _settings_table(settings, skip=common)
            continue
        known = set(describe(SETTINGS[above]))
        same = {setting.name for setting in describe(settings) if setting in known}
        lines += [f"Those of `tokenry serve {above}`, and:", "", *_settings_table(settings, skip=same)]
    return "\n".join(lines) + "\n"


def _settings_table(settings: type[ServiceSettings], *, skip: Iterable[str]) -> Iterator[str]:
    yield "| setting | type | default | |"
    yield "|---|---|---|---|"
    for setting in describe(settings):
        if setting.name in skip:
            continue
        names = ", ".join(f"`{name}`" for name in (setting.name, *setting.other_names))
        default = "**required**" if setting.required else f"`{setting.default}`" if setting.default else ""
        yield f"| {names} | {_cell(setting.type)} | {default} | {_cell(setting.description)} |"


def metrics_page(registries: Mapping[str, CollectorRegistry]) -> str:
    """Return docs/metrics.md for the services' *registries*."""
    tables = {role: dict(sorted(_families(registry))) for role, registry in registries.items()}
    shared = set.intersection(*(set(table) for table in tables.values()))
    lines = [
        "# Metrics",
        "",
        "Served at `/metrics` in Prometheus's text form, on a port of its own where",
        "`TOKENRY_METRICS_LISTEN_ADDRESS` is set. No label holds anything that a caller chooses. Each service also",
        "exports the `process_` and `python_` metrics of the Prometheus client.",
        "",
        "## All services",
        "",
        *_metrics_table({name: row for name, row in next(iter(tables.values())).items() if name in shared}),
    ]
    for role, table in tables.items():
        own = {name: row for name, row in table.items() if name not in shared}
        lines += ["", f"## `tokenry serve {role}`", "", *_metrics_table(own)]
    return "\n".join(lines) + "\n"


def _families(registry: CollectorRegistry) -> Iterator[tuple[str, tuple[str, str]]]:
    for family in registry.collect():
        if not family.name.startswith(_FOREIGN_METRICS):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            yield family.name + suffix, (family.type, family.documentation)


def _metrics_table(rows: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield "| metric | type | |"
    yield "|---|---|---|"
    for name, (kind, text) in rows.items():
        yield f"| `{name}` | {kind} | {_cell(text)} |"


def endpoints_page(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Return docs/endpoints.md for the services' OpenAPI *documents*."""
    lines = [
        "# Endpoints",
        "",
        "Each service serves its OpenAPI document at `/openapi.json`; this page is made from them. All services",
        "also have `/healthz` (alive), `/readyz` (can do its job; `?verbose` says why not), `/metrics` and",
        "`/openapi.json`.",
    ]
    for role, described in documents.items():
        lines += ["", f"## {role}", "", "| method and path | |", "|---|---|"]
        for path, operations in described["paths"].items():
            summaries = {
                name: operation.get("summary", "") for name, operation in operations.items() if name in _METHODS
            }
            if len(summaries) == len(_METHODS):
                summaries = {"any": summaries["get"]}
            for method, summary in summaries.items():
                lines.append(f"| `{method.upper()} {path}` | {_cell(summary)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def module_map() -> str:
    """Return the map of ARCHITECTURE.md: every module with its own first sentence."""
    lines = []
    for folder in sorted({path.parent for path in _modules()}):
        lines += ["", f"**{folder.relative_to(ROOT)}**", "", "| module | |", "|---|---|"]
        for path in sorted(each for each in _modules() if each.parent == folder):
            sentence = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
            lines.append(f"| [{path.name}]({path.relative_to(ROOT)}) | {_cell(sentence)} |")
    return "\n".join([*lines, ""])


def _modules() -> list[Path]:
    roots = (ROOT / "shared", ROOT / "services")
    return [path for root in roots for path in root.rglob("*.py") if path.name != "__init__.py"]


def replaced(text: str, mark: str, content: str) -> str:
    """Return *text* with *content* between the two comments named *mark*."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    return f"{before}{begin}{content}\n{end}{after}"


def pages() -> dict[Path, str]:
    """Return every generated page and what has to be in it."""
    architecture, standards = ROOT / "ARCHITECTURE.md", ROOT / "docs" / "standards.md"
    return {
        ROOT / "docs" / "settings.md": settings_page(),
        ROOT / "docs" / "metrics.md": metrics_page(
            {role: app[METRICS].registry for role, app in applications().items()}
        ),
        ROOT / "docs" / "endpoints.md": endpoints_page(openapi_documents()),
        ROOT / "docs" / "commands.md": commands_page(),
        architecture: replaced(architecture.read_text(), "map", module_map()),
        standards: replaced(standards.read_text(), "rules", rules_page(ROOT / "tests")),
    }


def openapi_documents() -> dict[str, Mapping[str, Any]]:
    """Return the services' OpenAPI documents."""
    return {
        "issuer": openapi_document("https://issuer.example"),
        "tokeninfo": document(),
        "revocation": OPENAPI,
        "admin": admin_document(raw_sync=True),
        "console": console_document(),
    }


def applications() -> dict[str, web.Application]:
    """Return the services' applications, composed as `tokenry dev` does (with what it leaves out) and never started."""
    with tempfile.TemporaryDirectory() as root:
        folder = DevFolder(Path(root) / "state")
        with folder.locked():
            identities = folder.identities()
            prepare(folder, identities, now=time.time())
            plan = [*services(folder, Addresses.on(9080), identities), _admin(folder), _console(folder)]
            return {service.name: asyncio.run(_compose(service)) for service in plan}


def _admin(folder: DevFolder) -> Service:
    """Return administration with all that it can have."""
    environment = {
        "TOKENRY_ISSUER": "http://127.0.0.1:9080",
        "TOKENRY_CREDENTIALS_URL": folder.credentials.as_uri() + "/",
        "TOKENRY_ENVELOPE_KEY_FILE": str(folder.envelope_key),
        "TOKENRY_RAW_SYNC": "on",
    }
    return Service(name="admin", module="tokenry_admin", environment=environment, url="", log=folder.logs / "admin.log")


def _console(folder: DevFolder) -> Service:
    """Return the console."""
    return console_service(folder, Addresses.on(9080), port=9084)


async def _compose(service: Service) -> web.Application:
    root = importlib.import_module(f"{service.module}.__main__")
    settings_class = getattr(root, "CheckedSettings", root.Settings)
    app: web.Application = root.compose(settings_class.from_environment(service.environment))()
    return app


def main() -> None:
    """Write the pages."""
    for path, content in pages().items():
        path.write_text(content)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
