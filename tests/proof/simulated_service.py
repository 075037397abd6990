"""
One replica of the revocation service in the simulation: its own handlers, acceptance, feed and store adapter,
joined as its application joins them, without sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, MultiDict

from tests.proof.quorum_store import SimulatedSession
from tokenry.http.fetch import Failure as Failed
from tokenry.http.fetch import FetchFailed, Headers, Response
from tokenry.oauth.errors import OAuthError
from tokenry.serving.application import refusal_of
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.snapshots import Snapshot
from tokenry_revocation.adapters.cassandra_options import CassandraOptions
from tokenry_revocation.adapters.cassandra_statements import Statements
from tokenry_revocation.adapters.store_clock import StoreClock
from tokenry_revocation.app import SERVICE_PARTS, create_app
from tokenry_revocation.ports import RevocationStore, StoreUnavailable
from tokenry_revocation.reading import Readers
from tokenry_revocation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from aiohttp import web

    from tests.proof.parts import Parts
    from tests.proof.quorum_store import Cluster
    from tests.proof.virtual_time import SkewedClock
    from tokenry.jose.jwks import KeySet
    from tokenry_revocation.revoking import Terms

SKEW_SECONDS = 2.0
REQUEST_SECONDS = 4.0
WRITE_SECONDS = 2.0
SWEEP_SECONDS = 20.0  # so that what waits for a sweep is due within a token's life
EPOCH = 1_700_000_000


class FixedKeys:
    """The issuers' keys, known to everybody from the beginning."""

    def __init__(self, keys: KeySet, clock: SkewedClock) -> None:
        self._snapshot = Snapshot(value=keys, as_of=clock.now(), age_at_request=0.0, requested_at=clock.monotonic())

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def snapshot(self) -> Snapshot[KeySet]:
        return self._snapshot

    def request_refetch(self, issuer: str) -> None: ...

    def refetch(self, issuer: str) -> None: ...

    async def arefetch(self, issuer: str) -> None: ...


def _content(body: bytes) -> StreamReader:
    loop = asyncio.get_running_loop()
    content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    content.feed_data(body)
    content.feed_eof()
    return content


class _Connection:
    """The client's end is always there: who gives up cancels the request."""

    def is_closing(self) -> bool:
        return False


class SimulatedRequest:
    """What the handlers look at of a request."""

    transport = _Connection()

    def __init__(
        self, url: str, headers: Mapping[str, str], body: bytes, *, match_info: Mapping[str, str], app: web.Application
    ) -> None:
        self.app = app
        parts = urlsplit(url)
        self.headers: CIMultiDict[str] = CIMultiDict(headers)
        self.query: MultiDict[str] = MultiDict(parse_qsl(parts.query, keep_blank_values=True))
        self.query_string = parts.query
        self.content_length = len(body)
        self.content = _content(body)
        self.match_info = match_info


@dataclass(frozen=True, slots=True)
class Cutting:
    """What of a service's way to the cluster is broken."""

    cut: bool = False
    deaf: bool = False
    late: float = 0.0


class SimulatedService:
    """
    One replica; `start` and `kill` as often as wanted.

    Attributes:
        name: For histories.
        clock: Its clock.
        near: Number of the replica that it reads from first.
        running: Whether it takes connections.
        cutting: What of its way to the cluster is broken; kept across restarts.
    """

    def __init__(
        self,
        name: str,
        *,
        parts: Parts,
        cluster: Cluster,
        keys: KeySet,
        issuer: str,
        others: tuple[str, ...],
        max_token_lifetime: int,
        clock: SkewedClock,
        near: int,
    ) -> None:
        self.name = name
        self.near = near
        self.clock = clock
        self.running = False
        self.cutting = Cutting()
        self._parts = parts
        self._cluster = cluster
        self._keys = keys
        self.settings = Settings.from_environment({
            "TOKENRY_ISSUER": issuer,
            "TOKENRY_TRUSTED_ISSUERS": ",".join(others),
            "TOKENRY_STORE_URL": "cassandra://127.0.0.1:9042/simulated",
            "TOKENRY_REVOCATION_HASHING_SALT": "a salt of the simulation, and of nothing else",
            "TOKENRY_MAX_TOKEN_LIFETIME": f"{max_token_lifetime}s",
            "TOKENRY_CLOCK_SKEW": f"{SKEW_SECONDS:g}s",
            "TOKENRY_INSTANCE": name,
        })  # fmt: skip
        self.terms = self.settings.terms
        self._life: _Life | None = None
        self._session: SimulatedSession | None = None
        self._defect: str | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order: an address is no seed

    def start(self) -> None:
        """Start it; it answers at once, and lists nothing before its first read."""
        self.running = True
        self._spawn(self._open()).add_done_callback(self._ended)

    def defect(self) -> str | None:
        """Return what broke its reader, if it was no fault of the store: then a run would prove nothing."""
        fault = None if self._life is None else self._life.feed.fault
        return fault if fault is not None and "broke" in fault else self._defect

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._defect = repr(task.exception())

    def kill(self) -> None:
        """End it where it is: what it had sent is on its way, what it knew is gone."""
        self.running = False
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            task.cancel()
        self._life = None

    def cut(self, cutting: Cutting) -> None:
        """Break, or mend, its way to the cluster."""
        self.cutting = cutting
        if self._session is not None:
            self._session.cut, self._session.deaf, self._session.late = cutting.cut, cutting.deaf, cutting.late

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    async def _open(self) -> None:
        """Open the store, as often as it takes, then read it for ever."""
        life = _Life(self)
        self._session = life.session
        self.cut(self.cutting)
        while True:
            with contextlib.suppress(StoreUnavailable):
                await life.open()
                break
            await asyncio.sleep(2.0)
        self._life = life
        try:
            await life.feed.run()
        finally:
            life.close()

    # --- requests -----------------------------------------------------------------------------------------------

    async def answer(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """
        Return the answer to a request.

        Raises:
            FetchFailed: It does not run, or died over the request.
        """
        if not self.running:
            raise FetchFailed(Failed.CONNECT, "nobody listens")
        task = self._spawn(self._handle(method, url, headers, body))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not self.running:
                raise FetchFailed(Failed.DISCONNECTED, "it died") from None
            task.cancel()
            raise

    async def _handle(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        life = self._life
        if life is None:
            return Response(status=503)
        path = urlsplit(url).path
        handler, match_info = life.route(method, path)
        request = SimulatedRequest(url, headers, body, match_info=match_info, app=life.app)
        try:
            answer = await handler(request)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            retry = refusal.retry_after if isinstance(refusal, OAuthError) else None
            return Response(status=refusal.status, headers=Headers([("retry-after", str(retry))] if retry else []))
        content = answer.body if isinstance(answer.body, bytes) else b""
        fields = [(name, value) for name, value in answer.headers.items()]
        return Response(status=answer.status, headers=Headers(fields), body=content)


class _Life:
    """What one start of a service holds in memory."""

    def __init__(self, service: SimulatedService) -> None:
        parts, clock = service._parts, service.clock
        self._service = service
        self.options = CassandraOptions(
            contact_points=(("127.0.0.1", 9042),),
            keyspace="simulated",
            request_seconds=REQUEST_SECONDS,
            write_seconds=WRITE_SECONDS,
            skew_seconds=1.0,
        )
        self.store_clock = StoreClock(clock, skew_ms=round(self.options.skew_seconds * 1000))
        self.session = SimulatedSession(
            service._cluster,
            timestamps=self.store_clock.timestamp_us,
            request_seconds=REQUEST_SECONDS,
            near=service.near,
            read_replicas=parts.read_replicas,
            write_replicas=parts.write_replicas,
        )
        self._measuring: asyncio.Task[None] | None = None

    async def open(self) -> None:
        service, parts, clock, terms = self._service, self._service._parts, self._service.clock, self._service.terms
        description = parts.description(epoch=EPOCH, retention_seconds=terms.retention + 120, shards=1)
        statements = await Statements.prepare(self.session, self.options.keyspace, description)  # type: ignore[arg-type]
        store = parts.store(
            self.session,  # type: ignore[arg-type]
            statements,
            select_description=None,
            description=description,
            options=self.options,
            clock=clock,
            store_clock=self.store_clock,
        )
        await store.measure()
        store.keep_measuring()
        self._measuring = store._measuring
        app = self._application(FixedKeys(service._keys, clock), store)
        whole = app[SERVICE_PARTS]
        self.feed = parts.feed(
            store=store,
            clock=clock,
            skew=terms.skew,
            max_token_lifetime=terms.max_token_lifetime,
            fingerprints=whole.fingerprints,
            metrics=whole.metrics,
            sweep_seconds=SWEEP_SECONDS,
        )
        trusted = TrustedIssuer(issuer=terms.issuer, max_token_lifetime=terms.max_token_lifetime)
        judge = TokenValidator.from_sources(
            ValidationPolicy(issuers=(trusted,), audience=terms.issuer, list_warn_age=1e6, list_refuse_age=1e6),
            keys=whole.keys,
            revocations=self.feed,
            clock=clock,
        )
        acceptance = parts.acceptance(
            store=store,
            feed=self.feed,
            clock=clock,
            terms=terms,
            fingerprints=whole.fingerprints,
            metrics=whole.metrics,
        )
        joined = replace(whole, store=store, feed=self.feed, judge=judge, acceptance=acceptance)
        self.app = app
        self._revocations = parts.handlers(joined)
        self._readers = Readers(joined, read_scope=None, open_reports=True, max_held=1000)

    def _application(self, keys: FixedKeys, store: RevocationStore) -> web.Application:
        """Return the service's own application: whatever is not replaced is as it joins it."""

        async def open_store() -> RevocationStore:
            return store

        return create_app(
            self._service.settings,
            clock=self._service.clock,
            open_store=open_store,
            keys=keys,
            audit=lambda event, fields: None,
        )

    def close(self) -> None:
        if self._measuring is not None:
            self._measuring.cancel()

    def route(self, method: str, path: str) -> tuple[Callable[[Any], Awaitable[web.Response]], dict[str, str]]:
        match path.strip("/").split("/"):
            case ["revocations"] if method == "POST":
                return self._revocations.post, {}
            case ["revocations", name, "undo"]:
                return self._revocations.undo, {"id": name}
            case ["revocations", "changes"]:
                return self._readers.changes, {}
            case ["revocations", "snapshot"]:
                return self._readers.snapshot, {}
        raise AssertionError(path)


def cutoff_of(in_force_until: int, terms: Terms) -> int:
    """Return the cut-off that a rule without a block got, from when its record ends."""
    return in_force_until - terms.retention


def default_cutoffs(invoked: float, returned: float, terms: Terms) -> tuple[int, int]:
    """Return the cut-offs that a service within its half of the bound may have chosen in between."""
    half = terms.skew / 2
    margin = 1 + math.ceil(terms.skew)
    return math.floor(invoked - half) + margin, math.floor(returned + half) + margin
