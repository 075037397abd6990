"""
Where a validator finds a broken glass: a file, or a URL, that usually is not there.

What was read stays until its end, until another one is read, or until it is taken away. A signed word that is
not good changes nothing and is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tokenry.clock import Clock, SystemClock
from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.http.fetch import Fetcher, FetchFailed, HttpFetcher, Request, check_url
from tokenry.http.poller import Moment, Poller, Wait
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwk import PublicKey
from tokenry.revocation.extension import MAX_EXTENSION_BYTES, ListExtension, read_extension
from tokenry.sources.events import OnEvent, Reporter
from tokenry.sources.signed_list import LocalFiles

if TYPE_CHECKING:
    from tokenry.http.fetch import Response

FILE_SECONDS: Final = 5.0  # between two looks at a file
URL_SECONDS: Final = 30.0  # between two looks at a URL
SKEW_SECONDS: Final = 2.0
_DEADLINE_SECONDS: Final = 5.0
_OK, _NOT_MODIFIED = 200, 304
_NOT_THERE: Final = frozenset({403, 404, 410})  # a bucket answers 403 for what is not there to whoever may not list


class ExtensionSource:
    """
    The extension of the refuse limit that is in force, if any.

    Args:
        place: `https:` or `file:` URL of the signed word.
        issuer: Whose platform this validator belongs to.
        key: The pinned key, as a JWK in JSON.
        fetcher: Performs the requests, for this source alone.
        clock: Where the time comes from.
        on_event: Called in the source's thread with each `SourceEvent`; an extension that comes into force is
            an alarm.

    Raises:
        ConfigurationError: The URL or the key is not usable.
    """

    name = "list-extension"

    def __init__(
        self,
        place: str,
        *,
        issuer: str,
        key: str | bytes,
        fetcher: Fetcher | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Check the settings; nothing is read before `start`."""
        self._place = _checked(place)
        self._key = pinned_key(key)
        self._issuer = issuer
        self._clock = clock or SystemClock()
        self._reporter = Reporter("extension", on_event)
        self._period = FILE_SECONDS if urlsplit(place).scheme == "file" else URL_SECONDS
        self._due = float("-inf")
        self._etag: str | None = None
        self._held: ListExtension | None = None
        self._poller = Poller(self, fetcher=LocalFiles(fetcher or HttpFetcher()), clock=self._clock)

    def start(self) -> None:
        """Look into a file at once, since a list that is kept may need it; then look again in the background."""
        if urlsplit(self._place).scheme == "file":
            self._poller.step()
        self._poller.start()

    def stop(self) -> None:
        """End the background thread."""
        self._poller.stop()

    def current(self) -> ListExtension | None:
        """Return the extension that is in force now, or None."""
        if self._poller.orphaned:
            self._poller.revive()
        held = self._held
        return held if held is not None and held.is_in_force(self._clock.now(), skew=SKEW_SECONDS) else None

    # --- the conversation ---

    def next_request(self, at: Moment) -> Request | Wait:
        """Return the next look, or the seconds until it is due."""
        if at.monotonic < self._due:
            return Wait(self._due - at.monotonic)
        headers = {} if self._etag is None else {"If-None-Match": self._etag}
        return Request(
            url=self._place, headers=headers, max_bytes=MAX_EXTENSION_BYTES, deadline_seconds=_DEADLINE_SECONDS
        )

    def on_response(self, response: Response, *, started: Moment, at: Moment) -> None:  # noqa: ARG002
        """Take an extension in, or drop the one that was taken away."""
        self._due = at.monotonic + self._period
        if response.status in _NOT_THERE:
            if self._held is not None:
                self._reporter.alarm("extension_withdrawn", f"the extension {self._held.name} was taken away")
            self._held = self._etag = None
        elif response.status == _OK:
            self._etag = response.headers.get("etag")
            self._take(response.body, at)
        elif response.status != _NOT_MODIFIED:
            self._reporter.failed("status", f"the place of extensions answered with status {response.status}")

    def on_failure(self, failure: FetchFailed, *, started: Moment, at: Moment) -> None:  # noqa: ARG002
        """Keep what is held and look again."""
        self._due = at.monotonic + self._period
        self._reporter.failed(failure.failure, str(failure))

    def _take(self, body: bytes, at: Moment) -> None:
        try:
            found = read_extension(body.decode("ascii", "replace").strip(), issuer=self._issuer, key=self._key)
        except ProtocolError as error:
            self._reporter.rejected("extension", str(error))
            return
        if found.issued_at > at.now + SKEW_SECONDS:
            self._reporter.rejected("ahead", "the extension is of a moment in our future")
            return
        if found != self._held and found.is_in_force(at.now, skew=SKEW_SECONDS):
            self._reporter.alarm(
                "list_extended",
                f"an old list is judged by until {found.until}, by word of {found.by!r} ({found.name}); reason: "
                f"{found.reason!r}, ticket: {found.ticket!r}",
            )
        self._held = found


def pinned_key(text: str | bytes) -> PublicKey:
    """
    Return the key that *text*, a JWK in JSON, is.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        return PublicKey.from_jwk(parse_json_object(text.encode() if isinstance(text, str) else text))
    except ProtocolError as error:
        raise ConfigurationError([f"the key for extensions is no public ES256 key as a JWK: {error}"]) from None


def _checked(place: str) -> str:
    if urlsplit(place).scheme == "file":
        return place
    try:
        check_url(place, allow_plain_http=True)
    except FetchFailed as failed:
        raise ConfigurationError([f"the place of extensions: {failed}"]) from None
    return place
