"""What readers get over HTTP: Plan B's list, changes, snapshots, and the view of all validators."""

from __future__ import annotations

import asyncio
import math
import zlib
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from tokenry.jose.encoding import dump_json
from tokenry.oauth.errors import bearer_challenge
from tokenry.revocation.signed import SIGNED_LIST_MEDIA_TYPE
from tokenry.revocation.wire import BINARY_TYPE, LIST_HEADER, ListDocument, document_of, format_binary_list, format_list
from tokenry.serving.application import authorization_values, deadline, read_body
from tokenry.serving.problem import Problem
from tokenry_revocation.authorization import NotAllowed, authorize_reading
from tokenry_revocation.callers import authenticate
from tokenry_revocation.instances import INSTANCE_HEADER, VIEWS, Instance, enforcing, merge, parse_report
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.publication import Cursor, CursorGone, document, entries_digest
from tokenry_revocation.requests import InvalidRequest, parse_seconds

if TYPE_CHECKING:
    from tokenry_revocation.handlers import Service
    from tokenry_revocation.publication import Publication
    from tokenry_revocation.publisher import Publisher

DEFAULT_WAIT_SECONDS: Final = 25.0
MAX_WAIT_SECONDS: Final = 50.0  # common balancers cut a silent connection after 60
MAX_REPORT_BYTES: Final = 64 * 1024
LOOK_SECONDS: Final = 5.0  # a reader that has gone gives its place away after so long
RETRY_SECONDS: Final = 1  # the first read of the store takes that long, or the store is away
_OFF_LOOP: Final = 500  # records from which rendering is done in a thread
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
        self._changes: dict[tuple[str, int], bytes] = {}
        self._changes_of: tuple[int, float] = (-1, 0.0)

    # --- GET /revocations?from= -----------------------------------------------------------------------------

    async def plan_b(self, request: web.Request) -> web.Response:
        """Answer a validator of Plan B."""
        await self._check_reader(request)
        try:
            since = parse_seconds(request.query.get("from"), name="from")
        except InvalidRequest as error:
            raise Problem(400, str(error)) from None
        publication = self._publication()
        self._note_poll(request, None)
        body = publication.plan_b.body(after=since, now=self._service.clock.now())
        return await self._answer(request, body)

    # --- GET /revocations/changes ---------------------------------------------------------------------------

    @deadline(None)
    async def changes(self, request: web.Request) -> web.Response:
        """Answer what is new since a cursor, as soon as there is something, or the wait is over."""
        await self._check_reader(request)
        wait = _wait(request)
        publication = self._publication()
        try:
            cursor = Cursor.parse(request.query.get("after", ""), epoch=publication.epoch)
            self._note_poll(request, cursor)
            if not self._has_news(publication, cursor):
                await self._hold(request, publication, cursor, wait)
            body = self._render_changes(publication, cursor)
        except CursorGone as error:
            raise Problem(410, str(error)) from None
        return await self._answer(request, body)

    def _has_news(self, publication: Publication, cursor: Cursor) -> bool:
        """
        Tell whether there is something to say; a reader that is ahead of this replica knows more than it
        does.
        """
        return cursor.position <= publication.position and bool(publication.news(cursor))

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

    def _render_changes(self, publication: Publication, cursor: Cursor) -> bytes:
        """Return the answer to *cursor*; the same bytes for all readers with the same one."""
        feed = self._service.feed
        state = (publication.version, feed.as_of)
        if state != self._changes_of or len(self._changes) > _MAX_MEMO:
            self._changes, self._changes_of = {}, state
        memo = (f"{cursor.digest:x}", cursor.position)
        body = self._changes.get(memo)
        if body is None:
            news = publication.news(cursor)
            body = self._changes[memo] = format_list(
                document(
                    news,
                    cursor=publication.cursor(as_of=feed.as_of),
                    salts=feed.salts,
                    max_token_lifetime=self._service.terms.max_token_lifetime,
                )
            )
        return body

    # --- GET /revocations/snapshot --------------------------------------------------------------------------

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer with everything in force."""
        await self._check_reader(request)
        publication = self._publication()
        self._note_poll(request, None)
        binary = BINARY_TYPE in request.headers.get(hdrs.ACCEPT, "")
        form = "binary" if binary else "json"
        etag = f'"{publication.epoch}-{entries_digest(publication)}-{form}"'
        headers: dict[str, str] = {hdrs.ETAG: etag, hdrs.VARY: "Accept, Accept-Encoding"}
        if _matches(request.headers.getall(hdrs.IF_NONE_MATCH, ()), etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers | self._stamp())
        rendered = await self._rendered(publication, form)
        return await self._answer(
            request,
            rendered.plain,
            packed=rendered.packed,
            content_type=BINARY_TYPE if binary else _JSON,
            headers=headers | {hdrs.ETAG: rendered.etag},
        )

    async def _rendered(self, publication: Publication, form: str) -> _Rendered:
        """Return the snapshot in *form*, rendered once for each version of what is published."""
        async with self._rendering:
            held = self._snapshots.get(form)
            if held is not None and held[0] == publication.version:
                return held[1]
            version, feed, terms = publication.version, self._service.feed, self._service.terms
            etag = f'"{publication.epoch}-{entries_digest(publication)}-{form}"'
            cursor = publication.cursor(as_of=feed.as_of)
            if form == "binary":
                full = document_of(feed.revocations, cursor=cursor.format())
            else:
                full = document(
                    list(publication),
                    cursor=cursor,
                    salts=feed.salts,
                    max_token_lifetime=terms.max_token_lifetime,
                )
            render = partial(_render, full, binary=form == "binary", etag=etag)
            rendered = await asyncio.to_thread(render) if len(publication) > _OFF_LOOP else render()
            self._snapshots[form] = (version, rendered)
            self._service.metrics.list_bytes.labels(form).set(len(rendered.plain))
            return rendered

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
        validators, _ = merge(views.values(), now=now)
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

    def _stamp(self) -> dict[str, str]:
        return {LIST_HEADER: self._service.feed.stamp().format()}

    async def _answer(
        self,
        request: web.Request,
        plain: bytes,
        *,
        packed: bytes | None = None,
        content_type: str = _JSON,
        headers: dict[str, str] | None = None,
    ) -> web.Response:
        """Return *plain*, packed where the reader takes that; the list's age is as of this moment."""
        fields = dict(headers or {})
        body = plain
        if len(plain) >= _GZIP_FROM and _takes_gzip(request):
            body = packed if packed is not None else await self._pack(plain)
            fields[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, content_type=content_type, headers=fields | self._stamp())

    async def _pack(self, plain: bytes) -> bytes:
        """Return *plain* packed; the same answer is packed once for all who get it."""
        packed = self._packed.get(plain)
        if packed is None:
            packed = await asyncio.to_thread(_gzip, plain)
            if len(self._packed) >= _MAX_PACKED:
                self._packed.clear()
            self._packed[plain] = packed
        return packed


def _render(full: ListDocument, *, binary: bool, etag: str) -> _Rendered:
    plain = format_binary_list(full) if binary else format_list(full)
    return _Rendered(etag, plain, _gzip(plain) if len(plain) >= _GZIP_FROM else None)


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
