"""
How a revocation service is asked for its list, and what its answers mean. No I/O and no clock.

First the whole list (`snapshot`), then what is new (`changes`), in a request that the server holds open
until there is something. Where requests are not held, one is made every 25 to 28 s.

Invariants:
    * An answer that is refused changes nothing: the last good list stays, and gets older.
    * Nothing is forgotten: lists are merged, and an answer older than the one held adds what it has, no more.
    * A list of an earlier store (epoch) is refused; one of a later store needs a person's word.
    * Every accepted answer says up to which moment it is complete; one that claims the future is refused.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from tokenry.errors import ProtocolError
from tokenry.http.backoff import Backoff, parse_retry_after, shortened, system_random
from tokenry.http.fetch import Failure, Request
from tokenry.http.poller import Wait
from tokenry.revocation.wire import (
    BINARY_TYPE,
    LIST_HEADER,
    LOCATION_HEADER,
    MAX_JSON_BYTES,
    SNAPSHOT_LOCATION,
    EpochRefused,
    ListDocument,
    ListStamp,
    changes_location,
    format_binary_list,
    is_located,
    max_binary_bytes,
    parse_binary_list,
    parse_list,
)
from tokenry.validation.snapshots import Snapshot

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tokenry.http.fetch import FetchFailed, Response
    from tokenry.http.poller import Moment
    from tokenry.revocation.entries import Entry
    from tokenry.revocation.lists import RevocationList
    from tokenry.revocation.signed import SignedList
    from tokenry.sources.events import Reporter

WAIT_SECONDS: Final = 25  # below the 30 s after which many proxies give up on a silent server
POLL_SECONDS: Final = 28.0  # where nothing is held open; jitter shortens it to 25 at most
_POLL_JITTER: Final = 3 / 28
FIRST_PAUSE_SECONDS: Final = 0.5  # after the first failure: where all start at once, the other side is there then
_LONGEST_PAUSE_SECONDS: Final = 25.0  # between tries while nothing answers
FETCH_SECONDS: Final = 2.0  # what an exchange may take beyond the time that the server holds it
# Two of them in a row, the read of the store behind them, and room for a slow answer.
_AROUND_TWO_HOLDS_SECONDS: Final = 2 * FETCH_SECONDS + 1.0
SNAPSHOT_SECONDS: Final = 30.0  # 200 MB at 7 MB/s; only the first list, and after a gap, is that large
GAP_SECONDS: Final = 0.25  # between two requests under a stream of news: at most four a second
MAX_TIMED: Final = 2000  # entries of one answer: of the thousands of a batch the first ones tell how long it took
LAGGING_SECONDS: Final = 1.0  # at most, before asking again when a replica was behind the one asked before
RESOLVE_SECONDS: Final = 0.5  # between looks at whether the list's address is known by now
# After a held request broke off. Once is a restart of the service; a proxy that cuts them all doubles it to 17 minutes.
_HOLD_AGAIN_SECONDS: Final = 2.0
_MAX_HOLD_FAILURES: Final = 9
_MAX_REPEATS: Final = 7  # answers in a row without anything new; the next one would be as far away as a poll
_FRESH_SECONDS: Final = 1.0  # after an answer, in which the next request may be held
_SLOW_BEFORE_SNAPSHOT: Final = 3  # a change that never arrives in time is taken as a whole list instead

_OK, _NOT_MODIFIED, _GONE = 200, 304, 410
_NO_CHANGES: Final = frozenset({404, 405, 501})  # a file server, which carries snapshots only
_UNAUTHORIZED: Final = frozenset({401, 403})
_PROXY_GAVE_UP: Final = frozenset({408, 502, 504})
_HELD_SHARE: Final = 0.8  # an answer that took this much of the wait was held


class ListKeeper(Protocol):
    """Keeps what was accepted across a restart."""

    def keep(self, held: RevocationList, *, cursor: str, as_of: float, news: bytes | None, now: float) -> None:
        """
        Keep *held*, which is not enforced yet, so that it survives whatever happens once it is.

        *news* is the answer's body if it changed the list, else None; *now* is the Unix time.
        """
        ...

    def settle(self, held: RevocationList, *, cursor: str, as_of: float, now: float) -> None:
        """Do what of keeping *held* could wait until it was enforced."""
        ...


class RefusedList(ProtocolError):
    """
    An answer must not be used.

    Attributes:
        reason: A label for metrics.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Refuse for *reason*."""
        self.reason = reason
        super().__init__(message)


def longest_hold(*, refuse_age: float, skew: float) -> int:
    """
    Return for how many seconds a request may be held where a list older than *refuse_age* is not judged by.

    The age counts from the begin of a request, so while nothing happens it grows to twice the hold before the next
    answer: a list of a service that is well must not get too old in between.
    """
    return int(min(WAIT_SECONDS, max(1.0, (refuse_age - skew - _AROUND_TWO_HOLDS_SECONDS) / 2)))


class RevocationConversation:
    """The state of one reader of one list."""

    name = "revocations"

    def __init__(
        self,
        *,
        root: Callable[[], str | None],
        instance: str,
        reporter: Reporter,
        skew: float,
        max_entries: int,
        keeper: ListKeeper | None = None,
        hold_seconds: int = WAIT_SECONDS,
        uniform: random.Random = system_random,
    ) -> None:
        """
        Know nothing; the first request is due at once.

        Args:
            root: Returns the URL that ends in `/revocations`, or None as long as it is not known.
            instance: What to send as `Tokenry-Instance`.
            reporter: Counts and tells what happens.
            skew: Seconds by which two clocks may differ.
            max_entries: A longer list is refused.
            keeper: Keeps what was accepted.
            hold_seconds: How long the server is asked to hold a request for news.
            uniform: Randomness for jitter.
        """
        self.snapshot: Snapshot[RevocationList] | None = None
        self.on_unauthorized: Callable[[], None] | None = None
        self.on_enforced: Callable[[list[str], Moment], None] | None = None
        self._root = root
        self._instance = instance
        self._reporter = reporter
        self._skew = skew
        self._max_entries = max_entries
        self._keeper = keeper
        self._hold_seconds = hold_seconds
        self._uniform = uniform
        self._held: RevocationList | None = None
        self._cursor: str | None = None
        self._etag: str | None = None
        self._accepted_epoch: int | None = None
        self._backoff = Backoff(first=FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS, uniform=uniform)
        self._due = float("-inf")
        self._asked_changes = False
        self._asked_wait = 0
        self._hold_from = float("-inf")
        self._hold_failures = 0
        self._asked_for = SNAPSHOT_LOCATION
        self._repeats = 0
        self._answered_at = float("-inf")
        self._changes_from = float("-inf")
        self._slow = 0

    # --- what to ask ---

    def next_request(self, at: Moment) -> Request | Wait:
        """Return the next request, or the seconds until it is due."""
        root = self._root()
        if root is None:
            return Wait(RESOLVE_SECONDS)
        if at.monotonic < self._due:
            return Wait(self._due - at.monotonic)
        self._asked_changes = self._cursor is not None and at.monotonic >= self._changes_from
        if self._asked_changes:
            return self._ask_changes(root, at)
        return self._ask_snapshot(root)

    def _ask_changes(self, root: str, at: Moment) -> Request:
        # The first request after a restart is not held: the age of the list has to be known at once.
        # Where holds have broken, the next one begins right after an answer: if it breaks as well, late, then the
        # answer after it still comes within the promise for polling.
        trusted = not self._hold_failures or at.monotonic - self._answered_at <= _FRESH_SECONDS
        held_open = self.snapshot is not None and trusted and at.monotonic >= self._hold_from
        self._asked_wait = self._hold_seconds if held_open else 0
        self._asked_for = changes_location(self._cursor or "")
        return Request(
            url=f"{root}/{self._asked_for}&wait={self._asked_wait}&created_at=true",
            headers={"Accept": "application/json", "Tokenry-Instance": self._instance},
            deadline_seconds=self._asked_wait + FETCH_SECONDS,
            max_bytes=MAX_JSON_BYTES,
        )

    def _ask_snapshot(self, root: str) -> Request:
        self._asked_wait, self._asked_for = 0, SNAPSHOT_LOCATION
        headers = {
            "Accept": f"{BINARY_TYPE}, application/json;q=0.5",
            "Tokenry-Instance": self._instance,
        }
        if self._etag is not None and self._cursor is not None:
            headers["If-None-Match"] = self._etag
        return Request(
            url=f"{root}/snapshot",
            headers=headers,
            deadline_seconds=SNAPSHOT_SECONDS,
            max_bytes=max_binary_bytes(self._max_entries),
        )

    # --- what the answers mean ---

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:
        """Merge what is new, or refuse it and keep what is held."""
        self._reporter.polled(str(response.status))
        try:
            if response.status == _OK:
                self._take(response, started, at)
            elif response.status == _NOT_MODIFIED:
                self._confirm(response, started, at)
            else:
                self._take_status(response, started, at)
        except EpochRefused as refused:
            self._refuse("epoch", str(refused), at)
        except RefusedList as refused:
            self._refuse(refused.reason, str(refused), at)
        except ProtocolError as error:
            self._refuse("malformed", str(error), at)

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:
        """Keep what is held and ask again: at once, but not held, when it was the holding that failed."""
        self._reporter.polled(failure.failure)
        self._reporter.failed(failure.failure, str(failure))
        if self._asked_wait and at.monotonic - started.monotonic >= FETCH_SECONDS:
            self._holding_failed(at)
            return
        if failure.failure in {Failure.TIMEOUT, Failure.TOO_LARGE} and self._asked_changes:
            self._slow += 1
            if self._slow >= _SLOW_BEFORE_SNAPSHOT:
                self._slow, self._cursor = 0, None
        self._due = at.monotonic + self._backoff.after_failure()

    def accept_epoch(self, epoch: int) -> None:
        """Take, once it is offered, the list of the store *epoch* in place of that of an earlier one."""
        self._accepted_epoch = epoch
        self._cursor = None
        self._due = float("-inf")

    def resume(self, held: RevocationList, *, cursor: str, snapshot: Snapshot[RevocationList] | None) -> None:
        """
        Begin with what was kept before a restart.

        It is merged with whatever comes; *snapshot* is None if it is too old to judge by alone.
        """
        self._held, self._cursor, self.snapshot = held, cursor, snapshot
        # Not held, and then held as usual.
        self._hold_from = float("inf")

    def absorb(self, issue: SignedList, *, started: Moment, at: Moment) -> None:
        """
        Merge a signed list that was verified, and judge by it where it is more recent than what is held.

        Raises:
            EpochRefused: It is of another store than the list that is held.
            ProtocolError: It contradicts what is held, or claims to be of the future.
        """
        if issue.as_of > at.now + self._skew:
            raise RefusedList("ahead", "the signed list claims to be complete up to a moment in our future")
        held, content = self._held, issue.content
        merged = content.onto(
            held,
            now=min(at.now, issue.issued_at),
            accept_epoch=self._accepted_epoch,
            max_entries=self._max_entries,
        )
        another_store = held is not None and held.epoch != merged.epoch
        applied = _growth(held, merged)
        cursor, etag = self._cursor, self._etag
        if another_store or self.snapshot is None or issue.as_of > self.snapshot.as_of:
            snapshot = Snapshot(
                value=merged,
                as_of=issue.as_of,
                age_at_request=max(0.0, started.now - issue.as_of),
                requested_at=started.monotonic,
                skew=self._skew,
                seq=issue.seq,
            )
            cursor, etag = content.cursor, None  # from there the service goes on, when it is back
        else:
            snapshot = replace(self.snapshot, value=merged)
        self._keep(snapshot, cursor, format_binary_list(content) if merged is not held else None, at)
        self._held, self.snapshot, self._cursor, self._etag = merged, snapshot, cursor, etag
        self._settle(at)
        self._reporter.loaded(now=at.now, applied=applied)

    def _take(self, response: Response, started: Moment, at: Moment) -> None:
        stamp = self._stamp(response, at)
        if not is_located(response.headers.get(LOCATION_HEADER.lower()), at=self._asked_for):
            raise RefusedList("misplaced", "the list is an answer to another request: is there a cache in between?")
        document = _parse(response, max_entries=self._max_entries)
        if document.epoch != stamp.epoch:
            raise RefusedList("stamp", "the list and its stamp name different epochs")
        held = self._held
        # The smaller of both clocks decides what is over: neither, running ahead, makes us forget too early.
        merged = document.onto(
            held,
            now=min(at.now, stamp.as_of + stamp.age),
            accept_epoch=self._accepted_epoch,
            max_entries=self._max_entries,
        )
        applied = _growth(held, merged)
        another_store = held is not None and held.epoch != merged.epoch
        # What came while we were away was not propagated to us late: nothing was accepted meanwhile.
        was_there = held is not None and self._asked_changes and self._answered_at > float("-inf")
        propagation = _propagation(held, document.entries, at.now) if was_there and held is not None else ()
        ahead = not self._is_lagging(stamp) or another_store
        cursor = self._cursor
        if ahead or self.snapshot is None:
            snapshot, cursor = _snapshot(merged, stamp, started, self._skew), document.cursor
        else:
            snapshot = replace(self.snapshot, value=merged)
        self._keep(snapshot, cursor, response.body if merged is not held else None, at)
        self._held, self.snapshot, self._cursor = merged, snapshot, cursor
        if ahead:
            self._etag = response.headers.get("etag") if not self._asked_changes else None
            # A cursor moves with the time. Only entries that changed the list are news: a server that does not hold,
            # because it drains or holds too many, must not be asked again at once for that.
            self._schedule(
                started, at, news=merged is not held and bool(document.entries), known=bool(document.entries)
            )
        else:
            self._schedule_behind(started, at, news=merged is not held)
        self._succeeded(at)
        if self.on_enforced is not None and self._asked_changes and document.entries:
            self.on_enforced([entry.id for entry in document.entries], at)
        self._reporter.loaded(now=at.now, applied=applied, propagation=propagation)

    def _confirm(self, response: Response, started: Moment, at: Moment) -> None:
        if self._held is None or self.snapshot is None or self._asked_changes or self._etag is None:
            raise RefusedList("status", "a 304 that was not asked for")
        stamp = self._stamp(response, at)
        if stamp.epoch != self._held.epoch:
            raise RefusedList("epoch", "a list is called unchanged under another epoch")
        if not self._is_lagging(stamp):
            self.snapshot = _snapshot(self._held, stamp, started, self._skew)
        self._schedule(started, at, news=False)
        self._keep(self.snapshot, self._cursor, None, at)
        self._succeeded(at)
        self._reporter.refreshed(now=at.now)

    def _take_status(self, response: Response, started: Moment, at: Moment) -> None:
        status = response.status
        if self._asked_changes and status == _GONE:
            self._cursor = self._etag = None
            self._due = max(at.monotonic, started.monotonic + GAP_SECONDS)
            return
        if self._asked_changes and status in _NO_CHANGES:
            self._changes_from = at.monotonic + _HOLD_AGAIN_SECONDS * 2**_MAX_HOLD_FAILURES
            self._due = at.monotonic
            return
        if self._asked_wait and status in _PROXY_GAVE_UP:
            self._reporter.failed("held", f"a held request was answered with status {status}")
            self._holding_failed(at)
            return
        if status in _UNAUTHORIZED and self.on_unauthorized is not None:
            self.on_unauthorized()
        retry_after = parse_retry_after(response.headers.get("retry-after"))
        self._reporter.failed("status", f"the list was answered with status {status}")
        self._due = at.monotonic + self._backoff.after_failure(retry_after=retry_after)

    def _stamp(self, response: Response, at: Moment) -> ListStamp:
        """Return the stamp, if the list is one that may be used at all."""
        text = response.headers.get(LIST_HEADER.lower())
        if text is None:
            raise RefusedList("stamp", "the answer does not say up to when it is complete")
        try:
            stamp = ListStamp.parse(text)
        except ProtocolError as error:
            raise RefusedList("stamp", str(error)) from None
        if stamp.as_of > at.now + self._skew:
            raise RefusedList("ahead", "the list claims to be complete up to a moment in our future")
        held = self._held
        if held is not None and stamp.epoch is not None and stamp.epoch < held.epoch:
            raise RefusedList("rollback", "the list is of an earlier store than the one held")
        return stamp

    def _is_lagging(self, stamp: ListStamp) -> bool:
        return self.snapshot is not None and stamp.as_of < self.snapshot.as_of

    # --- when to ask again ---

    def _schedule(self, started: Moment, at: Moment, *, news: bool, known: bool = False) -> None:
        """
        Ask at once where requests are held, else 25 to 28 s after the last request began.

        An answer that came at once and has only what is *known* is that of another replica than the last one: asked
        soon, and ever later while it goes on, since a server that does not hold may answer like that as well.
        """
        elapsed = at.monotonic - started.monotonic
        self._answered_at = at.monotonic
        if not self._asked_changes and at.monotonic >= self._changes_from:
            self._due = at.monotonic  # the whole list is there; from now on what is new
        elif self._asked_wait and (news or elapsed >= self._asked_wait * _HELD_SHARE):
            self._hold_failures = self._repeats = 0
            self._due = max(at.monotonic, started.monotonic + GAP_SECONDS)
        elif self._asked_wait and known and self._repeats < _MAX_REPEATS:
            self._due = started.monotonic + GAP_SECONDS * 2.0**self._repeats
            self._repeats += 1
        elif self._hold_from == float("inf"):
            self._hold_from = self._due = at.monotonic
        elif self._hold_failures and not self._asked_wait and at.monotonic >= self._hold_from:
            self._due = at.monotonic  # to be held now
        else:
            due = started.monotonic + shortened(POLL_SECONDS, by=_POLL_JITTER, uniform=self._uniform)
            if at.monotonic < self._hold_from:  # the next try to hold may come before the next poll
                due = min(due, self._hold_from)
            self._due = max(at.monotonic, due)

    def _schedule_behind(self, started: Moment, at: Moment, *, news: bool) -> None:
        """
        Ask again after an answer of a replica that was behind the one asked before.

        What is posted to a replica it lists at once, so such an answer may have news: then the next is wanted as soon
        as ever. If it has none, the other replica is as likely to be asked next: soon, and ever later while that fails.
        """
        pause = GAP_SECONDS
        if news:
            self._repeats = 0
        else:
            pause = min(GAP_SECONDS * 2.0**self._repeats, LAGGING_SECONDS)
            self._repeats = min(self._repeats + 1, _MAX_REPEATS)
        self._due = max(at.monotonic, started.monotonic + pause)

    def _holding_failed(self, at: Moment) -> None:
        pause = _HOLD_AGAIN_SECONDS * 2.0**self._hold_failures
        self._hold_failures = min(self._hold_failures + 1, _MAX_HOLD_FAILURES)
        self._hold_from = at.monotonic + pause
        self._due = at.monotonic

    def _succeeded(self, at: Moment) -> None:
        self._backoff.succeeded()
        self._slow = 0
        self._settle(at)

    def _keep(self, snapshot: Snapshot[RevocationList], cursor: str | None, news: bytes | None, at: Moment) -> None:
        """Keep what will be enforced next: what was enforced once must not be forgotten across a restart."""
        if self._keeper is not None and cursor is not None:
            self._keeper.keep(snapshot.value, cursor=cursor, as_of=snapshot.as_of, news=news, now=at.now)

    def _settle(self, at: Moment) -> None:
        held, snapshot = self._held, self.snapshot
        if held is not None and self._accepted_epoch == held.epoch:
            self._accepted_epoch = None
        if self._keeper is not None and self._cursor is not None and held is not None and snapshot is not None:
            self._keeper.settle(held, cursor=self._cursor, as_of=snapshot.as_of, now=at.now)

    def _refuse(self, reason: str, detail: str, at: Moment) -> None:
        self._reporter.rejected(reason, detail)
        self._due = at.monotonic + self._backoff.after_failure()


def _parse(response: Response, *, max_entries: int) -> ListDocument:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    parse = parse_binary_list if media_type == BINARY_TYPE else parse_list
    return parse(response.body, max_entries=max_entries)


def _snapshot(held: RevocationList, stamp: ListStamp, started: Moment, skew: float) -> Snapshot[RevocationList]:
    return Snapshot(
        value=held,
        as_of=stamp.as_of,
        age_at_request=stamp.age,
        requested_at=started.monotonic,
        skew=skew,
    )


def _growth(before: RevocationList | None, after: RevocationList) -> int:
    """Return how many entries were new, at least one if anything changed."""
    if after is before:
        return 0
    return max(len(after) - (len(before) if before is not None else 0), 1 if before is not None else 0)


def _propagation(held: RevocationList, entries: tuple[Entry, ...], now: float) -> tuple[float, ...]:
    """Return the seconds since the creation of each revocation among *entries* that *held* does not have."""
    seconds: list[float] = []
    last = ""
    for entry in islice(entries, MAX_TIMED):
        if entry.created_at is not None and entry.id != last and not held.has(entry):
            seconds.append(now - entry.created_at)
            last = entry.id
    return tuple(seconds)
