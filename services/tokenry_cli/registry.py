"""What the commands over the registry share: opening it with the operator's own rights, and saying what went wrong."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError, TokenryError
from tokenry.http.fetch import HttpFetcher
from tokenry_admin.__main__ import open_files, settling
from tokenry_admin.backup import BackupRefused
from tokenry_admin.clients import Editor
from tokenry_admin.documents import Documents, NotThere, NotValid, Taken, WrongRealm
from tokenry_admin.issuers import NotSettled
from tokenry_admin.key_opening import open_store
from tokenry_admin.secret_rotation import RotationBusy, RotationLost, SecretRotation, TooManySecrets
from tokenry_admin.settings import RegistrySettings
from tokenry_cli.auditing import audited, operator
from tokenry_cli.clients_file import FileRefused
from tokenry_cli.environment import known_to
from tokenry_cli.explaining import explain as explain_any
from tokenry_cli.output import ExitCode, fail
from tokenry_cli.rehearsal import RehearsedStore
from tokenry_registry.ports import ObjectUnreadable, StoreUnavailable, WriteConflict, WriteRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tokenry.clock import Clock
    from tokenry_admin.issuers import Settling
    from tokenry_registry.ports import WritableStore

_T = TypeVar("_T")
_CODES: Final[Mapping[type[TokenryError], ExitCode]] = {
    ConfigurationError: ExitCode.USAGE,
    FileRefused: ExitCode.USAGE,
    NotValid: ExitCode.USAGE,
    WrongRealm: ExitCode.USAGE,
    NotThere: ExitCode.NOT_FOUND,
    WriteRefused: ExitCode.NOT_ALLOWED,
    ObjectUnreadable: ExitCode.NOT_ALLOWED,
    WriteConflict: ExitCode.CONFLICT,
    Taken: ExitCode.CONFLICT,
    RotationBusy: ExitCode.CONFLICT,
    RotationLost: ExitCode.CONFLICT,
    TooManySecrets: ExitCode.CONFLICT,
    NotSettled: ExitCode.WAITED_IN_VAIN,
    BackupRefused: ExitCode.CONFLICT,
}
_ADVICE: Final[Mapping[type[TokenryError], str]] = {
    StoreUnavailable: "check TOKENRY_CREDENTIALS_URL and the way there; running the same again is safe",
    WriteRefused: "the policy that is needed is deploy/iam/administrator.json",
    WriteConflict: "somebody else writes too: run the same again",
    NotSettled: "running the same again goes on",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRegistry:
    """
    The registry, opened.

    Attributes:
        settings: What the environment says.
        clock: The time.
        store: Where the objects are.
        documents: Reads and writes them.
        editor: Writes single ones.
        rotation: Rotates secrets.
        settled: Waits until the issuers have what was written.
    """

    settings: RegistrySettings
    clock: Clock
    store: WritableStore
    documents: Documents
    editor: Editor
    rotation: SecretRotation
    settled: Settling


def with_registry(act: Callable[[OpenRegistry], Awaitable[_T]], *, dry_run: bool = False) -> _T:
    """
    Return what *act* makes of the registry, or end the command with what went wrong and what to do.

    With *dry_run* nothing is written, and everything else happens as it would.
    """
    try:
        settings = RegistrySettings.from_environment(known_to(RegistrySettings, os.environ))
        return asyncio.run(_acting(settings, act, dry_run=dry_run))
    except TokenryError as error:
        explain(error)


async def _acting(settings: RegistrySettings, act: Callable[[OpenRegistry], Awaitable[_T]], *, dry_run: bool) -> _T:
    async with opened(settings, dry_run=dry_run) as registry:
        return await act(registry)


@asynccontextmanager
async def opened(settings: RegistrySettings, *, dry_run: bool = False) -> AsyncIterator[OpenRegistry]:
    """Open the registry that *settings* name, with *dry_run* without writing to it, and close it in the end."""
    clock, files = SystemClock(), open_files(settings)
    real = open_store(settings)
    store: WritableStore = RehearsedStore(real) if dry_run else real
    documents = Documents(
        store,
        environment=settings.environment,
        max_token_lifetime=int(settings.max_token_lifetime),
        remember_realms=True,
    )
    actor = operator()
    fetcher = HttpFetcher(allow_plain_http=bool(settings.plain_http_hosts))
    settled = settling(settings, clock=clock, fetcher=fetcher)
    try:
        with audited(os.environ, clock=clock, dry_run=dry_run) as audit:
            yield OpenRegistry(
                settings=settings,
                clock=clock,
                store=store,
                documents=documents,
                editor=Editor(documents, audit=audit, actor=actor),
                rotation=SecretRotation(
                    documents,
                    files=files,
                    settled=settled,
                    clock=clock,
                    audit=audit,
                    actor=actor,
                    overlap=int(settings.rotation_overlap),
                ),
                settled=settled,
            )
    finally:
        for each in files:
            await each.close()
        await store.close()


def explain(error: TokenryError) -> NoReturn:
    """End the command with *error*, what to do about it, and its exit code."""
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), None)
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    if code is None and advice is None:
        explain_any(error)
    fail(str(error), code=code or ExitCode.FAILED, advice=advice)


def compact(value: Any) -> str:  # noqa: ANN401 -- any JSON value
    """Return a JSON value as people read it in a table."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
