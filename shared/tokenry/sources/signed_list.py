"""
The second source of a validator's list: the signed one, from wherever it is carried to.

It is asked only while the revocation service does not keep the list fresh. Its keys are fetched beforehand, so
that they are at hand when they are needed. No I/O in the conversation and no clock.

Invariants:
    * What is not signed by a list key of the issuer changes nothing.
    * A stream is followed forwards only: a smaller number is refused, and the same number with other bytes is
      refused with an alarm, because then somebody has two lists signed where there can be one.
    * Where there is a state folder all that holds across a restart, too.
    * It is merged into the list that is held, as any other answer is, and by the same rules for epochs.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.http.backoff import Backoff, parse_retry_after, shortened, system_random
from tokenry.http.fetch import Failure, FetchFailed, Headers, Request, Response, check_url
from tokenry.http.poller import Wait
from tokenry.jose.jwks import MAX_DOCUMENT_BYTES, KeySet
from tokenry.jose.typed import UnknownSigner
from tokenry.revocation.lists import MAX_ENTRIES
from tokenry.revocation.signed import SIGNED_LIST_MEDIA_TYPE, SignedList, digest_of, max_signed_bytes, read_signed_list
from tokenry.revocation.wire import EpochRefused
from tokenry.sources.revocation_conversation import RefusedList
from tokenry.sources.state import MAX_STREAMS, SeenIssues

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tokenry.http.fetch import Fetcher
    from tokenry.http.poller import Moment
    from tokenry.jose.jwk import PublicKey
    from tokenry.sources.events import Reporter

PERIOD_SECONDS: Final = 28.0  # between two reads while it is needed; published every 30 s, so in force within 61 s
STALE_SECONDS: Final = 60.0  # the age from which the service is taken to be away: two polls were missed
START_SECONDS: Final = 2.0  # that the service is given for the first list
LOOK_SECONDS: Final = 1.0  # between two looks at whether it is needed
KEYS_SECONDS: Final = 300.0  # between two reads of the list's keys
KEYS_HARD_AGE_SECONDS: Final = 24 * 3600.0  # a key that was taken away is not believed longer than that
_KEYS_COOLDOWN_SECONDS: Final = 30.0  # between two reads of the keys that unknown signers caused
_FETCH_SECONDS: Final = 30.0  # 400 MB at the speed of a slow disk or bucket
_KEYS_FETCH_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 28.0
_JITTER: Final = 3 / 28
_OK, _NOT_MODIFIED = 200, 304


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedListPlace:
    """
    Where the signed list is.

    Attributes:
        url: `https:` URL, or `file:` for a folder that somebody else keeps up to date.
        issuer: Whose list it is.
        keys_uri: Returns where the issuer publishes the keys of its lists, once that is known.
        fetcher: Performs the requests, for this source alone.

    Raises:
        ConfigurationError: The URL is not usable.
    """

    url: str
    issuer: str
    keys_uri: Callable[[], str | None]
    fetcher: Fetcher

    def __post_init__(self) -> None:
        """Check the URL."""
        if urlsplit(self.url).scheme == "file":
            return
        try:
            check_url(self.url, allow_plain_http=True)  # whether plain HTTP is allowed is the fetcher's decision
        except FetchFailed as failed:
            raise ConfigurationError([f"the URL of the signed list: {failed}"]) from None


class Absorb(Protocol):
    """Takes a list that is believed."""

    def __call__(self, issue: SignedList, *, started: Moment, at: Moment) -> None:
        """
        Merge *issue* into the list that is held.

        Raises:
            ProtocolError: It contradicts what is held, which stays as it is.
        """
        ...


class SignedListConversation:
    """The state of one reader of one signed list."""

    name = "signed-list"

    def __init__(
        self,
        place: SignedListPlace,
        *,
        is_needed: Callable[[Moment], bool],
        absorb: Absorb,
        limit: Callable[[float], float],
        reporter: Reporter,
        skew: float,
        max_entries: int = MAX_ENTRIES,
        keep: Callable[[SeenIssues], None] | None = None,
        uniform: random.Random = system_random,
    ) -> None:
        """
        Know nothing.

        Args:
            place: Where the list is.
            is_needed: Tells whether the service leaves the list to grow old.
            absorb: Merges what was read.
            limit: Returns, for a Unix time, the seconds after `next_update` for which a list is still taken.
            reporter: Counts and tells what happens.
            skew: Seconds by which two clocks may differ.
            max_entries: A longer list is refused.
            keep: Keeps across a restart which lists were read; None: that is forgotten then.
            uniform: Randomness for jitter.
        """
        self._place = place
        self._keep = keep
        self._is_needed = is_needed
        self._absorb = absorb
        self._limit = limit
        self._reporter = reporter
        self._skew = skew
        self._max_entries = max_entries
        self._uniform = uniform
        self._keys: KeySet | None = None
        self._keys_at = float("-inf")
        self._keys_due = float("-inf")
        self._keys_asked = float("-inf")
        self._keys_backoff = Backoff(longest=KEYS_SECONDS / 2, uniform=uniform)
        self._backoff = Backoff(longest=_LONGEST_PAUSE_SECONDS, uniform=uniform)
        self._due = float("-inf")
        self._asking_keys = False
        self._etag: str | None = None
        self._streams: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._as_of = 0.0

    def resume(self, seen: SeenIssues) -> None:
        """Begin with what was read before a restart: an earlier list is refused as if there had been none."""
        self._streams, self._as_of = OrderedDict(seen.streams), seen.as_of

    def next_request(self, at: Moment) -> Request | Wait:
        """Return a request for the keys or for the list, or the seconds until the next look."""
        keys_uri = self._place.keys_uri()
        if keys_uri is not None and at.monotonic >= self._keys_due:
            self._asking_keys, self._keys_asked = True, at.monotonic
            return Request(
                url=keys_uri,
                headers={"Accept": "application/json"},
                max_bytes=MAX_DOCUMENT_BYTES,
                deadline_seconds=_KEYS_FETCH_SECONDS,
            )
        if self._keys is None or at.monotonic < self._due or not self._is_needed(at):
            return Wait(LOOK_SECONDS)
        self._asking_keys = False
        headers = {"Accept": SIGNED_LIST_MEDIA_TYPE}
        if self._etag is not None:
            headers["If-None-Match"] = self._etag
        return Request(
            url=self._place.url,
            headers=headers,
            max_bytes=max_signed_bytes(self._max_entries),
            deadline_seconds=_FETCH_SECONDS,
        )

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:
        """Take in keys, or a list, or refuse it and keep what is held."""
        self._reporter.polled(str(response.status))
        try:
            if self._asking_keys:
                self._take_keys(response, at)
            elif response.status == _OK:
                self._take(response, started, at)
            elif response.status == _NOT_MODIFIED and self._etag is not None:
                self._succeeded(at)
            else:
                self._reporter.failed("status", f"the signed list was answered with status {response.status}")
                self._postpone(at, retry_after=parse_retry_after(response.headers.get("retry-after")))
        except UnknownSigner as error:
            self._keys_due = max(at.monotonic, self._keys_asked + _KEYS_COOLDOWN_SECONDS)
            self._refuse("signature", str(error), at)
        except EpochRefused as error:
            self._refuse("epoch", str(error), at)
        except RefusedList as error:
            self._refuse(error.reason, str(error), at)
        except ProtocolError as error:
            self._refuse("malformed", str(error), at)

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:  # noqa: ARG002
        """Try again later."""
        self._reporter.polled(failure.failure)
        self._reporter.failed(failure.failure, str(failure))
        self._postpone(at)

    # --- keys ---

    def _take_keys(self, response: Response, at: Moment) -> None:
        if response.status != _OK:
            raise RefusedList("status", f"the keys of the signed list were answered with status {response.status}")
        self._keys = KeySet.parse(response.body, issuer=self._place.issuer)
        self._keys_at, self._keys_due = at.monotonic, at.monotonic + KEYS_SECONDS
        self._keys_backoff.succeeded()

    def _find(self, at: Moment) -> Callable[[str], PublicKey | None]:
        keys = self._keys
        if keys is None or at.monotonic - self._keys_at > KEYS_HARD_AGE_SECONDS:
            return lambda _kid: None
        return lambda kid: keys.find(self._place.issuer, kid)

    # --- the list ---

    def _take(self, response: Response, started: Moment, at: Moment) -> None:
        try:
            text = response.body.decode("ascii").strip()
        except UnicodeDecodeError:
            raise ProtocolError("the signed list is not ASCII") from None
        issue = read_signed_list(text, issuer=self._place.issuer, find=self._find(at), max_entries=self._max_entries)
        digest = digest_of(text)
        if self._is_news(issue, digest, now=at.now):
            self._absorb(issue, started=started, at=at)
            self._streams[issue.stream] = (issue.seq, digest)
            self._streams.move_to_end(issue.stream)
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
            self._as_of = max(self._as_of, issue.as_of)
            if self._keep is not None:
                self._keep(SeenIssues(streams=dict(self._streams), as_of=self._as_of))
            self._reporter.loaded(now=at.now, detail=f"number {issue.seq}")
        else:
            self._reporter.refreshed(now=at.now)
        self._etag = response.headers.get("etag")
        self._succeeded(at)

    def _is_news(self, issue: SignedList, digest: str, *, now: float) -> bool:
        """
        Tell whether *issue* was not seen yet.

        Raises:
            RefusedList: It is out of date, of the future, or of the past of its stream.
        """
        if now > issue.next_update + self._limit(now):
            raise RefusedList("expired", "the signed list should have been followed by another one long ago")
        if max(issue.as_of, issue.issued_at) > now + self._skew:
            raise RefusedList("ahead", "the signed list is of a moment in our future")
        known = self._streams.get(issue.stream)
        if known is None:
            if issue.as_of < self._as_of:
                raise RefusedList("rollback", "the signed list is of another run and older than one that was read")
            return True
        seq, seen = known
        if issue.seq < seq:
            raise RefusedList("rollback", "the signed list has a smaller number than one that was read")
        if issue.seq == seq and digest != seen:
            self._reporter.alarm("signed_list_forked", f"two lists are signed with number {seq} of one stream")
            raise RefusedList("forked", "the signed list differs from the one that was read under its number")
        return issue.seq > seq

    def _succeeded(self, at: Moment) -> None:
        self._backoff.succeeded()
        self._due = at.monotonic + shortened(PERIOD_SECONDS, by=_JITTER, uniform=self._uniform)

    def _refuse(self, reason: str, detail: str, at: Moment) -> None:
        self._reporter.rejected(reason, detail)
        self._etag = None
        self._postpone(at)

    def _postpone(self, at: Moment, *, retry_after: float | None = None) -> None:
        if self._asking_keys:
            self._keys_due = at.monotonic + self._keys_backoff.after_failure(retry_after=retry_after)
        else:
            self._due = at.monotonic + self._backoff.after_failure(retry_after=retry_after)


class LocalFiles:
    """A fetcher that reads `file:` URLs itself, and leaves all others to another one."""

    def __init__(self, remote: Fetcher) -> None:
        """Leave what is not local to *remote*."""
        self._remote = remote

    def fetch(self, request: Request) -> Response:
        """
        Return the file as an answer: 200 with an ETag, 304 or 404.

        Raises:
            FetchFailed: It cannot be read, or is too large.
        """
        parts = urlsplit(request.url)
        return _read(unquote(parts.path), request) if parts.scheme == "file" else self._remote.fetch(request)

    def cancel(self) -> None:
        """Cancel what the other one does; a file is read in no time."""
        self._remote.cancel()


def _read(path: str, request: Request) -> Response:
    import os
    from pathlib import Path

    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            etag = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
            if request.headers.get("If-None-Match") == etag:
                return Response(status=_NOT_MODIFIED)
            body = file.read(request.max_bytes + 1)
    except FileNotFoundError:
        return Response(status=404)
    except OSError as error:
        raise FetchFailed(Failure.INTERNAL, f"the file cannot be read ({error.strerror})") from None
    if len(body) > request.max_bytes:
        raise FetchFailed(Failure.TOO_LARGE, f"the file has more than {request.max_bytes} bytes")
    return Response(status=_OK, headers=Headers([("ETag", etag)]), body=body)
