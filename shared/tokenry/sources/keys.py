"""
The JWK Sets of trusted issuers, held in memory and refreshed in the background.

Invariants:
    * `snapshot` never waits, and hands out no keys beyond the hard age (24 h).
    * What is waited for (`refetch`) is shared by all who wait, and bounded to a second.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError, Unready, ValidatorNotReady
from tokenry.http.fetch import Fetcher, FetchFailed, HttpFetcher, check_url
from tokenry.http.forking import renew_after_fork
from tokenry.http.poller import Moment, Poller
from tokenry.jose.jwk import Algorithm
from tokenry.jose.jwks import KeySet
from tokenry.sources.events import OnEvent, Reporter, SourceCounters
from tokenry.sources.key_conversation import KeyConversation, RefetchTicket, same_keys
from tokenry.sources.metadata import IssuerMetadata, metadata_urls

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tokenry.validation.snapshots import Snapshot

REFRESH_SECONDS: Final = 60.0  # a removed key is refused at most this much later; allowed: 1 to 300
HARD_AGE_SECONDS: Final = 24 * 3600.0  # an issuer that is away longer than a day must be looked at by a person
REFETCH_WAIT_SECONDS: Final = 1.0  # what a request waits for such a fetch


class KeySource:
    """
    The keys of one issuer, kept fresh by one daemon thread.

    Args:
        issuer: Issuer identifier; its metadata are found from it unless a URI is given.
        jwks_uri: The JWK Set, where discovery is not wanted.
        metadata_uri: The metadata document, where it is not at a well-known place.
        algorithms: Signature algorithms that this issuer may use.
        refresh_seconds: Between two reads, 1 to 300. Smaller: a removed key is refused earlier; larger:
            fewer requests.
        hard_age_seconds: Age from which held keys are not handed out any more.
        fetcher: Performs the requests, for this source alone.
        clock: Where the time comes from.
        on_event: Called in the source's thread with each `SourceEvent`.

    Raises:
        ConfigurationError: An argument is not usable.
    """

    def __init__(
        self,
        issuer: str,
        *,
        jwks_uri: str | None = None,
        metadata_uri: str | None = None,
        algorithms: Collection[Algorithm] = (Algorithm.ES256,),
        refresh_seconds: float = REFRESH_SECONDS,
        hard_age_seconds: float = HARD_AGE_SECONDS,
        fetcher: Fetcher | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Remember the settings; nothing is fetched before `start`."""
        _check_arguments(jwks_uri, metadata_uri, refresh_seconds)
        self.issuer = issuer
        self._clock = clock or SystemClock()
        self._hard_age = hard_age_seconds
        self._reporter = Reporter("keys", on_event)
        metadata_uris = (metadata_uri,) if metadata_uri else () if jwks_uri else metadata_urls(issuer)
        self._conversation = KeyConversation(
            issuer=issuer,
            jwks_uri=jwks_uri,
            metadata_uris=metadata_uris,
            algorithms=algorithms,
            refresh_seconds=refresh_seconds,
            reporter=self._reporter,
        )
        self._poller = Poller(self._conversation, fetcher=fetcher or HttpFetcher(), clock=self._clock)
        renew_after_fork(self._conversation)

    def start(self) -> None:
        """Begin to read the keys in the background."""
        self._poller.start()

    def stop(self) -> None:
        """End the background thread; the keys that are held stay."""
        self._poller.stop()

    def snapshot(self) -> Snapshot[KeySet] | None:
        """Return the last good keys, or None before the first and beyond the hard age."""
        if self._poller.orphaned:
            self._poller.revive()
        held = self._conversation.snapshot
        if held is None or self._clock.monotonic() - held.requested_at > self._hard_age:
            return None
        return held

    def keys(self) -> Snapshot[KeySet] | None:
        """Return the same as `snapshot`."""
        return self.snapshot()

    @property
    def metadata(self) -> IssuerMetadata | None:
        """The issuer's metadata, once they were read."""
        return self._conversation.metadata

    @property
    def counters(self) -> SourceCounters:
        """What has happened so far."""
        return self._reporter.counters

    def request_refetch(self, issuer: str) -> None:
        """Ask for fresh keys of *issuer* without waiting, at most once a cooldown."""
        if issuer == self.issuer:
            self._begin_refetch()

    def refetch(self, issuer: str, *, timeout: float = REFETCH_WAIT_SECONDS) -> None:
        """
        Wait until the keys of *issuer* have been read anew, sharing one fetch with all who ask.

        Within the cooldown nothing is fetched, and this returns at once.

        Raises:
            ValidatorNotReady: The fetch failed, or took longer than *timeout* seconds (KEY_FETCH_FAILED).
        """
        if issuer != self.issuer:
            return
        ticket = self._begin_refetch()
        try:
            failed = self._conversation.last_failed if ticket is None else ticket.outcome.result(timeout)
        except FutureTimeout:
            failed = True
        _raise_if(failed)

    async def arefetch(self, issuer: str, *, timeout: float = REFETCH_WAIT_SECONDS) -> None:  # noqa: ASYNC109
        """Do as `refetch` does, for asyncio: the loop goes on meanwhile."""
        import asyncio

        if issuer != self.issuer:
            return
        ticket = self._begin_refetch()
        try:
            if ticket is None:
                failed = self._conversation.last_failed
            else:
                failed = await asyncio.wait_for(asyncio.wrap_future(ticket.outcome), timeout)
        except TimeoutError:
            failed = True
        _raise_if(failed)

    def _begin_refetch(self) -> RefetchTicket | None:
        ticket = self._conversation.want_refetch(Moment.of(self._clock))
        if ticket is not None:
            self._poller.start()
            self._poller.wake()
        return ticket


class KeySources:
    """The keys of several issuers as one source; each is refreshed by itself."""

    def __init__(self, sources: Sequence[KeySource]) -> None:
        """Join *sources*, at least one."""
        if not sources:
            raise ConfigurationError(["at least one issuer is needed"])
        self.sources = tuple(sources)
        self._joined: tuple[tuple[Snapshot[KeySet] | None, ...], Snapshot[KeySet] | None] = ((), None)

    def start(self) -> None:
        """Begin to read all keys in the background."""
        for source in self.sources:
            source.start()

    def stop(self) -> None:
        """End the background threads."""
        for source in self.sources:
            source.stop()

    def snapshot(self) -> Snapshot[KeySet] | None:
        """Return the union of the keys that are held, as old as the oldest; None before the first."""
        if len(self.sources) == 1:
            return self.sources[0].snapshot()
        parts = tuple(source.snapshot() for source in self.sources)
        known, joined = self._joined
        if len(known) == len(parts) and all(a is b for a, b in zip(known, parts, strict=True)):
            return joined
        joined = _join([part for part in parts if part is not None], last=joined)
        self._joined = (parts, joined)
        return joined

    def request_refetch(self, issuer: str) -> None:
        """Ask for fresh keys of *issuer* without waiting."""
        for source in self.sources:
            source.request_refetch(issuer)

    def refetch(self, issuer: str, *, timeout: float = REFETCH_WAIT_SECONDS) -> None:
        """Do as `KeySource.refetch` does, for the source of *issuer*."""
        for source in self.sources:
            source.refetch(issuer, timeout=timeout)

    async def arefetch(self, issuer: str, *, timeout: float = REFETCH_WAIT_SECONDS) -> None:  # noqa: ASYNC109
        """Do as `KeySource.arefetch` does, for the source of *issuer*."""
        for source in self.sources:
            await source.arefetch(issuer, timeout=timeout)


def _join(parts: list[Snapshot[KeySet]], *, last: Snapshot[KeySet] | None) -> Snapshot[KeySet] | None:
    if not parts:
        return None
    oldest = min(parts, key=lambda part: part.requested_at)
    keys = KeySet.union(*(part.value for part in parts))
    if last is not None and same_keys(keys, last.value):
        keys = last.value
    return replace(oldest, value=keys)


def _raise_if(failed: bool) -> None:  # noqa: FBT001 -- the name says it
    if failed:
        raise ValidatorNotReady(Unready.KEY_FETCH_FAILED)


def _check_arguments(jwks_uri: str | None, metadata_uri: str | None, refresh_seconds: float) -> None:
    faults = []
    for name, url in (("jwks_uri", jwks_uri), ("metadata_uri", metadata_uri)):
        try:
            if url is not None:
                check_url(url, allow_plain_http=True)
        except FetchFailed as failed:
            faults.append(f"{name}: {failed}")
    if not 1 <= refresh_seconds <= 300:  # noqa: PLR2004 -- stated in the sentence
        faults.append("refresh_seconds of the keys is 1 to 300")
    if faults:
        raise ConfigurationError(faults)
