"""`tokenry admin backup-revocations` and `restore-revocations`: what is in force, as one file, and back."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError, TokenryError
from tokenry_cli.admin import app
from tokenry_cli.confirming import confirm
from tokenry_cli.environment import known_to
from tokenry_cli.output import ExitCode, Format, fail, log_to_stderr, people, show
from tokenry_cli.token import Output
from tokenry_revocation.__main__ import CheckedSettings, store_location
from tokenry_revocation.adapters.location import open_store
from tokenry_revocation.portable import Exported, ExportRefused, check, export, restore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenry_revocation.ports import RevocationStore

_EVERY = 10_000  # records between two lines of progress


@app.command("backup-revocations")
def backup_revocations(
    file: Annotated[Path, typer.Argument(help="File to write (mode 0600).", dir_okay=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file where there is one.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """
    Write the revocations in force into one file, from SQLite or Cassandra, while the service runs.

    Reads the settings of the revocation service. What is revoked after it began is not in the file.
    """
    if file.exists() and not overwrite:
        fail(f"{file} is there: choose another name, or --overwrite", code=ExitCode.CONFLICT)
    settings = _settings()

    try:
        # Beside it, and then over it: nobody meets half of a backup under its name.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".revocations-") as folder:
            half = Path(folder) / file.name
            with os.fdopen(os.open(half, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as content:
                done = _run(settings, lambda store: _export(store, content, settings))
                content.flush()
                os.fsync(content.fileno())
            half.replace(file)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", code=ExitCode.USAGE)
    show(asdict(done), form=output)
    people.print("[green]written[/green]; keep the digest somewhere else; what is revoked from now on is not in it")


async def _export(store: RevocationStore, file: IO[bytes], settings: CheckedSettings) -> Exported:
    return await export(store, file, issuer=settings.issuer, environment=settings.environment, now=SystemClock().now())


@app.command("restore-revocations")
def restore_revocations(
    file: Annotated[Path, typer.Argument(help="File of `tokenry admin backup-revocations`.", dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say whether the file is whole.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """
    Add the revocations of a file to the store; nothing is taken away, and doing it again is harmless.

    The store exists (tokenry serve revocation --create-schema). What was revoked since has to be posted again.
    """
    settings = _settings()
    try:
        with file.open("rb") as content:
            exported = check(content, issuer=settings.issuer, environment=settings.environment)
            answer = asdict(exported) | {"written": 0, "run_out": 0}
            if not dry_run:
                confirm(
                    f"{exported.records} revocations will be in force again. Type {settings.environment} to go on",
                    settings.environment,
                )
                written, over = _run(settings, lambda store: _restore(store, content, settings))
                answer |= {"written": written, "run_out": over}
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", code=ExitCode.USAGE)
    except ExportRefused as error:
        fail(f"{file}: {error}", code=ExitCode.CONFLICT)
    show(answer, form=output)
    if not dry_run:
        people.print("[green]restored[/green]; running services read it within a second")
        people.print("undo: tokenry revoke undo ID for a rule; tokens and keys stay revoked")
        people.print("next: post again what the audit log shows since the backup, or revoke everything until now")


async def _restore(store: RevocationStore, content: IO[bytes], settings: CheckedSettings) -> tuple[int, int]:
    said = 0

    def told(done: int, of: int) -> None:
        nonlocal said
        if done - said >= _EVERY:
            said = done
            people.print(f"restored {done} of {of}")

    return await restore(
        content,
        store,
        issuer=settings.issuer,
        environment=settings.environment,
        now=SystemClock().now(),
        done=told,
    )


def _settings() -> CheckedSettings:
    log_to_stderr()
    try:
        return CheckedSettings.from_environment(known_to(CheckedSettings, os.environ))
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)


def _run(settings: CheckedSettings, act: Callable[[RevocationStore], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- as *act*
    async def acting() -> Any:  # noqa: ANN401 -- as *act*
        store = await open_store(store_location(settings), clock=SystemClock(), environment=settings.environment)
        try:
            return await act(store)
        finally:
            await store.close()

    try:
        return asyncio.run(acting())
    except ConfigurationError as error:
        fail(str(error), code=ExitCode.USAGE)
    except ExportRefused:
        raise
    except (TokenryError, OSError) as error:
        fail(f"{error}; running the same again is safe")
