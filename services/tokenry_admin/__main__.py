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
from tokenry.serving.metrics import package_version
from tokenry.serving.server import command
from tokenry.sources.keys import KeySource
from tokenry.sources.revocations import RevocationSource, default_name
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry_admin.adapters.application_bucket import ApplicationBucket
from tokenry_admin.adapters.application_folder import ApplicationFolder
from tokenry_admin.app import create_app
from tokenry_admin.issuers import BoundWaited, IssuersAsked
from tokenry_admin.key_opening import custodies, open_keys, open_store
from tokenry_admin.settings import Settings
from tokenry_registry.adapters.s3 import make_client
from tokenry_registry.location import bucket_of, folder_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from aiohttp import web

    from tokenry.clock import Clock
    from tokenry.http.fetch import Fetcher
    from tokenry_admin.issuers import Settling
    from tokenry_admin.ports import ApplicationFiles
    from tokenry_admin.settings import RegistrySettings


def open_files(settings: RegistrySettings) -> list[ApplicationFiles]:
    """Return where applications' files are; nothing is connected yet."""
    return [_files(settings, url) for url in settings.application_files]


def _files(settings: RegistrySettings, url: str) -> ApplicationFiles:
    if urlsplit(url).scheme == "file":
        return ApplicationFolder(folder_of(url))
    bucket, prefix = bucket_of(url)
    client = partial(make_client, endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
    return ApplicationBucket(bucket, prefix=prefix, client=client)


def settling(settings: RegistrySettings, *, clock: Clock, fetcher: Fetcher) -> Settling:
    """Return what waits until the issuers have what was written."""
    if settings.issuer_metrics_urls:
        return IssuersAsked(settings.issuer_metrics_urls, fetcher=fetcher, clock=clock)
    return BoundWaited(clock=clock)


def compose(settings: Settings) -> Callable[[], web.Application]:
    """
    Return what makes the application inside the event loop.

    Raises:
        ConfigurationError: An envelope key cannot be used.
    """
    custodies(settings)  # a file that cannot be read is found before the start

    def make() -> web.Application:
        clock, plain = SystemClock(), bool(settings.plain_http_hosts)
        fetcher, store = HttpFetcher(allow_plain_http=plain), open_store(settings)
        keys = KeySource(settings.issuer, fetcher=HttpFetcher(allow_plain_http=plain), clock=clock)
        revocations = _revocations(settings, clock=clock, keys=keys)
        validator = TokenValidator.from_sources(_policy(settings), keys=keys, revocations=revocations, clock=clock)
        app = create_app(
            settings,
            clock=clock,
            store=store,
            files=open_files(settings),
            judge=validator,
            settled=settling(settings, clock=clock, fetcher=fetcher),
            fetcher=fetcher,
            keys=open_keys(settings, store, clock=clock, revoked=_revoked_by(settings.issuer, revocations)),
            rotates_keys=bool(custodies(settings)),
            judge_ready=lambda: validator.ready,
        )
        app.cleanup_ctx.append(_judging(validator))
        return app

    return make


def _policy(settings: Settings) -> ValidationPolicy:
    trusted = TrustedIssuer(
        issuer=settings.issuer,
        max_token_lifetime=int(settings.max_token_lifetime),
        accept_untyped=settings.accept_untyped_tokens,
    )
    return ValidationPolicy(issuers=(trusted,), audience=settings.issuer)


def _revocations(settings: Settings, *, clock: Clock, keys: KeySource) -> RevocationSource:
    plain = bool(settings.plain_http_hosts)

    def discovered() -> str | None:
        return None if keys.metadata is None else keys.metadata.revocation_list_uri

    return RevocationSource(
        settings.revocation_url or discovered,
        name=f"admin-{settings.instance}" if settings.instance else default_name("admin"),
        version=package_version(),
        state_folder=settings.state_folder,
        state_key=settings.issuer,
        max_entries=settings.list_max_entries,
        report_fetcher=HttpFetcher(allow_plain_http=plain),
        fetcher=HttpFetcher(allow_plain_http=plain),
        clock=clock,
    )


def _revoked_by(issuer: str, revocations: RevocationSource) -> Callable[[Collection[str]], Collection[str]]:
    """Return what tells which keys the list has revoked; without a list none is known to be."""

    def revoked(kids: Collection[str]) -> Collection[str]:
        held = revocations.snapshot()
        return () if held is None else {kid for kid in kids if held.value.has_key(issuer, kid)}

    return revoked


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
