"""The revocation list of a platform, held in memory and kept fresh in the background."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError
from tokenry.http.fetch import Fetcher, FetchFailed, HttpFetcher, Request, check_url
from tokenry.http.forking import renew_after_fork
from tokenry.http.poller import Moment, Poller, Wait
from tokenry.revocation.lists import LARGEST_MAX_ENTRIES, MAX_ENTRIES, RevocationList
from tokenry.sources.events import OnEvent, Reporter, SourceCounters
from tokenry.sources.reports import ReportConversation
from tokenry.sources.revocation_conversation import RevocationConversation, longest_hold
from tokenry.sources.signed_list import (
    STALE_SECONDS,
    START_SECONDS,
    LocalFiles,
    SignedListConversation,
    SignedListPlace,
)
from tokenry.sources.state import KeptList, StateFile, boot_id
from tokenry.validation.snapshots import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tokenry.http.fetch import Response
    from tokenry.revocation.rules import Hit
    from tokenry.revocation.signed import SignedList
    from tokenry.sources.extension import ExtensionSource

SKEW_SECONDS: Final = 2.0  # by which any two clocks of the platform may differ
REFUSE_AGE_SECONDS: Final = 900.0  # the validator's default; only for whether a kept list counts
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class BearerToken(Protocol):
    """A token as a `TokenSource` gives it."""

    @property
    def value(self) -> str:
        """The token itself."""
        ...


class Bearer(Protocol):
    """Where the token for reading the list comes from; every `TokenSource` fits."""

    def get(self) -> BearerToken:
        """Return a token that is good now."""
        ...

    def invalidate(self, token: Any = None) -> object:  # noqa: ANN401 -- of the source's own type
        """Forget a token that was refused."""
        ...


class RevocationSource:
    """
    Everything that is revoked, kept fresh by one daemon thread.

    Args:
        url: The revocation service, with or without `/revocations` at its end, or a callable that returns it
            once it is known.
        name: Name of this reader, shown to operators (`Tokenry-Instance`); default: the host's.
        version: Its version.
        bearer: Where a token comes from, if the list asks for one.
        state_folder: Where the list is kept across restarts; None keeps nothing.
        state_key: Names the list in that folder; needed when *url* is a callable.
        skew_seconds: By which two clocks of the platform may differ.
        refuse_age_seconds: Age from which the validator refuses; an older list on disk is enforced, but it
            is not enough to start with. Below a minute requests are held for less time, so that the list of a
            service that is well never gets that old.
        hold_seconds: For how long a request is held open at most; default: as long as *refuse_age_seconds* allows.
            Shorter: more requests, and a list whose age never grows beyond twice that.
        max_entries: A longer list is refused whole, and the last good one stays (1 to 100,000,000; 21 bytes of memory
            each). Longer ones have to arrive in 30 s as well.
        signed_list: Where the signed list is, the second source while the service is away.
        extension: Tells whether lists older than the refuse age are taken for now; started by this source.
        report_fetcher: Sends the reports of what is enforced here, in a thread of its own; None: no reports.
        report_bearer: Where the token for the reports comes from; default: *bearer*. Apart from it so that a list that
            is open does not depend on whoever gives tokens.
        fetcher: Performs the requests, for this source alone.
        clock: Where the time comes from.
        on_event: Called in the source's thread with each `SourceEvent`.

    Raises:
        ConfigurationError: An argument is not usable.
    """

    def __init__(
        self,
        url: str | Callable[[], str | None],
        *,
        name: str | None = None,
        version: str = "0",
        bearer: Bearer | None = None,
        state_folder: Path | str | None = None,
        state_key: str | None = None,
        skew_seconds: float = SKEW_SECONDS,
        refuse_age_seconds: float = REFUSE_AGE_SECONDS,
        hold_seconds: int | None = None,
        max_entries: int = MAX_ENTRIES,
        signed_list: SignedListPlace | None = None,
        extension: ExtensionSource | None = None,
        report_fetcher: Fetcher | None = None,
        report_bearer: Bearer | None = None,
        fetcher: Fetcher | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Remember the settings; nothing is read before `start`."""
        if not 1 <= max_entries <= LARGEST_MAX_ENTRIES:
            raise ConfigurationError([f"max_entries: set it to 1 to {LARGEST_MAX_ENTRIES} entries"])
        self._clock = clock or SystemClock()
        self._reporter = Reporter("revocations", on_event)
        self._skew = skew_seconds
        self._refuse_age = refuse_age_seconds
        self._max_entries = max_entries
        self._bearer = None if bearer is None else _Authorized(bearer)
        self._report_bearer = self._bearer if report_bearer is None else _Authorized(report_bearer)
        self._state = self._state_file(state_folder, state_key or (url if isinstance(url, str) else None))
        self._loaded = self._state is None
        self._conversation = RevocationConversation(
            root=_root_of(url),
            instance=_instance(name, version),
            reporter=self._reporter,
            skew=skew_seconds,
            max_entries=max_entries,
            keeper=self._state,
            hold_seconds=hold_seconds or longest_hold(refuse_age=refuse_age_seconds, skew=skew_seconds),
        )
        self._conversation.on_unauthorized = None if self._bearer is None else self._bearer.forget
        self._extension = extension
        self._report_conversation: ReportConversation | None = None
        self._reports = self._reporting(_root_of(url), _instance(name, version), report_fetcher)
        self._turns = _Turns(self._conversation)
        self._signed_reporter = Reporter("signed_list", on_event)
        self._signed: SignedListConversation | None = None
        self._second = None if signed_list is None else self._second_poller(signed_list)
        self._started_at: float | None = None
        self._poller = Poller(
            self._turns,
            fetcher=fetcher or HttpFetcher(),
            clock=self._clock,
            prepare=self._bearer,
        )

    def start(self) -> None:
        """Load what is kept on disk, then begin to read in the background."""
        if self._extension is not None:
            self._extension.start()
        self._load_once()
        if self._started_at is None:
            self._started_at = self._clock.monotonic()
        self._poller.start()
        for poller in self._others():
            poller.start()

    def stop(self) -> None:
        """End the background threads; the list that is held stays."""
        self._poller.stop()
        for poller in self._others():
            poller.stop()
        if self._extension is not None:
            self._extension.stop()
        if self._state is not None:
            self._state.close()

    def wake(self) -> None:
        """Look at once whether there is something to ask."""
        self._poller.wake()

    def snapshot(self) -> Snapshot[RevocationList] | None:
        """Return the last good list, or None before the first."""
        if self._poller.orphaned:
            self._poller.revive()
            for poller in self._others():
                poller.revive()
        return self._conversation.snapshot

    def refused(self, hit: Hit) -> None:
        """Count a token that was refused because of *hit*, for the report of this validator; never waits."""
        reports = self._report_conversation
        if reports is not None and hit.fingerprint is not None:
            reports.refused(hit.fingerprint, monotonic=self._clock.monotonic())

    def revocations(self) -> Snapshot[RevocationList] | None:
        """Return the same as `snapshot`."""
        return self.snapshot()

    def accept_epoch(self, epoch: int) -> None:
        """Take the list of the later store *epoch*; what was held stays in force until it is over."""
        self._turns.accept_epoch(epoch)
        self._poller.wake()

    @property
    def counters(self) -> SourceCounters:
        """What has happened so far."""
        return self._reporter.counters

    @property
    def signed_counters(self) -> SourceCounters:
        """What has happened with the signed list."""
        return self._signed_reporter.counters

    @property
    def running(self) -> bool:
        """Whether the background thread is there."""
        return self._poller.running

    def _others(self) -> list[Poller]:
        """Return the pollers beside the one that asks the service."""
        return [poller for poller in (self._second, self._reports) if poller is not None]

    def _reporting(self, root: Callable[[], str | None], instance: str, fetcher: Fetcher | None) -> Poller | None:
        if fetcher is None:
            return None
        reports = self._report_conversation = ReportConversation(
            root=root, instance=instance, snapshot=lambda: self._conversation.snapshot
        )
        poller = Poller(
            reports,
            fetcher=fetcher,
            clock=self._clock,
            prepare=self._report_bearer,
        )
        reports.on_unauthorized = None if self._report_bearer is None else self._report_bearer.forget

        def enforced(ids: list[str], at: Moment) -> None:
            if reports.enforced(ids, at=at):
                poller.wake()

        self._conversation.on_enforced = enforced
        return poller

    def _second_poller(self, place: SignedListPlace) -> Poller:
        state = self._state
        conversation = SignedListConversation(
            place,
            is_needed=self._needs_help,
            absorb=self._turns.absorb,
            limit=lambda _now: float("inf") if self._is_extended else self._refuse_age,
            reporter=self._signed_reporter,
            skew=self._skew,
            max_entries=self._max_entries,
            keep=None if state is None else state.keep_issues,
        )
        self._signed = conversation
        return Poller(conversation, fetcher=LocalFiles(place.fetcher), clock=self._clock)

    @property
    def _is_extended(self) -> bool:
        return self._extension is not None and self._extension.current() is not None

    def _needs_help(self, at: Moment) -> bool:
        """Tell whether the service leaves the list to grow old, or gives none at the start."""
        held = self._conversation.snapshot
        if held is not None:
            return held.age(now=at.now, monotonic=at.monotonic) > STALE_SECONDS
        return self._started_at is None or at.monotonic - self._started_at >= START_SECONDS

    def _state_file(self, folder: Path | str | None, key: str | None) -> StateFile | None:
        if folder is None:
            return None
        if key is None:
            raise ConfigurationError(["a state folder needs state_key when the list's URL is found later"])
        from pathlib import Path

        return StateFile(Path(folder), key=key, reporter=self._reporter, clock=self._clock, boot=boot_id())

    def _load_once(self) -> None:
        if self._loaded or self._state is None:
            return
        self._loaded = True
        at = Moment.of(self._clock)
        kept = self._state.load(now=at.now, max_entries=self._max_entries)
        if kept is not None:
            snapshot = self._snapshot_of(kept, at)
            self._conversation.resume(kept.held, cursor=kept.cursor, snapshot=snapshot)
        seen = self._state.load_issues() if self._signed is not None else None
        if self._signed is not None and seen is not None:
            self._signed.resume(seen)

    def _snapshot_of(self, kept: KeptList, at: Moment) -> Snapshot[RevocationList] | None:
        """
        Return what was kept as a list to judge by, unless it is too old or the clock is odd.

        A wall clock that was set back while this process was away makes it look young; where the machine has not been
        started again since, its monotonic clock tells.
        """
        age = at.now - kept.as_of
        if kept.uptime is not None:
            age = max(age, at.monotonic - kept.uptime + max(0.0, kept.written_at - kept.as_of))
        clock_went_back = at.now < kept.written_at - self._skew or age < -self._skew
        if clock_went_back:
            self._reporter.alarm("clock_went_back", "the kept list was written in this clock's future")
        if clock_went_back or (age >= self._refuse_age and not self._is_extended):
            return None
        return Snapshot(
            value=kept.held,
            as_of=kept.as_of,
            age_at_request=max(age, 0.0),
            requested_at=at.monotonic,
            skew=self._skew,
        )


class _Authorized:
    """Puts a token into requests, and forgets the one that was refused."""

    def __init__(self, bearer: Bearer) -> None:
        self._bearer = bearer
        self._last: BearerToken | None = None

    def __call__(self, request: Request) -> Request:
        self._last = self._bearer.get()
        return replace(request, headers={**request.headers, "Authorization": f"Bearer {self._last.value}"})

    def forget(self) -> None:
        self._bearer.invalidate(self._last)


class _Turns:
    """Lets one thread at a time into a conversation that two sources feed."""

    def __init__(self, conversation: RevocationConversation) -> None:
        self._conversation = conversation
        self.name = conversation.name
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def next_request(self, at: Moment) -> Request | Wait:
        """Return what to ask the service."""
        with self._lock:
            return self._conversation.next_request(at)

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:
        """Take in what the service says."""
        with self._lock:
            self._conversation.on_response(response, started=started, at=at)

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:
        """Take note that the service says nothing."""
        with self._lock:
            self._conversation.on_failure(failure, started=started, at=at)

    def absorb(self, issue: SignedList, *, started: Moment, at: Moment) -> None:
        """Take in a signed list."""
        with self._lock:
            self._conversation.absorb(issue, started=started, at=at)

    def accept_epoch(self, epoch: int) -> None:
        """Take the list of the later store *epoch*."""
        with self._lock:
            self._conversation.accept_epoch(epoch)


def revocations_root(url: str) -> str:
    """
    Return *url* with exactly one `/revocations` at its end.

    Raises:
        ConfigurationError: It is not a URL that we would fetch.
    """
    try:
        parts = check_url(url, allow_plain_http=True)
    except FetchFailed as failed:
        raise ConfigurationError([f"the URL of the revocation service: {failed}"]) from None
    if parts.query or parts.fragment:
        raise ConfigurationError(["the URL of the revocation service has no query and no fragment"])
    bare = url.rstrip("/")
    return bare if bare.endswith("/revocations") else f"{bare}/revocations"


def _root_of(url: str | Callable[[], str | None]) -> Callable[[], str | None]:
    if isinstance(url, str):
        root = revocations_root(url)
        return lambda: root
    find = url

    def found() -> str | None:
        later = find()
        return None if later is None else revocations_root(later)

    return found


def default_name(role: str = "") -> str:
    """Return a name for a reader on this host; with a *role*, to tell it from others there."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{role}-{socket.gethostname()}" if role else socket.gethostname())[:100]


def _instance(name: str | None, version: str) -> str:
    chosen = name or default_name() or "unnamed"
    if not _NAME.fullmatch(chosen) or not _NAME.fullmatch(version):
        raise ConfigurationError(["name and version of a reader are letters, digits, '.', '_' and '-'"])
    return f"{chosen}/{version}"
