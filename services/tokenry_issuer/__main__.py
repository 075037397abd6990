"""The issuer as a process: settings from the environment, adapters, run."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenry.clock import SystemClock
from tokenry.serving.metrics import Metrics, package_version
from tokenry.serving.server import command
from tokenry_issuer.app import ISSUER, create_app
from tokenry_issuer.instruments import Instruments
from tokenry_issuer.list_bearer import ListBearer
from tokenry_issuer.live_tokens import CounterPush, boot_name
from tokenry_issuer.metadata import JWKS_PATH
from tokenry_issuer.minting import JTI_BYTES, new_jti
from tokenry_issuer.published import PublishedCheck
from tokenry_issuer.settings import Settings
from tokenry_registry.adapters.directory import DirectoryStore
from tokenry_registry.adapters.kms import AwsKeyManagement
from tokenry_registry.adapters.kms import make_client as make_kms_client
from tokenry_registry.adapters.s3 import S3Store, make_client
from tokenry_registry.envelope import read_envelope_key
from tokenry_registry.location import bucket_of, folder_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from aiohttp import web

    from tokenry.clock import Clock
    from tokenry.jose.jwk import Signer
    from tokenry.sources.revocations import Bearer, RevocationSource
    from tokenry_issuer.app import Issuer
    from tokenry_registry.ports import ObjectStore, WritableStore

LIST_HOLD = 1  # seconds for which the revocation service may hold a request of ours: more would be a list too old


def compose(settings: Settings, *, clock: Clock | None = None) -> Callable[[], web.Application]:
    """
    Return what makes the application inside the event loop; *clock* is the machine's, but in tests.

    Raises:
        ConfigurationError: The envelope key cannot be used.
    """
    envelope = read_envelope_key(settings.envelope_key_file)
    clock = clock or SystemClock()

    def make() -> web.Application:
        instruments = Instruments(Metrics(service="issuer"))
        bearer = ListBearer(settings.revocation_read_scope)
        source = _revocation_source(settings, instruments, bearer, clock)
        app = create_app(
            settings,
            clock=clock,
            store=_store(settings),
            replay=_replay_store(settings),
            envelope=envelope,
            revocations=source,
            instruments=instruments,
            management=AwsKeyManagement(
                partial(make_kms_client, endpoint_url=settings.kms_endpoint_url, region=settings.kms_region)
            ),
        )
        if settings.published_check_interval > 0:
            app.cleanup_ctx.append(_checking_published(settings, app[ISSUER]))
        bearer.sign_with(app[ISSUER].keyring, issuer=settings.issuer, clock=clock)
        if source is not None:
            app.cleanup_ctx.append(_running(source))
        if settings.revocation_url is not None:
            app.cleanup_ctx.append(_pushing(settings, settings.revocation_url, app[ISSUER], clock))
        return app

    return make


def _replay_store(settings: Settings) -> WritableStore | None:
    return None if settings.assertion_replay_url is None else _s3(settings, settings.assertion_replay_url)


def _store(settings: Settings) -> ObjectStore:
    if urlsplit(settings.credentials_url).scheme == "file":
        return DirectoryStore(folder_of(settings.credentials_url))
    return _s3(settings, settings.credentials_url)


def _s3(settings: Settings, url: str) -> S3Store:
    bucket, prefix = bucket_of(url)
    client = partial(make_client, endpoint_url=settings.s3_endpoint_url, region=settings.s3_region)
    return S3Store(bucket, prefix=prefix, client=client)


def _revocation_source(
    settings: Settings, instruments: Instruments, bearer: Bearer | None, clock: Clock
) -> RevocationSource | None:
    if settings.revocation_url is None:
        return None
    from tokenry.http.fetch import HttpFetcher
    from tokenry.sources.revocations import RevocationSource, default_name

    return RevocationSource(
        settings.revocation_url,
        name=f"issuer-{settings.instance}" if settings.instance else default_name("issuer"),
        version=package_version(),
        state_folder=settings.state_folder,
        # A kept list of any age is obeyed: it only refuses, and a revoked key stays revoked.
        refuse_age_seconds=math.inf,
        # Tokens are exchanged on a list of a few seconds only.
        hold_seconds=LIST_HOLD,
        max_entries=settings.list_max_entries,
        bearer=None if settings.revocation_read_scope is None else bearer,
        report_fetcher=HttpFetcher(),
        report_bearer=bearer,
        clock=clock,
        on_event=lambda event: instruments.list_event(str(event.kind), event.reason),
    )


def _pushing(
    settings: Settings, url: str, issuer: Issuer, clock: Clock
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return the life of what pushes the counters of live tokens; the last push says that it is the last."""
    from tokenry.http.fetch import HttpFetcher
    from tokenry.sources.revocations import default_name

    def signer() -> Signer | None:
        key = issuer.keyring.signer(lifetime=int(settings.max_token_lifetime))
        return None if key is None else key.private

    push = CounterPush(
        issuer.instruments.live,
        url=url,
        issuer=settings.issuer,
        instance=settings.instance or default_name("issuer"),
        boot=boot_name(secrets.token_bytes(8)),
        signer=signer,
        new_jti=lambda: new_jti(secrets.token_bytes(JTI_BYTES)),
        fetcher=HttpFetcher(),
        clock=clock,
    )

    async def run(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(push.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await push.push(final=True)

    return run


def _checking_published(settings: Settings, issuer: Issuer) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return the life of the look at our own keys from outside."""
    from tokenry.http.fetch import HttpFetcher

    fetcher = HttpFetcher()
    check = PublishedCheck(
        issuer.keyring,
        url=settings.issuer.rstrip("/") + JWKS_PATH,
        fetcher=fetcher,
        interval=settings.published_check_interval,
        observe=issuer.instruments.published_check,
    )

    async def run(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(check.run())
        yield
        fetcher.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return run


def _running(source: RevocationSource) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(_app: web.Application) -> AsyncIterator[None]:
        source.start()
        yield
        source.stop()

    return run


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the issuer; return the exit code."""
    return command(
        sys.argv[1:] if argv is None else argv,
        os.environ if environ is None else environ,
        service="issuer",
        settings_class=Settings,
        compose=compose,
    )


if __name__ == "__main__":
    sys.exit(main())
