"""The composition root of administration: settings from the environment, adapters, run."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenry.clock import SystemClock
from tokenry.http.fetch import HttpFetcher
from tokenry.serving.server import command
from tokenry.token_validator import TokenValidator
from tokenry_admin.adapters.application_bucket import ApplicationBucket
from tokenry_admin.adapters.application_folder import ApplicationFolder
from tokenry_admin.app import create_app
from tokenry_admin.issuers import BoundWaited, IssuersAsked
from tokenry_admin.settings import Settings
from tokenry_registry.adapters.directory import DirectoryStore
from tokenry_registry.adapters.s3 import S3Store, make_client
from tokenry_registry.location import bucket_of, folder_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from aiohttp import web
    from mypy_boto3_s3 import S3Client

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry_admin.issuers import Settling
    from tokenry_admin.ports import ApplicationFiles
    from tokenry_admin.settings import RegistrySettings
    from tokenry_registry.ports import WritableStore


def open_store(settings: RegistrySettings) -> WritableStore:
    """Return the registry; nothing is connected yet."""
    if urlsplit(settings.credentials_url).scheme == "file":
        return DirectoryStore(folder_of(settings.credentials_url))
    bucket, prefix = bucket_of(settings.credentials_url)
    return S3Store(bucket, prefix=prefix, client=_client(settings))


def open_files(settings: RegistrySettings) -> list[ApplicationFiles]:
    """Return where applications' files are; nothing is connected yet."""
    return [_files(settings, url) for url in settings.application_files]


def _files(settings: RegistrySettings, url: str) -> ApplicationFiles:
    if urlsplit(url).scheme == "file":
        return ApplicationFolder(folder_of(url))
    bucket, prefix = bucket_of(url)
    return ApplicationBucket(bucket, prefix=prefix, client=_client(settings))


def _client(settings: RegistrySettings) -> Callable[[], S3Client]:
    return partial(make_client, endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)


def settling(settings: RegistrySettings, *, clock: Clock, fetcher: Fetcher) -> Settling:
    """Return what waits until the issuers have what was written."""
    if settings.issuer_metrics_urls:
        return IssuersAsked(settings.issuer_metrics_urls, fetcher=fetcher, clock=clock)
    return BoundWaited(clock=clock)


def compose(settings: Settings) -> Callable[[], web.Application]:
    """Return what makes the application inside the event loop."""

    def make() -> web.Application:
        clock, plain = SystemClock(), bool(settings.plain_http_hosts)
        fetcher = HttpFetcher(allow_plain_http=plain)
        validator = TokenValidator(
            settings.issuer,
            audience=settings.issuer,
            max_token_lifetime=int(settings.max_token_lifetime),
            accept_untyped=settings.accept_untyped_tokens,
            state_folder=settings.state_folder,
            name=f"admin-{settings.instance}" if settings.instance else None,
            allow_plain_http=plain,
        )
        app = create_app(
            settings,
            clock=clock,
            store=open_store(settings),
            files=open_files(settings),
            judge=validator,
            settled=settling(settings, clock=clock, fetcher=fetcher),
            fetcher=fetcher,
            judge_ready=lambda: validator.ready,
        )
        app.cleanup_ctx.append(_judging(validator))
        return app

    return make


def _judging(validator: TokenValidator) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(_app: web.Application) -> AsyncIterator[None]:
        validator.start()
        yield
        await asyncio.to_thread(validator.stop)

    return run


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run administration; return the exit code."""
    return command(
        sys.argv[1:] if argv is None else argv,
        os.environ if environ is None else environ,
        service="admin",
        settings_class=Settings,
        compose=compose,
    )


if __name__ == "__main__":
    sys.exit(main())
