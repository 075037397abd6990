"""`tokenry routes MODULE:APP`: what each route of an application asks of its callers, for a review."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from tokenry_cli.invocation import current
from tokenry_cli.output import ExitCode, Format, data, fail, people, write_document

if TYPE_CHECKING:
    from tokenry.protect import RouteAccess

# By the package that an application's class comes from; the most special first.
_FRAMEWORKS: Final = ("fastapi", "starlette", "aiohttp", "flask", "django", "grpc")


def routes(
    application: Annotated[str, typer.Argument(metavar="MODULE:APP", help="As for gunicorn or uvicorn.")],
    output: Format = Format.TABLE,
    app_dir: Annotated[Path, typer.Option(help="Folder to import from.", file_okay=False)] = Path(),
    check: Annotated[bool, typer.Option("--check", help="Fail if a path is public that may not be.")] = False,
    allow_public: Annotated[list[str] | None, typer.Option(help="Path that may be public; may repeat.")] = None,
) -> None:
    """List every route of an application with the scopes that it asks for."""
    found = routes_of(_load(application, app_dir))
    if output is Format.JSON:
        write_document([route.as_mapping() for route in found], form=current().form)
    else:
        _print(found)
    surprising = sorted({route.path for route in found if _is_open(route)} - set(allow_public or ()))
    if check and surprising:
        fail(f"public, and not by --allow-public: {', '.join(surprising)}")


def routes_of(application: object) -> list[RouteAccess]:
    """Return the routes of an application of any framework that the library knows; fails for another one."""
    packages = {cls.__module__.removeprefix("tokenry.").partition(".")[0] for cls in type(application).__mro__}
    framework = next((name for name in _FRAMEWORKS if name in packages), None)
    if framework is None:
        fail(f"{type(application).__name__} is of no framework whose routes can be listed", code=ExitCode.USAGE)
    module: Any = importlib.import_module(f"tokenry.{framework}")
    found: list[RouteAccess] = module.routes(application)
    return found


def _load(application: str, folder: Path) -> object:
    module_name, colon, attributes = application.partition(":")
    if not colon or not module_name or not attributes:
        raise typer.BadParameter("name the application as MODULE:APP")
    sys.path.insert(0, str(folder.resolve()))
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        fail(f"cannot import {module_name}: {error}", code=ExitCode.USAGE)
    for name in attributes.removesuffix("()").split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            fail(f"{module_name} has no {attributes}", code=ExitCode.USAGE)
    return found() if attributes.endswith("()") and callable(found) else found


def _is_open(route: RouteAccess) -> bool:
    return route.access is None or route.access.public


def _print(found: list[RouteAccess]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("method", "path", "callers need", "handler"):
        table.add_column(title, overflow="fold")
    for route in found:
        needed = str(route.access) if route.access is not None else "unknown"
        table.add_row(route.method, route.path.replace("[", r"\["), _coloured(needed, route), route.handler)
    data.print(table)
    people.print(f"{sum(map(_is_open, found))} of {len(found)} are open")


def _coloured(text: str, route: RouteAccess) -> str:
    return f"[red]{text}[/red]" if _is_open(route) else text
