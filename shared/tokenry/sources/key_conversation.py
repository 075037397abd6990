"""
How an issuer is asked for its keys, and what its answers mean. No I/O and no clock.

Invariants:
    * A failed refresh, an empty set, an unreadable or an oversized one never replaces good keys.
    * However many tokens name keys that are not held, they cause one fetch in a cooldown, which all share.
    * Metadata that names another issuer is refused, and with it the keys it points to.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from tokenry.errors import ProtocolError
from tokenry.http.backoff import Backoff, parse_retry_after, shortened, system_random
from tokenry.http.fetch import Request
from tokenry.http.poller import Wait
from tokenry.jose.jwks import MAX_DOCUMENT_BYTES, KeySet
from tokenry.sources.metadata import MAX_METADATA_BYTES, IssuerMetadata, parse_metadata
from tokenry.validation.snapshots import Snapshot

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

    from tokenry.http.fetch import FetchFailed, Response
    from tokenry.http.poller import Moment
    from tokenry.jose.jwk import Algorithm
    from tokenry.sources.events import Reporter

COOLDOWN_SECONDS: Final = 10.0  # between two fetches that were caused by unknown keys
FIRST_PAUSE_SECONDS: Final = 0.5  # after the first failure: where all start at once, the other side is there then
METADATA_SECONDS: Final = 3600.0  # endpoints move seldom
FETCH_DEADLINE_SECONDS: Final = 5.0
_JITTER: Final = 0.1
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_NOT_FOUND: Final = 404


class KeyConversation:
    """What to ask an issuer about its keys, and what the answers mean. No I/O, no clock."""

    name = "keys"

    def __init__(
        self,
        *,
        issuer: str,
        jwks_uri: str | None,
        metadata_uris: tuple[str, ...],
        algorithms: Collection[Algorithm],
        refresh_seconds: float,
        reporter: Reporter,
        uniform: random.Random = system_random,
    ) -> None:
        """Know nothing; the first request is due at once."""
        self.issuer = issuer
        self.metadata: IssuerMetadata | None = None
        self.snapshot: Snapshot[KeySet] | None = None
        self._jwks_uri = jwks_uri
        self._metadata_uris = metadata_uris
        self._metadata_turn = 0
        self._algorithms = tuple(algorithms)
        self._refresh_seconds = refresh_seconds
        self._reporter = reporter
        self._uniform = uniform
        self._backoff = Backoff(first=FIRST_PAUSE_SECONDS, longest=refresh_seconds / 2, uniform=uniform)
        self._etag: str | None = None
        self._due = float("-inf")
        self._metadata_due = float("-inf") if metadata_uris else float("inf")
        self._asking_metadata = False
        self._ticket = RefetchTicket()
        self._serving: RefetchTicket | None = None
        self._last_refetch = float("-inf")
        self._last_failed = True
        self._tickets = threading.Lock()

    def next_request(self, at: Moment) -> Request | Wait:
        """Return a request for the metadata or the keys, or the seconds until one is due."""
        with self._tickets:
            if self._ticket.wanted:
                self._serving, self._ticket = self._ticket, RefetchTicket()
        if self._serving is None and at.monotonic < self._due:
            return Wait(self._due - at.monotonic)
        url = self._jwks_uri
        if url is None or (self._serving is None and at.monotonic >= self._metadata_due):
            self._asking_metadata = True
            metadata_uri = self._metadata_uris[self._metadata_turn % len(self._metadata_uris)]
            return _get(metadata_uri, max_bytes=MAX_METADATA_BYTES)
        self._asking_metadata = False
        return _get(url, max_bytes=MAX_DOCUMENT_BYTES, etag=self._etag)

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:
        """Take in metadata or a key set, or refuse it and keep what is held."""
        self._reporter.polled(str(response.status))
        try:
            if self._asking_metadata:
                self._read_metadata(response, at)
                return
            self._read_keys(response, started, at)
        except ProtocolError as error:
            self._reporter.rejected(_reason(response), str(error))
            self._failed(at, retry_after=parse_retry_after(response.headers.get("retry-after")))

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:  # noqa: ARG002
        """Keep what is held and try again later."""
        self._reporter.polled(failure.failure)
        self._reporter.failed(failure.failure, str(failure))
        self._failed(at)

    def want_refetch(self, at: Moment) -> RefetchTicket | None:
        """
        Ask for a fetch that begins after this call.

        Returns:
            The ticket that is settled when it ends (shared by all who ask meanwhile), or None within the
            cooldown: then `last_failed` tells how the last fetch went.
        """
        with self._tickets:
            serving = self._serving
            if serving is not None:
                # It began a moment ago at most; a second one would be within the cooldown anyway.
                return serving
            if not self._ticket.wanted:
                if at.monotonic - self._last_refetch < COOLDOWN_SECONDS:
                    return None
                self._last_refetch = at.monotonic
                self._ticket.wanted = True
            return self._ticket

    @property
    def last_failed(self) -> bool:
        """Whether the last exchange brought no usable keys."""
        return self._last_failed

    def after_fork(self) -> None:
        """Let go of what the parent's thread would have settled."""
        self._tickets = threading.Lock()
        self._ticket, self._serving = RefetchTicket(), None

    def _read_metadata(self, response: Response, at: Moment) -> None:
        if response.status == _NOT_FOUND:
            self._metadata_turn += 1  # the other well-known place
        if response.status != _OK:
            raise ProtocolError(f"the metadata were answered with status {response.status}")
        metadata = parse_metadata(response.body, issuer=self.issuer)
        jwks_uri = metadata.jwks_uri
        if jwks_uri is None:
            raise ProtocolError("the metadata document has no jwks_uri")
        if jwks_uri != self._jwks_uri:
            self._jwks_uri, self._etag = jwks_uri, None
        self.metadata = metadata
        self._metadata_due = at.monotonic + METADATA_SECONDS
        self._reporter.metadata(jwks_uri)

    def _read_keys(self, response: Response, started: Moment, at: Moment) -> None:
        held = self.snapshot
        if response.status == _NOT_MODIFIED and held is not None and self._etag is not None:
            self.snapshot = _snapshot(held.value, started)
            self._reporter.refreshed(now=at.now)
        elif response.status == _OK:
            keys = KeySet.parse(response.body, issuer=self.issuer, algorithms=self._algorithms)
            if keys.rejected:
                self._reporter.alarm("bad_key", f"{len(keys.rejected)} keys of the set are not usable")
            if held is not None and same_keys(keys, held.value):
                keys = held.value  # the same object: what was derived from it stays valid
            self.snapshot = _snapshot(keys, started)
            self._etag = response.headers.get("etag")
            self._reporter.loaded(now=at.now, detail=f"{len(keys)} keys")
        else:
            raise ProtocolError(f"the keys were answered with status {response.status}")
        self._backoff.succeeded()
        self._due = at.monotonic + shortened(self._refresh_seconds, by=_JITTER, uniform=self._uniform)
        self._last_failed = False
        self._settle(failed=False)

    def _failed(self, at: Moment, *, retry_after: float | None = None) -> None:
        self._due = at.monotonic + self._backoff.after_failure(retry_after=retry_after)
        if self._asking_metadata and self._jwks_uri is not None:
            # The keys' place is known: a lost metadata document does not keep the keys from being read.
            self._metadata_due = at.monotonic + METADATA_SECONDS / 10
            self._due = at.monotonic
            return
        self._last_failed = True
        self._settle(failed=True)

    def _settle(self, *, failed: bool) -> None:
        with self._tickets:
            serving, self._serving = self._serving, None
        if serving is not None:
            serving.outcome.set_result(failed)


class RefetchTicket:
    """A fetch that somebody waits for; its outcome is whether it failed."""

    __slots__ = ("outcome", "wanted")

    def __init__(self) -> None:
        """Be wanted by nobody yet."""
        self.wanted = False
        self.outcome: Future[bool] = Future()
        # One waiter that gives up must not cancel it for the others.
        self.outcome.set_running_or_notify_cancel()


def same_keys(one: KeySet, other: KeySet) -> bool:
    """Tell whether two key sets have the same keys under the same names."""
    return dict(one.items()) == dict(other.items())


def _snapshot(keys: KeySet, started: Moment) -> Snapshot[KeySet]:
    return Snapshot(value=keys, as_of=started.now, age_at_request=0.0, requested_at=started.monotonic)


def _get(url: str, *, max_bytes: int, etag: str | None = None) -> Request:
    headers = {"Accept": "application/json"} | ({"If-None-Match": etag} if etag else {})
    return Request(url=url, headers=headers, max_bytes=max_bytes, deadline_seconds=FETCH_DEADLINE_SECONDS)


def _reason(response: Response) -> str:
    return "malformed" if response.status == _OK else "status"
