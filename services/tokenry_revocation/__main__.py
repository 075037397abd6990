"""
The composition root: settings from the environment, adapters, run.

    python -m tokenry_revocation                    serve
    python -m tokenry_revocation --check-settings   check the settings, and exit 2 with every fault
    python -m tokenry_revocation --create-schema    create the store (or bring it up to date) and exit
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.http.fetch import HttpFetcher
from tokenry.jose.jwk import Algorithm
from tokenry.jose.sealing import EnvelopeKey
from tokenry.serving.server import EXIT_CONFIGURATION, EXIT_OK, command
from tokenry.sources.keys import KeySource, KeySources
from tokenry_revocation.adapters.location import create_store, open_store, parse_store_url
from tokenry_revocation.adapters.rules_directory import RulesDirectory
from tokenry_revocation.adapters.shelf_directory import DirectoryShelf
from tokenry_revocation.app import Publishing, create_app, needed_retention
from tokenry_revocation.list_keys import KEYS_FOLDER, ListKeys
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.rules import FOLDER
from tokenry_revocation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aiohttp import web

    from tokenry.clock import Clock
    from tokenry_revocation.adapters.location import StoreLocation
    from tokenry_revocation.publisher import Shelf
    from tokenry_revocation.rules import RuleObjects

EXIT_UNAVAILABLE = 1
CREATE_SCHEMA = "--create-schema"


class CheckedSettings(Settings):
    """The settings, with the faults that only the adapters know."""

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each rule that is broken."""
        yield from super().contradictions()
        try:
            store_location(self)
        except ConfigurationError as error:
            yield from (f"TOKENRY_STORE_URL: {fault}" for fault in error.faults)


def store_location(settings: Settings) -> StoreLocation:
    """
    Return where the store is.

    Raises:
        ConfigurationError: With all that is wrong.
    """
    return parse_store_url(settings.store_url, username=settings.store_username, password=settings.store_password)


def rule_objects(url: str | None, *, folder: str = FOLDER) -> RuleObjects | None:
    """Return where the rules are, or other objects of that form: a folder, a bucket, or nowhere."""
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme == "file":
        return RulesDirectory(Path(unquote(parts.path)), folder=folder)
    from tokenry_revocation.adapters.rules_s3 import RulesBucket

    return RulesBucket(parts.netloc, _prefix(parts.path), folder=folder)


def publishing(settings: Settings) -> Publishing | None:
    """
    Return where the signed list is put and what it is signed with; None when it is not published.

    Raises:
        ConfigurationError: The envelope key is none.
    """
    objects = rule_objects(settings.keys_url, folder=KEYS_FOLDER)
    if settings.list_publish_url is None or settings.list_envelope_key is None or objects is None:
        return None
    try:
        envelope = EnvelopeKey.from_text(settings.list_envelope_key.reveal())
    except ProtocolError:
        raise ConfigurationError(["TOKENRY_LIST_ENVELOPE_KEY: it is not 32 bytes in base64url"]) from None
    return Publishing(shelf=_shelf(settings.list_publish_url), keys=ListKeys(objects, envelope=envelope))


def _shelf(url: str) -> Shelf:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return DirectoryShelf(Path(unquote(parts.path)))
    from tokenry_revocation.adapters.shelf_s3 import S3Shelf

    return S3Shelf(parts.netloc, _prefix(parts.path))


def _prefix(path: str) -> str:
    prefix = path.removeprefix("/")
    return prefix if prefix.endswith("/") or not prefix else f"{prefix}/"


def compose(settings: Settings, *, clock: Clock | None = None) -> Callable[[], web.Application]:
    """Return what makes the application inside the event loop; *clock* is the machine's, but in tests."""
    clock = clock or SystemClock()
    location = store_location(settings)
    allow_plain_http = bool(settings.plain_http_hosts)
    fetcher = HttpFetcher(allow_plain_http=allow_plain_http)
    keys = KeySource(settings.issuer, fetcher=fetcher, clock=clock)
    others = [
        KeySource(
            issuer,
            algorithms=tuple(Algorithm),
            fetcher=HttpFetcher(allow_plain_http=allow_plain_http),
            clock=clock,
        )
        for issuer in settings.trusted_issuers
    ]

    places = publishing(settings)

    def token_endpoint() -> str | None:
        return None if keys.metadata is None else keys.metadata.token_endpoint

    def make() -> web.Application:
        return create_app(
            settings,
            clock=clock,
            open_store=lambda: open_store(location, clock=clock, environment=settings.environment),
            keys=keys,
            other_keys=KeySources(others) if others else None,
            rules=rule_objects(settings.rules_url),
            fetcher=HttpFetcher(allow_plain_http=allow_plain_http),
            token_endpoint=token_endpoint,
            publishing=places,
        )

    return make


def create_schema(environ: Mapping[str, str]) -> int:
    """Create the store that the settings name and return the exit code; harmless when it is there."""
    try:
        settings = CheckedSettings.from_environment(environ)
        epoch = asyncio.run(
            create_store(
                store_location(settings),
                now=SystemClock().now(),
                retention_seconds=needed_retention(settings),
                environment=settings.environment,
                replication=settings.replication,
            )
        )
    except ConfigurationError as error:
        sys.stderr.write("\n".join(["revocation: the store cannot be created", *error.faults]) + "\n")
        return EXIT_CONFIGURATION
    except StoreUnavailable as error:
        sys.stderr.write(f"revocation: the store cannot be created: {error}\n")
        return EXIT_UNAVAILABLE
    sys.stdout.write(f"the store of {settings.environment} is there; its epoch is {epoch}\n")
    return EXIT_OK


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the service as a command and return the exit code of the process."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    environment = os.environ if environ is None else environ
    if arguments == [CREATE_SCHEMA]:
        return create_schema(environment)
    return command(arguments, environment, service="revocation", settings_class=CheckedSettings, compose=compose)


if __name__ == "__main__":
    sys.exit(main())
