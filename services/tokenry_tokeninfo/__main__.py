"""The composition root: the only place that reads the environment, builds the parts and runs them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING

import structlog

from tokenry.client.token_source import ClientCredentials
from tokenry.clock import SystemClock
from tokenry.http.fetch import HttpFetcher
from tokenry.serving.audit_sink import Chained, chain_name
from tokenry.serving.keys import METRICS
from tokenry.serving.metrics import package_version
from tokenry.serving.outgoing import HttpCalls
from tokenry.serving.server import command
from tokenry.sources.events import EventKind
from tokenry.sources.extension import ExtensionSource
from tokenry.sources.keys import KeySource, KeySources
from tokenry.sources.revocations import RevocationSource, default_name
from tokenry.sources.signed_list import SignedListPlace
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry_tokeninfo.app import SERVICE, create_app
from tokenry_tokeninfo.measures import Propagation, SourceCollector
from tokenry_tokeninfo.settings import Settings, read_trusted_issuers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from aiohttp import web

    from tokenry.clock import Clock
    from tokenry.sources.events import OnEvent, SourceEvent
    from tokenry.sources.revocations import Bearer


def compose(settings: Settings, *, clock: Clock | None = None) -> Callable[[], web.Application]:
    """Return what makes the application inside the event loop; *clock* is the machine's, but in tests."""
    clock = clock or SystemClock()

    def make() -> web.Application:
        def found(event: SourceEvent) -> None:
            # Where the list is, is in the issuer's metadata: its reader need not wait once they are known.
            if event.kind is EventKind.METADATA:
                revocations.wake()

        def heard(event: SourceEvent) -> None:
            propagation.heard(event)

        own = _own_keys(settings, clock, on_event=found)
        keys = KeySources([own, *_other_keys(settings, clock)])
        extension = _extension(settings, clock)
        revocations = _revocations(settings, clock, own, extension, on_event=heard)
        validator = TokenValidator.from_sources(
            policy_of(settings), keys=keys, revocations=revocations, clock=clock, extension=extension
        )
        calls = HttpCalls()
        app = create_app(
            settings,
            clock=clock,
            validation=validator,
            keys=keys,
            revocations=revocations,
            calls=calls,
            extension=lambda: validator.extension,
        )
        propagation = Propagation(app[METRICS])
        app[METRICS].register(
            SourceCollector(
                {
                    "tokenry_jwks": lambda: own.counters,
                    "tokenry_revocation": lambda: revocations.counters,
                    "tokenry_signed_list": lambda: revocations.signed_counters,
                }
            )
        )
        app.cleanup_ctx.append(calls.running)
        app.cleanup_ctx.append(_running(validator))
        return app

    return make


def policy_of(settings: Settings) -> ValidationPolicy:
    """
    Return what is trusted.

    No audience is checked here: this service answers for whoever asks, and checks the audience that they
    name.
    """
    own = TrustedIssuer(
        issuer=settings.issuer_identifier,
        max_token_lifetime=int(settings.max_token_lifetime),
        accept_untyped=settings.accept_untyped,
    )
    return ValidationPolicy(
        issuers=(own, *(item.trusted for item in read_trusted_issuers(settings.trusted_issuers))),
        audience=ANY_AUDIENCE,
        leeway=settings.leeway,
        list_warn_age=settings.list_warn_age,
        list_refuse_age=settings.list_refuse_age,
    )


def _own_keys(settings: Settings, clock: Clock, *, on_event: OnEvent) -> KeySource:
    return KeySource(
        settings.issuer_identifier,
        jwks_uri=settings.jwks_url,
        metadata_uri=settings.discovery_url,
        refresh_seconds=settings.keys_refresh_interval,
        fetcher=_fetcher(settings),
        clock=clock,
        on_event=on_event,
    )


def _other_keys(settings: Settings, clock: Clock) -> list[KeySource]:
    return [
        KeySource(
            item.trusted.issuer,
            jwks_uri=item.jwks_uri,
            algorithms=item.trusted.algorithms,
            refresh_seconds=settings.keys_refresh_interval,
            fetcher=_fetcher(settings),
            clock=clock,
        )
        for item in read_trusted_issuers(settings.trusted_issuers)
    ]


def _revocations(
    settings: Settings,
    clock: Clock,
    own: KeySource,
    extension: ExtensionSource | None,
    *,
    on_event: OnEvent,
) -> RevocationSource:
    """Return the source of the list: where the settings say, else where the issuer's metadata say."""

    def discovered() -> str | None:
        return own.metadata.revocation_list_uri if own.metadata is not None else None

    bearer = _bearer(settings, clock)
    return RevocationSource(
        settings.revocation_base_url or discovered,
        name=settings.instance or default_name("tokeninfo"),
        version=package_version(),
        state_folder=settings.state_folder,
        state_key=settings.issuer_identifier,
        refuse_age_seconds=settings.list_refuse_age,
        max_entries=settings.list_max_entries,
        signed_list=_signed_list(settings, own),
        extension=extension,
        bearer=bearer if settings.list_needs_token else None,
        report_fetcher=_fetcher(settings),
        report_bearer=bearer,
        fetcher=_fetcher(settings),
        clock=clock,
        on_event=on_event,
    )


def _bearer(settings: Settings, clock: Clock) -> Bearer | None:
    """Return where the tokens for reports, and for a list that is not open, come from."""
    if settings.list_client_id is None:
        return None
    return ClientCredentials(
        token_url=settings.token_endpoint,
        client_id=settings.list_client_id,
        client_secret=settings.list_client_secret,
        realm=settings.list_client_realm,
        audience=settings.issuer_identifier,  # of which the revocation service is a part
        allow_plain_http=bool(settings.plain_http_hosts),
        clock=clock,
        environ={},
    )


def _extension(settings: Settings, clock: Clock) -> ExtensionSource | None:
    if settings.extension_place is None or settings.extend_key is None:
        return None
    return ExtensionSource(
        settings.extension_place,
        issuer=settings.issuer_identifier,
        key=settings.extend_key,
        fetcher=_fetcher(settings),
        clock=clock,
        on_event=extension_audit(settings.instance or socket.gethostname(), clock=clock),
    )


def extension_audit(replica: str, *, clock: Clock) -> OnEvent:
    """Return what writes down that somebody broke the glass, and who: as a chain of this run of *replica*."""
    write = Chained(_write_error, instance=chain_name(replica), clock=clock)

    def note(event: SourceEvent) -> None:
        if event.kind is EventKind.ALARM:
            write(event.reason, {"detail": event.detail})

    return note


def _write_error(event: str, fields: Mapping[str, object]) -> None:
    """Write an audit line that somebody has to look at."""
    structlog.get_logger("tokenry.audit").error(event, audit=True, **fields)


def _signed_list(settings: Settings, own: KeySource) -> SignedListPlace | None:
    if settings.signed_list_url is None:
        return None
    return SignedListPlace(
        url=settings.signed_list_url,
        issuer=settings.issuer_identifier,
        keys_uri=lambda: own.metadata.revocation_list_jwks_uri if own.metadata is not None else None,
        fetcher=_fetcher(settings),
    )


def _fetcher(settings: Settings) -> HttpFetcher:
    return HttpFetcher(allow_plain_http=bool(settings.plain_http_hosts))


def _running(validator: TokenValidator) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return the life of the sources: the application starts with them, and is ready when they have read."""

    async def context(_app: web.Application) -> AsyncIterator[None]:
        validator.start()
        yield
        await asyncio.to_thread(validator.stop)

    return context


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the service and return the exit code of the process."""
    return command(
        sys.argv[1:] if argv is None else argv,
        os.environ if environ is None else environ,
        service=SERVICE,
        settings_class=Settings,
        compose=compose,
        module="tokenry_tokeninfo",
    )


if __name__ == "__main__":
    sys.exit(main())
