"""
The Cassandra driver as coroutines, with everything bounded.

The driver has threads of its own and its defaults wait for ten seconds, read from a single replica and back
off to ten minutes. Here every statement is prepared and idempotent, so it may be sent twice (a slow node is
overtaken by speculative execution) and again (a lost answer), and every wait has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    HostDistance,
    TokenAwarePolicy,
)
from cassandra.query import UNSET_VALUE, SimpleStatement, tuple_factory

from tokenry_revocation.ports import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from tokenry_revocation.adapters.cassandra_options import CassandraOptions

# The driver ships without types; this says so once.
Driver: TypeAlias = Any
Row: TypeAlias = tuple[Any, ...]
# A column that an insert leaves alone.
UNSET: Final = UNSET_VALUE

# Rows decoded at a stretch hold the interpreter: 500 keep the event loop's lag below ten milliseconds.
FETCH_SIZE: Final = 500
# A healthy node answers in one millisecond; past fifty a second one is asked, past a hundred a third.
SPECULATIVE_DELAY_SECONDS: Final = 0.05
SPECULATIVE_ATTEMPTS: Final = 2
# The first attempt to reach a lost node after half a second, then doubling; the driver's own goes to 600 s.
RECONNECT_SECONDS: Final = (0.5, 10.0)
CONNECT_SECONDS: Final = 5.0
# A connection on which nothing comes back for so long is dropped, so that a silent node is noticed.
HEARTBEAT_SECONDS: Final = (5.0, 5.0)
# Cassandra 4.0 and later.
PROTOCOL_VERSION: Final = 5

# Not prepared: it goes to one named node. The wall clock itself, since now() never goes back with it.
_CLOCK: Final = SimpleStatement(
    "SELECT toUnixTimestamp(currentTimestamp()) FROM system.local", consistency_level=ConsistencyLevel.ONE
)
_PAGE_ATTEMPTS: Final = 3
_READ: Final = "read"
_WRITE: Final = "write"


class CqlSession:
    """
    A connected session. Its methods belong to one event loop.

    Made by `connect`; statements are written with `{keyspace}`-qualified names and prepared once.
    """

    def __init__(self, cluster: Driver, session: Driver) -> None:
        """Take over what `connect` made."""
        self._cluster = cluster
        self._session = session
        self._closed = False

    @classmethod
    async def connect(cls, options: CassandraOptions, *, timestamps: Callable[[], int]) -> CqlSession:
        """
        Connect to the cluster.

        Args:
            options: Where and how.
            timestamps: Gives the write timestamps, in microseconds.

        Raises:
            StoreUnavailable: No contact point answers, or it refuses us.
        """
        return await asyncio.to_thread(partial(_connect, options, timestamps=timestamps))

    async def prepare(self, statement: str) -> Driver:
        """Return *statement* prepared, to be given to `execute`; it must be idempotent."""
        prepared = await self._in_thread(self._session.prepare, statement)
        prepared.is_idempotent = True
        return prepared

    async def write(self, prepared: Driver, values: Row) -> None:
        """
        Execute a prepared write.

        Raises:
            StoreUnavailable: Not confirmed at the write consistency; it may have happened or not.
        """
        await self._fetch(prepared.bind(values), profile=_WRITE)

    async def rows(self, prepared: Driver, values: Row = ()) -> list[Row]:
        """
        Return all rows of a prepared query, read at a local quorum, page by page.

        Raises:
            StoreUnavailable: Not answered by a quorum in time.
        """
        return await self._fetch(prepared.bind(values), profile=_READ)

    async def pages(self, prepared: Driver, values: Row = ()) -> AsyncGenerator[Sequence[Row], None]:
        """
        Yield the rows of a prepared query a page at a time; the next one is under way meanwhile.

        Raises:
            StoreUnavailable: Not answered by a quorum in time.
        """
        statement = prepared.bind(values)
        page = await self._page(statement, profile=_READ)
        while page.more is not None:
            following = asyncio.ensure_future(self._page(statement, profile=_READ, after=page.more))
            following.add_done_callback(_no_surprise)
            try:
                yield page.rows
                page = await following
            finally:
                following.cancel()
        yield page.rows

    async def time_of(self, host: Driver) -> int:
        """Return what the clock of *host* says, in Unix milliseconds; raises StoreUnavailable."""
        ((told_ms,),) = await self._fetch(_CLOCK, profile=_READ, host=host)
        return int(told_ms)

    def coordinators(self) -> tuple[Sequence[Any], int]:
        """Return the nodes of the local datacentre that are up, and how many there are at all."""
        policy = self._cluster.profile_manager.default.load_balancing_policy
        every = [host for host in self._cluster.metadata.all_hosts() if policy.distance(host) == HostDistance.LOCAL]
        return [host for host in every if host.is_up is not False], len(every)

    def replicated_datacenters(self, keyspace: str) -> Mapping[str, int] | None:
        """Return the replicas of *keyspace* in each datacentre; None where the strategy does not say."""
        metadata = self._cluster.metadata.keyspaces.get(keyspace)
        factors = getattr(getattr(metadata, "replication_strategy", None), "dc_replication_factors", None)
        return None if factors is None else dict(factors)

    async def close(self) -> None:
        """End all connections and threads."""
        already, self._closed = self._closed, True
        if not already:
            await asyncio.to_thread(self._cluster.shutdown)

    async def _in_thread(self, call: Callable[..., Driver], *arguments: object) -> Driver:
        try:
            return await asyncio.to_thread(call, *arguments)
        except Exception as error:
            raise unavailable(error) from error

    async def _fetch(self, statement: Driver, *, profile: str, host: Driver = None) -> list[Row]:
        page = await self._page(statement, profile=profile, host=host)
        rows = list(page.rows)
        while page.more is not None:
            page = await self._page(statement, profile=profile, host=host, after=page.more)
            rows.extend(page.rows)
        return rows

    async def _page(self, statement: Driver, *, profile: str, host: Driver = None, after: bytes | None = None) -> _Page:
        """
        Return one page, asked for by a request of its own.

        The driver's own way to the next page is not taken: it uses one object for all of them, and where a slow
        node was overtaken by speculative execution, its late answer to the page before is taken for the next one,
        and a page in between can be lost.
        """
        for _ in range(_PAGE_ATTEMPTS):
            if self._closed:
                raise StoreUnavailable("the store is closed")
            waiter = _Waiter()
            response = self._session.execute_async(statement, execution_profile=profile, host=host, paging_state=after)
            response.add_callbacks(waiter.answer, waiter.fail, callback_args=(response,))
            page = await waiter.page()
            if page.certain:
                return page
        raise StoreUnavailable("Cassandra: this process stands still again and again while it asks")


@dataclass(frozen=True, slots=True)
class _Page:
    """
    One page of an answer.

    Attributes:
        rows: What is on it.
        more: Where the next one begins; None for the last one.
        certain: Whether both are of one answer.
    """

    rows: Sequence[Row]
    more: bytes | None
    certain: bool


class _Waiter:
    """Carries one page from the driver's thread to the coroutine that asked; what comes later is dropped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._page: asyncio.Future[_Page] = self._loop.create_future()
        self._thread = threading.get_ident()
        self._begun = self._loop.time()

    async def page(self) -> _Page:
        return await self._page

    def answer(self, rows: Sequence[Row] | None, response: Driver) -> None:
        # In the driver's thread no other answer comes in between. In our own, where the answer was faster than we were,
        # one might have: a second node is asked after a while.
        ours = threading.get_ident() == self._thread
        certain = not ours or self._loop.time() - self._begun < SPECULATIVE_DELAY_SECONDS
        page = _Page(rows or (), response._paging_state, certain)  # noqa: SLF001 -- has_more_pages tells no state
        self._hand_over(partial(_set_result, self._page, page))

    def fail(self, error: Exception) -> None:
        self._hand_over(partial(_set_exception, self._page, error))

    def _hand_over(self, call: Callable[[], None]) -> None:
        # A loop that was closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)


def _no_surprise(following: asyncio.Future[_Page]) -> None:
    """See the failure of a page that nobody wanted any more."""
    if not following.cancelled():
        following.exception()


def _set_result(waiting: asyncio.Future[_Page], page: _Page) -> None:
    if not waiting.done():  # whoever waited may have been cancelled, or has the answer of a faster node
        waiting.set_result(page)


def _set_exception(page: asyncio.Future[_Page], error: Exception) -> None:
    if not page.done():
        page.set_exception(unavailable(error))


def unavailable(error: Exception) -> StoreUnavailable:
    """Return the driver's *error* in the port's words; the driver's own text names nodes and never values."""
    return StoreUnavailable(f"Cassandra: {type(error).__name__}: {error}")


def connect_cluster(options: CassandraOptions, *, timestamps: Callable[[], int] | None = None) -> tuple[Driver, Driver]:
    """Return a connected (cluster, session) of the driver; blocks. Raises StoreUnavailable."""
    cluster = None
    try:
        cluster = Cluster(**_cluster_arguments(options, timestamps))
        session = cluster.connect()
        session.default_fetch_size = FETCH_SIZE
    except Exception as error:
        if cluster is not None:
            cluster.shutdown()
        raise unavailable(error) from error
    return cluster, session


def _connect(options: CassandraOptions, *, timestamps: Callable[[], int]) -> CqlSession:
    return CqlSession(*connect_cluster(options, timestamps=timestamps))


def _cluster_arguments(options: CassandraOptions, timestamps: Callable[[], int] | None) -> dict[str, Driver]:
    authentication = None
    if options.username is not None and options.password is not None:
        authentication = PlainTextAuthProvider(options.username, options.password.reveal())
    read = _profile(options, ConsistencyLevel.LOCAL_QUORUM)
    write = _profile(options, ConsistencyLevel.name_to_value[options.write_consistency])
    interval, timeout = HEARTBEAT_SECONDS
    return {
        "contact_points": list(options.contact_points),
        "auth_provider": authentication,
        "ssl_context": None if options.tls is None else options.tls.context(),
        "execution_profiles": {EXEC_PROFILE_DEFAULT: read, _READ: read, _WRITE: write},
        "reconnection_policy": ExponentialReconnectionPolicy(*RECONNECT_SECONDS),
        "timestamp_generator": timestamps,
        "connect_timeout": CONNECT_SECONDS,
        "control_connection_timeout": CONNECT_SECONDS,
        "idle_heartbeat_interval": interval,
        "idle_heartbeat_timeout": timeout,
        "protocol_version": PROTOCOL_VERSION,
    }


def _profile(options: CassandraOptions, consistency: int) -> ExecutionProfile:
    return ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(options.local_datacenter or "")),
        consistency_level=consistency,
        request_timeout=options.request_seconds,
        row_factory=tuple_factory,
        speculative_execution_policy=ConstantSpeculativeExecutionPolicy(
            SPECULATIVE_DELAY_SECONDS, SPECULATIVE_ATTEMPTS
        ),
    )
