"""What readers get over HTTP: Plan B's list, changes, snapshots, and the view of all validators."""

from __future__ import annotations

import asyncio
import math
import zlib
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from tokenry.jose.encoding import dump_json
from tokenry.oauth.errors import bearer_challenge
from tokenry.revocation.signed import SIGNED_LIST_MEDIA_TYPE
from tokenry.revocation.wire import (
    BINARY_TYPE,
    LIST_HEADER,
    LOCATION_HEADER,
    SNAPSHOT_LOCATION,
    changes_location,
    document_of,
    format_binary_list,
)
from tokenry.serving.application import authorization_values, deadline, read_body
from tokenry.serving.problem import Problem
from tokenry_revocation.authorization import NotAllowed, authorize_reading
from tokenry_revocation.callers import authenticate
from tokenry_revocation.cursors import Cursor, CursorGone
from tokenry_revocation.instances import INSTANCE_HEADER, VIEWS, Instance, enforcing, merge, parse_report
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.publication import entries_digest, written
from tokenry_revocation.requests import InvalidRequest, parse_flag, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tokenry_revocation.feed import Moment
    from tokenry_revocation.handlers import Service
    from tokenry_revocation.live import AnyLive
    from tokenry_revocation.publication import Publication
    from tokenry_revocation.publisher import Publisher

DEFAULT_WAIT_SECONDS: Final = 25.0
MAX_WAIT_SECONDS: Final = 50.0  # common balancers cut a silent connection after 60
MAX_REPORT_BYTES: Final = 64 * 1024
LOOK_SECONDS: Final = 5.0  # a reader that has gone gives its place away after so long
FIRST_LIST_SECONDS: Final = 1.0  # for which a reader's first request waits for our own first read of the store
RETRY_SECONDS: Final = 1  # the first read of the store takes that long, or the store is away
MAX_JSON_RECORDS: Final = 100_000  # with two entries each as much as our own readers take as JSON (32 MiB)
_AT_ONCE: Final = 500  # entries that are written without a pause: two milliseconds
_PIECES_AT_ONCE: Final = 40  # of Plan B's list, 500 rows each: more are sent as they are written
_GZIP_LEVEL_STREAMED: Final = 1
_GZIP_BINARY_UNTIL: Final = 2**20
_GZIP_LEVEL: Final = 5
_GZIP_FROM: Final = 1024  # bytes below which compressing costs more than it saves
_JSON: Final = "application/json"
_MAX_PACKED: Final = 32  # answers: most readers ask for one of a few at a time
_MAX_MEMO: Final = 1024  # answers to different cursors between two reads of the store

_gzip = partial(zlib.compress, level=_GZIP_LEVEL, wbits=31)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A body in one form."""

    etag: str
    plain: bytes
    packed: bytes | None


class Readers:
    """The handlers that only read."""

    def __init__(
        self,
        service: Service,
        *,
        read_scope: str | None,
        open_reports: bool,
        max_held: int,
        publisher: Publisher | None = None,
    ) -> None:
        """
        Publish the feed of *service*.

        Args:
            service: The rest of the service.
            read_scope: Scope that reading the lists needs; None for open lists.
            open_reports: Whether reports are taken without a bearer.
            max_held: Requests for changes that wait at a time.
            publisher: Has the signed list as last published; None when it is not published here.
        """
        self._publisher = publisher
        self._service = service
        self._read_scope = read_scope
        self._open_reports = open_reports
        self._max_held = max_held
        self._held = 0
        self._snapshots: dict[str, tuple[int, _Rendered]] = {}
        self._rendering = asyncio.Lock()
        self._packed: dict[bytes, bytes] = {}
        self._changes: dict[str, bytes] = {}
        self._changes_of: tuple[int, float] = (-1, 0.0)

    # --- GET /revocations?from= -----------------------------------------------------------------------------

    async def plan_b(self, request: web.Request) -> web.StreamResponse:
        """Answer a validator of Plan B."""
        await self._check_reader(request)
        try:
            since = parse_seconds(request.query.get("from"), name="from")
        except InvalidRequest as error:
            raise Problem(400, str(error)) from None
        publication = self._publication()
        self._note_poll(request, None)
        moment = self._service.feed.moment
        pieces = publication.plan_b.pieces(after=since, now=self._service.clock.now())
        body: list[bytes] = []
        for piece in pieces:
            body.append(piece)
            if len(body) > _PIECES_AT_ONCE:
                return await self._stream(request, chain(body, pieces), moment)
            await asyncio.sleep(0)
        return await self._answer(request, b"".join(body), moment)

    async def _stream(self, request: web.Request, pieces: Iterator[bytes], moment: Moment) -> web.StreamResponse:
        """Send a list that is too long to be held in memory for each validator that starts."""
        response = web.StreamResponse(headers=self._stamp(moment))
        response.content_type = _JSON
        pack = zlib.compressobj(_GZIP_LEVEL_STREAMED, wbits=31) if _takes_gzip(request) else None
        if pack is not None:
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        await response.prepare(request)
        for piece in pieces:
            data = piece if pack is None else pack.compress(piece)
            if data:
                await response.write(data)
            await asyncio.sleep(0)
        if pack is not None:
            await response.write(pack.flush())
        await response.write_eof()
        return response

    # --- GET /revocations/changes ---------------------------------------------------------------------------

    @deadline(None)
    async def changes(self, request: web.Request) -> web.Response:
        """Answer what is new since a cursor, as soon as there is something, or the wait is over."""
        await self._check_reader(request)
        wait, created_at = _wait(request), _asks_for_created_at(request)
        publication, after = self._publication(), request.query.get("after", "")
        try:
            cursor = Cursor.parse(after, epoch=publication.epoch)
            self._note_poll(request, cursor)
            if not self._has_news(publication, cursor):
                await self._hold(request, publication, cursor, wait)
            body, moment = await self._render_changes(publication, cursor, created_at=created_at)
        except CursorGone as error:
            raise Problem(410, str(error)) from None
        return await self._answer(request, body, moment, headers={LOCATION_HEADER: changes_location(after)})

    def _has_news(self, publication: Publication, cursor: Cursor) -> bool:
        """
        Tell whether there is something to say: a reader that is ahead of this replica, in all or in one
        record, knows more than it does, and an empty answer would look like a request that is not held.
        """
        ahead = cursor.position > publication.position
        return not ahead and publication.has_news(cursor) and bool(publication.news(cursor))

    async def _hold(self, request: web.Request, publication: Publication, cursor: Cursor, wait: float) -> None:
        """Return when there is news, or *wait* seconds are over; at once when too many are held."""
        metrics, feed = self._service.metrics, self._service.feed
        if self._held >= self._max_held:
            metrics.not_held.inc()
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        self._held += 1
        metrics.held.set(self._held)
        try:
            while (left := end - loop.time()) > 0 and not feed.draining and _is_connected(request):
                seconds = min(left, LOOK_SECONDS)
                await feed.wait_for_news(ahead=cursor.position > publication.position, seconds=seconds)
                if self._has_news(publication, cursor):
                    return
        finally:
            self._held -= 1
            metrics.held.set(self._held)

    async def _render_changes(
        self, publication: Publication, cursor: Cursor, *, created_at: bool
    ) -> tuple[bytes, Moment]:
        """Return the answer to *cursor*, the same bytes for all readers with the same one, and what it is of."""
        memo, moment = f"{cursor.format()} {created_at}", self._service.feed.moment
        body = self._known_changes(publication).get(memo)
        if body is not None:
            return body, moment
        news = publication.news(cursor)
        if sum(live.lines for live in news) <= _AT_ONCE:
            pieces = self._written(publication, news, created_at=created_at)
            body = self._known_changes(publication)[memo] = b"".join(pieces)
            return body, moment
        async with self._rendering:  # one at a time: most who wait for it want the same bytes
            moment = self._service.feed.moment
            known = self._known_changes(publication)
            body = known.get(memo)
            if body is None:
                pieces = self._written(publication, publication.news(cursor), created_at=created_at)
                body = known[memo] = await _slowly(pieces)
            return body, moment

    def _known_changes(self, publication: Publication) -> dict[str, bytes]:
        """Return the answers that were written since anything changed."""
        state = (publication.version, self._service.feed.as_of)
        if state != self._changes_of or len(self._changes) > _MAX_MEMO:
            self._changes, self._changes_of = {}, state
        return self._changes

    def _written(
        self, publication: Publication, records: Iterable[AnyLive], *, created_at: bool = False
    ) -> Iterator[bytes]:
        feed = self._service.feed
        return written(
            records,
            cursor=publication.cursor(as_of=feed.as_of),
            salts=feed.salts,
            max_token_lifetime=self._service.terms.max_token_lifetime,
            created_at=created_at,
        )

    # --- GET /revocations/snapshot --------------------------------------------------------------------------

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer with everything in force."""
        await self._check_reader(request)
        if self._service.feed.publication is None:
            await self._service.feed.wait_for_news(ahead=True, seconds=FIRST_LIST_SECONDS)
        publication, moment = self._publication(), self._service.feed.moment
        self._note_poll(request, None)
        binary = BINARY_TYPE in request.headers.get(hdrs.ACCEPT, "")
        if not binary and len(publication) > MAX_JSON_RECORDS:
            raise Problem(406, f"the list is too long for JSON: ask for it with Accept: {BINARY_TYPE}")
        created_at = not binary and _asks_for_created_at(request)
        form = "binary" if binary else "json-created_at" if created_at else "json"
        etag = _etag(publication, form)
        headers: dict[str, str] = {hdrs.ETAG: etag, hdrs.VARY: "Accept, Accept-Encoding"}
        if _matches(request.headers.getall(hdrs.IF_NONE_MATCH, ()), etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers | self._stamp(moment))
        rendered, moment = await self._rendered(publication, form)
        return await self._answer(
            request,
            rendered.plain,
            moment,
            packed=rendered.packed,
            content_type=BINARY_TYPE if binary else _JSON,
            headers=headers | {hdrs.ETAG: rendered.etag, LOCATION_HEADER: SNAPSHOT_LOCATION},
        )

    async def _rendered(self, publication: Publication, form: str) -> tuple[_Rendered, Moment]:
        """Return the snapshot in *form*, rendered once for each version of what is published, and what it is of."""
        async with self._rendering:
            # Before anything is read of the list, and again for each who gets it while it is the same.
            version, moment = publication.version, self._service.feed.moment
            held = self._snapshots.get(form)
            if held is not None and held[0] == version:
                return held[1], moment
            etag = _etag(publication, form)
            if form == "binary":
                plain, packed = await self._binary(publication)
            else:
                pieces = self._written(publication, publication, created_at=form != "json")
                plain = await _slowly(pieces)
                packed = await asyncio.to_thread(_gzip, plain) if len(plain) >= _GZIP_FROM else None
            rendered = _Rendered(etag, plain, packed)
            self._snapshots[form] = (version, rendered)
            self._service.metrics.list_bytes.labels(form).set(len(plain))
            return rendered, moment

    async def _binary(self, publication: Publication) -> tuple[bytes, bytes | None]:
        feed = self._service.feed
        full = document_of(feed.revocations, cursor=publication.cursor(as_of=feed.as_of).format())
        if len(publication) <= _AT_ONCE:
            plain = format_binary_list(full)
        else:
            plain = await asyncio.to_thread(format_binary_list, full)
        # Fingerprints are as good as random: packing a long list takes a second and saves a tenth.
        pack = _GZIP_FROM <= len(plain) <= _GZIP_BINARY_UNTIL
        return plain, await asyncio.to_thread(_gzip, plain) if pack else None

    # --- GET /revocations/signed ----------------------------------------------------------------------------

    async def signed(self, request: web.Request) -> web.Response:
        """Answer with the signed list as last published."""
        await self._check_reader(request)
        if self._publisher is None:
            raise Problem(404, "no signed list is published here")
        placed = self._publisher.current
        if placed is None:
            raise Problem(503, "no signed list was published yet", retry_after=RETRY_SECONDS)
        etag = f'"{placed.digest}"'
        if _matches(request.headers.getall(hdrs.IF_NONE_MATCH, ()), etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={hdrs.ETAG: etag})
        headers = {hdrs.ETAG: etag, hdrs.CONTENT_TYPE: SIGNED_LIST_MEDIA_TYPE, hdrs.CACHE_CONTROL: "no-cache"}
        return web.Response(body=placed.body, headers=headers)

    # --- validators -----------------------------------------------------------------------------------------

    async def validators(self, request: web.Request) -> web.Response:
        """Tell which validators there are and what they have applied, as all replicas together know it."""
        caller = await authenticate(request, self._service.judge)
        try:
            authorize_reading(caller.info)
            views = await self._service.store.recall_members(VIEWS)
        except NotAllowed as error:
            raise _not_allowed(error) from None
        except StoreUnavailable:
            views = {}
        instances, now = self._service.instances, self._service.clock.now()
        views[instances.replica] = instances.view(now=now)
        validators = merge(views.values(), now=now)
        about = request.query.get("revocation")
        if about is not None:
            since = enforcing(views.values(), about)
            validators = [{**each, "enforced_at": since.get(each["name"])} for each in validators]
        body = {"now": round(now, 3), "replicas": len(views), "validators": validators}
        return web.Response(body=dump_json(body), content_type=_JSON)

    async def report(self, request: web.Request) -> web.Response:
        """Take what a validator tells of itself."""
        verified = not self._open_reports or bool(authorization_values(request))
        if verified:
            await authenticate(request, self._service.judge)
        try:
            report = parse_report(await read_body(request, limit=MAX_REPORT_BYTES))
        except InvalidRequest as error:
            raise Problem(400, str(error)) from None
        self._service.instances.reported(report, now=self._service.clock.now(), verified=verified)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    # --- what they share ------------------------------------------------------------------------------------

    async def _check_reader(self, request: web.Request) -> None:
        if self._read_scope is None:
            return
        caller = await authenticate(request, self._service.judge)
        if self._read_scope not in caller.info.scope:
            raise _not_allowed(NotAllowed("reading the list needs a scope", scope=self._read_scope))

    def _publication(self) -> Publication:
        publication = self._service.feed.publication
        if publication is None:
            raise Problem(503, "the store was not read yet: there is no list", retry_after=RETRY_SECONDS)
        return publication

    def _note_poll(self, request: web.Request, cursor: Cursor | None) -> None:
        instance = Instance.parse(request.headers.get(INSTANCE_HEADER))
        as_of = None if cursor is None else cursor.as_of / 1000
        self._service.instances.polled(instance, now=self._service.clock.now(), as_of=as_of)

    def _stamp(self, moment: Moment) -> dict[str, str]:
        return {LIST_HEADER: self._service.feed.stamp(moment).format()}

    async def _answer(
        self,
        request: web.Request,
        plain: bytes,
        moment: Moment,
        *,
        packed: bytes | None = None,
        content_type: str = _JSON,
        headers: dict[str, str] | None = None,
    ) -> web.Response:
        """
        Return *plain*, packed where the reader takes that.

        It is complete up to *moment*, noted before it was written, and its age is that of now: meanwhile there may be
        news that it does not have.
        """
        fields = dict(headers or {})
        body = plain
        pack = packed is not None or (len(plain) >= _GZIP_FROM and content_type == _JSON)
        if pack and _takes_gzip(request):
            body = packed if packed is not None else await self._pack(plain)
            fields[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, content_type=content_type, headers=fields | self._stamp(moment))

    async def _pack(self, plain: bytes) -> bytes:
        """Return *plain* packed; the same answer is packed once for all who get it."""
        packed = self._packed.get(plain)
        if packed is None:
            packed = await asyncio.to_thread(_gzip, plain)
            if len(self._packed) >= _MAX_PACKED:
                self._packed.clear()
            self._packed[plain] = packed
        return packed


async def _slowly(pieces: Iterator[bytes]) -> bytes:
    """Return *pieces* joined; others get the event loop between them."""
    made = []
    for piece in pieces:
        made.append(piece)
        await asyncio.sleep(0)
    return b"".join(made)


def _etag(publication: Publication, form: str) -> str:
    return f'"{publication.epoch}-{entries_digest(publication)}-{form}"'


def _is_connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _wait(request: web.Request) -> float:
    text = request.query.get("wait")
    if text is None:
        return DEFAULT_WAIT_SECONDS
    try:
        seconds = parse_seconds(text, name="wait")
    except InvalidRequest:
        raise Problem(400, f"wait is a number of seconds, at most {MAX_WAIT_SECONDS:g}") from None
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS)


def _asks_for_created_at(request: web.Request) -> bool:
    """Tell whether the reader knows `created_at`: one of the first version refuses a list that has it."""
    try:
        return parse_flag(request.query.get("created_at"), name="created_at")
    except InvalidRequest as error:
        raise Problem(400, str(error)) from None


def _matches(values: list[str] | tuple[str, ...], etag: str) -> bool:
    candidates = (item.strip().removeprefix("W/") for value in values for item in value.split(","))
    return any(candidate in {etag, "*"} for candidate in candidates)


def _takes_gzip(request: web.Request) -> bool:
    for item in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip().lower() == "gzip":
            return _quality(parameters) > 0
    return False


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if math.isfinite(quality) else 0.0


def _not_allowed(error: NotAllowed) -> Problem:
    challenge = bearer_challenge(error="insufficient_scope", scope=[error.scope])
    return Problem(403, str(error), headers=[("WWW-Authenticate", challenge)])
