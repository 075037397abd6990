"""
The publisher of the signed list: every period one object, whether anything changed or not.

Constant work is the point: what is done in an emergency, with a million news, is what is done all the time.
Several replicas may run it. The object itself is the lease: each write is conditional on the version that was
seen last, so that two publishers cannot fork the list; whoever is overtaken stands by, and takes over when the
object has not changed for a period and a quarter.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import b64url_encode
from tokenry.revocation.signed import digest_of, max_signed_bytes, read_signed_list
from tokenry.revocation.wire import document_of
from tokenry_revocation.list_keys import signing_key
from tokenry_revocation.publication import document
from tokenry_revocation.signed_list import MAX_WRITTEN_ENTRIES, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.clock import Clock
    from tokenry.jose.jwk import PrivateKey
    from tokenry.revocation.signed import SignedList
    from tokenry.revocation.wire import ListDocument
    from tokenry_revocation.feed import Feed
    from tokenry_revocation.list_keys import ListKeys
    from tokenry_revocation.metrics import ServiceMetrics
    from tokenry_revocation.publication import Publication

OBJECT_NAME: Final = "revocation-list.jwt"
TAKE_OVER_AFTER: Final = 1.25  # periods without a change
CUT_SECONDS: Final = 1.0  # by which `next_update` may be early: it counts from the whole second before the signature
LOOKS: Final = 6  # of a publisher that stands by, in a period

_log = structlog.get_logger("tokenry.revocation.publisher")


class ShelfUnavailable(TokenryError):
    """The place of the list did not answer: whether something was written is not known."""


class Overtaken(TokenryError):
    """The object is not the version that was to be replaced; nothing was written."""


@dataclass(frozen=True, slots=True)
class Placed:
    """
    One version of the object.

    Attributes:
        body: Its bytes.
        version: Names this version.
        digest: SHA-256 of the bytes, base64url.
    """

    body: bytes = field(repr=False)
    version: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Hash the bytes."""
        object.__setattr__(self, "digest", b64url_encode(hashlib.sha256(self.body).digest()))


class Shelf(Protocol):
    """Where the list is put. Calls may block; they are made in a thread."""

    def version(self) -> str | None:
        """
        Return the version of the object, or None when there is none.

        Raises:
            ShelfUnavailable: It cannot be told.
        """
        ...

    def read(self) -> Placed | None:
        """
        Return the object, or None when there is none.

        Raises:
            ShelfUnavailable: It cannot be read.
        """
        ...

    def write(self, body: bytes, *, replaces: str | None) -> str:
        """
        Put *body* in the place of the version *replaces* (None: of nothing) and return its version.

        Raises:
            Overtaken: The object is another version.
            ShelfUnavailable: Not known to be written.
        """
        ...


class Turn(StrEnum):
    """How one turn of the publisher ended."""

    PUBLISHED = "published"
    STANDING_BY = "standing_by"
    OVERTAKEN = "overtaken"
    NO_KEY = "no_key"
    NO_LIST = "no_list"
    CLOCK_OFF = "clock_off"
    FAILED = "failed"


class Publisher:
    """
    Writes the list, or watches another replica write it.

    Attributes:
        current: The list as last published, by whichever replica; None before the first.
    """

    def __init__(
        self,
        *,
        feed: Feed,
        shelf: Shelf,
        keys: ListKeys,
        stream: Stream,
        max_token_lifetime: int,
        clock: Clock,
        clock_is_off: Callable[[], bool],
        metrics: ServiceMetrics,
        max_written: int = MAX_WRITTEN_ENTRIES,
    ) -> None:
        """
        Have published nothing yet.

        Args:
            feed: What is published.
            shelf: Where the object is.
            keys: What it is signed with.
            stream: Name of this run, and its interval.
            max_token_lifetime: Seconds; carried by every list.
            clock: Where the time comes from.
            clock_is_off: Tells whether our clock is outside its bound: then nothing is signed.
            metrics: Counts turns.
            max_written: Records up to which the entries are written one by one.
        """
        self._max_written = max_written
        self._feed = feed
        self._shelf = shelf
        self._keys = keys
        self._stream = stream
        self._max_token_lifetime = max_token_lifetime
        self._clock = clock
        self._clock_is_off = clock_is_off
        self._metrics = metrics
        self._version: str | None = None
        self._changed_at: float | None = None
        self._is_ours = False
        self._next_update = 0.0
        self.current: Placed | None = None
        self.last: Turn | None = None

    async def run(self) -> None:
        """Take turns for ever; a failed one is reported, and the next one comes in time."""
        loop, interval = asyncio.get_running_loop(), self._stream.interval
        while True:
            began = loop.time()
            turn = await self._guarded()
            pause = interval if turn is Turn.PUBLISHED else interval / LOOKS
            await asyncio.sleep(max(0.0, began + pause - loop.time()))

    async def _guarded(self) -> Turn:
        try:
            return await self.turn()
        except Exception as error:  # noqa: BLE001
            # A defect, or a driver's own exception, must not end the loop: readers would run out of lists.
            _log.exception("publishing the list broke", error=type(error).__name__)
            return self._note(Turn.FAILED)

    def age(self) -> float:
        """Return the seconds since the object was seen to change; infinite before the first."""
        return float("inf") if self._changed_at is None else self._clock.monotonic() - self._changed_at

    async def turn(self) -> Turn:
        """Publish, or look whether another replica does."""
        try:
            await asyncio.to_thread(self._keys.refresh)
            if not self._is_ours and await self._somebody_else_publishes():
                return self._note(Turn.STANDING_BY)
            return self._note(await self._publish())
        except Overtaken:
            self._is_ours = False
            _log.warning("another replica publishes the list: standing by")
            return self._note(Turn.OVERTAKEN)
        except ShelfUnavailable as error:
            # The object may be ours or the one before: the next turn looks.
            self._is_ours = False
            _log.warning("the list was not published", error=str(error))
            return self._note(Turn.FAILED)

    async def _somebody_else_publishes(self) -> bool:
        """Look at the object, and tell whether it is fresh and not of this run."""
        version = await asyncio.to_thread(self._shelf.version)
        if version is None:
            self._version = None
            return False
        if version != self._version or self.current is None:
            placed = await asyncio.to_thread(self._shelf.read)
            if placed is None:
                return False
            if await self._take_note(placed):
                return False
        overdue = self._clock.now() - self._next_update
        patience = (TAKE_OVER_AFTER - 1.0) * self._stream.interval + CUT_SECONDS
        return overdue < patience and self.age() < TAKE_OVER_AFTER * self._stream.interval

    async def _take_note(self, placed: Placed) -> bool:
        """Remember the object as it is, and tell whether this run wrote it."""
        self.current, self._version, self._changed_at = placed, placed.version, self._clock.monotonic()
        try:
            issue, digest = await asyncio.to_thread(self._read, placed)
        except ProtocolError as error:
            _log.error("what lies in the list's place is no list of ours; it is replaced", error=str(error))
            self._next_update = 0.0
            return False
        self._stream = self._stream.after(seq=issue.seq, digest=digest)
        self._next_update = issue.next_update
        return issue.stream == self._stream.name

    def _read(self, placed: Placed) -> tuple[SignedList, str]:
        """Return the list and its digest; a long one takes seconds, in which the event loop has to go on."""
        text = placed.body.decode("ascii", "replace").strip()
        issue = read_signed_list(
            text, issuer=self._stream.issuer, find=self._keys.find, max_entries=self._feed.max_entries
        )
        return issue, digest_of(text)

    async def _publish(self) -> Turn:
        publication = self._feed.publication
        if publication is None:
            return Turn.NO_LIST
        if self._clock_is_off():
            return Turn.CLOCK_OFF
        signer = self._signer()
        if signer is None:
            _log.error("there is no key to sign the list with")
            return Turn.NO_KEY
        issue = self._stream.next(self._content(publication), as_of=self._feed.as_of, now=self._clock.now())
        self._stream = self._stream.used(issue.seq)
        text = await asyncio.to_thread(issue.sign, signer)
        await self._place(issue, text)
        return Turn.PUBLISHED

    async def _place(self, issue: SignedList, text: str) -> None:
        body = text.encode("ascii")
        if len(body) > max_signed_bytes(self._feed.max_entries):
            raise ShelfUnavailable(f"the list has {len(body)} bytes, more than a reader takes")
        digest = await asyncio.to_thread(digest_of, text)
        version = await asyncio.to_thread(self._shelf.write, body, replaces=self._version)
        self.current, self._version = await asyncio.to_thread(Placed, body, version), version
        self._changed_at, self._is_ours, self._next_update = self._clock.monotonic(), True, issue.next_update
        self._stream = self._stream.after(seq=issue.seq, digest=digest)

    def _content(self, publication: Publication) -> ListDocument:
        feed = self._feed
        cursor = publication.cursor(as_of=feed.as_of)
        if len(publication) > self._max_written:
            return document_of(feed.revocations, cursor=cursor.format())
        return document(list(publication), cursor=cursor, salts=feed.salts, max_token_lifetime=self._max_token_lifetime)

    def _signer(self) -> PrivateKey | None:
        keys, now = self._keys.keys(), self._clock.now()
        issuer, revocations = self._stream.issuer, self._feed.revocations
        revoked = {key.private.kid for key in keys if revocations.has_key(issuer, key.private.kid)}
        return signing_key(keys, now=now, revoked=revoked)

    def _note(self, turn: Turn) -> Turn:
        self._metrics.list_published(turn.value)
        if turn is not self.last:
            _log.info("the publisher of the signed list", turn=turn.value)
        self.last = turn
        return turn
