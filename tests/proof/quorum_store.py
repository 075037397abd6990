"""
Three replicas of a wide-column store, as far as the revocation store's adapter can tell them from Cassandra.

The adapter's own statements are prepared and executed here. What is simulated is what decides about them: every
row is kept three times, each replica hears of a write in its own time or never, the last write of a row wins, a
row ends by its time to live as its replica's clock sees it, a write is confirmed by so many replicas, a read asks
so many and repairs what it finds different among them before it answers, and hints reach a replica that was
away late, or not at all.

Not simulated: compaction, paging, schema changes, lightweight transactions (none is used).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenry_revocation.adapters.cassandra_session import UNSET
from tokenry_revocation.ports import StoreUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, Callable, Sequence

    from tests.proof.virtual_time import SkewedClock

REPLICAS: Final = 3
QUORUM: Final = 2
_ELSEWHERE: Final = 0.002  # share of reads that ask others than usual

# Partition key and clustering key of each table (schema.cql).
KEYS: Final = {
    "store": (("name",), ()),
    "store_environment": (("name",), ()),
    "log": (("bucket", "shard"), ("stamp", "id")),
    "log_buckets": (("log",), ("bucket",)),
    "records": (("id",), ()),
    "lasting": (("log",), ("id", "stamp")),
    "remembered": (("name",), ()),
    "remembered_members": (("in_group",), ("name",)),
}
_INSERT = re.compile(r"INSERT INTO \w+\.(\w+) \(([^)]*)\) VALUES \(([^)]*)\)(?: USING TTL (\d+|\?))?", re.DOTALL)
_SELECT = re.compile(r"SELECT (.+) FROM \w+\.(\w+) WHERE (.+)", re.DOTALL)
_CONDITION = re.compile(r"(\w+) (=|>=) \?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """
    A prepared statement.

    Attributes:
        table: What it is about.
        columns: Which it writes or returns.
        ttl: Seconds that an inserted row lives; None for ever; "?" for the last value.
        conditions: Of a query: columns with `=` or `>=`, in the order of the values.
    """

    table: str
    columns: tuple[str, ...]
    ttl: int | str | None = None
    conditions: tuple[tuple[str, str], ...] = ()


def prepare(text: str) -> Statement:
    """Return the statement *text*; one that is not understood is an error, not a guess."""
    if insert := _INSERT.fullmatch(text):
        columns = _listed(insert[2])
        assert len(columns) == insert[3].count("?"), text
        ttl = int(insert[4]) if insert[4] and insert[4] != "?" else insert[4]
        return Statement(table=insert[1], columns=columns, ttl=ttl)
    select = _SELECT.fullmatch(text)
    assert select is not None, text
    conditions = tuple(_CONDITION.fullmatch(each) for each in select[3].split(" AND "))
    assert all(conditions), text
    return Statement(
        table=select[2],
        columns=_listed(select[1]),
        conditions=tuple((each[1], each[2]) for each in conditions if each),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


@dataclass(frozen=True, slots=True)
class Row:
    """One version of a row: a later `timestamp` replaces it."""

    values: dict[str, Any]
    timestamp: int
    ends_at: float


@dataclass(frozen=True, slots=True)
class Mutation:
    """A row on its way to a replica."""

    table: str
    partition: tuple[Any, ...]
    clustering: tuple[Any, ...]
    row: Row


Partition = dict[tuple[Any, ...], Row]


class Replica:
    """
    One node's rows.

    Attributes:
        up: Whether it answers.
        frozen: Whether it is paused: hears everything, and does it when it goes on.
        slow_reads: Seconds that it takes to answer, on top of the network.
        slow_writes: Seconds until it has a mutation, on top of the network.
        loses: Share of mutations that it drops although it is up.
        clock: Its clock.
    """

    def __init__(self, name: str, clock: SkewedClock) -> None:
        self.name = name
        self.clock = clock
        self.up = True
        self.frozen = False
        self.slow_reads = 0.0
        self.slow_writes = 0.0
        self.loses = 0.0
        self._tables: dict[tuple[str, tuple[Any, ...]], Partition] = {}

    @property
    def answers(self) -> bool:
        return self.up and not self.frozen

    async def thawed(self) -> None:
        """Return when it is not paused; whoever waits here mostly times out."""
        while self.frozen:  # noqa: ASYNC110 -- looks twice a second, as a process does that goes on
            await asyncio.sleep(0.5)

    def apply(self, mutation: Mutation) -> None:
        partition = self._tables.setdefault((mutation.table, mutation.partition), {})
        held = partition.get(mutation.clustering)
        if held is None or (held.timestamp, held.ends_at) < (mutation.row.timestamp, mutation.row.ends_at):
            partition[mutation.clustering] = mutation.row

    def select(self, table: str, partition: tuple[Any, ...]) -> Partition:
        now = self.clock.now()
        rows = self._tables.get((table, partition), {})
        return {clustering: row for clustering, row in rows.items() if row.ends_at > now}


@dataclass(slots=True)
class Cluster:
    """
    The replicas, and what is on its way to them.

    Attributes:
        replicas: Three.
        random: Where every delay comes from.
        network: Longest seconds that a message takes; some take as long.
        hints_arrive: Share of missed mutations that are delivered later.
        read_repair: Whether a read mends what it finds different before it answers.
    """

    replicas: list[Replica]
    random: random.Random
    network: float = 0.02
    hints_arrive: float = 0.7
    read_repair: bool = True

    def delay(self) -> float:
        """Return how long one message takes: mostly little."""
        fast = self.network * 0.1
        return self.random.uniform(0.0, fast if self.random.random() < 0.9 else self.network)

    def send(self, mutation: Mutation, replica: Replica) -> asyncio.Future[None]:
        """Let *replica* hear of *mutation*; the future is done when it has confirmed."""
        loop = asyncio.get_running_loop()
        confirmed: asyncio.Future[None] = loop.create_future()

        def arrive() -> None:
            if replica.up and replica.frozen:
                loop.call_later(1.0, arrive)  # it waits in the socket of a stopped process
            elif not replica.up:
                self._hint(mutation, replica)
            elif self.random.random() < replica.loses:
                pass  # dropped under load, and nobody wrote a hint
            else:
                replica.apply(mutation)
                loop.call_later(self.delay(), _confirm, confirmed)

        loop.call_later(self.delay() + replica.slow_writes, arrive)
        return confirmed

    def _hint(self, mutation: Mutation, replica: Replica) -> None:
        """Deliver what was missed some time after the replica is back: late, out of order, or never."""
        if self.random.random() > self.hints_arrive:
            return
        loop = asyncio.get_running_loop()

        def again() -> None:
            if replica.answers:
                replica.apply(mutation)
            else:
                loop.call_later(self.random.uniform(5.0, 20.0), again)

        loop.call_later(self.random.uniform(5.0, 20.0), again)


def _confirm(confirmed: asyncio.Future[None]) -> None:
    if not confirmed.done():
        confirmed.set_result(None)


class SimulatedSession:
    """
    What the adapter's `CqlSession` is, for one process of the service.

    Attributes:
        cut: Whether nothing of this process reaches the cluster.
        deaf: Whether what it sends arrives, and no answer comes back.
        late: Seconds that every answer takes to come back.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        timestamps: Callable[[], int],
        request_seconds: float,
        near: int = 0,
        read_replicas: int = QUORUM,
        write_replicas: int = QUORUM,
    ) -> None:
        self._cluster = cluster
        self._timestamps = timestamps
        self._seconds = request_seconds
        self._near = near
        self._read_replicas = read_replicas
        self._write_replicas = write_replicas
        self.cut = False
        self.deaf = False
        self.late = 0.0

    async def prepare(self, statement: str) -> Statement:
        return prepare(statement)

    async def write(self, prepared: Statement, values: Sequence[Any]) -> None:
        """Send it to all replicas; return when enough have confirmed."""
        await self._reach()
        cluster = self._cluster
        mutation = self._mutation(prepared, tuple(values))
        confirmations = [cluster.send(mutation, replica) for replica in cluster.replicas]
        if sum(replica.up for replica in cluster.replicas) < self._write_replicas:
            await asyncio.sleep(cluster.delay())
            raise StoreUnavailable("not enough replicas are up")  # and yet those that are have been told
        await self._answered(_enough(confirmations, self._write_replicas))

    async def rows(self, prepared: Statement, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Ask some replicas, mend the differences between them, return what they have together."""
        await self._reach()
        cluster = self._cluster
        up = [replica for replica in cluster.replicas if replica.up]
        if len(up) < self._read_replicas:
            await asyncio.sleep(cluster.delay())
            raise StoreUnavailable("not enough replicas are up")
        asked = self._nearest(up)
        partition, wanted = _split(prepared, tuple(values))
        found = await self._answered(self._read(prepared.table, partition, asked))
        merged = _merged(found)
        if cluster.read_repair:
            await self._answered(self._repair(prepared.table, partition, asked, found, merged))
        rows = [merged[clustering].values for clustering in sorted(merged)]
        return [tuple(row.get(column) for column in prepared.columns) for row in rows if wanted(row)]

    async def pages(
        self, prepared: Statement, values: Sequence[Any] = ()
    ) -> AsyncGenerator[list[tuple[Any, ...]], None]:
        """Return the same in one page."""
        yield await self.rows(prepared, values)

    def _nearest(self, up: list[Replica]) -> list[Replica]:
        """Return whom to read: mostly the same ones, as drivers and coordinators do."""
        random = self._cluster.random
        quick = [replica for replica in up if not replica.frozen]
        # Mostly a stopped replica is overtaken by a speculative read of another one.
        choice = quick if len(quick) >= self._read_replicas and random.random() < 0.8 else up
        if random.random() < _ELSEWHERE:
            return random.sample(choice, self._read_replicas)
        every = self._cluster.replicas
        order = [*every[self._near :], *every[: self._near]]
        return [replica for replica in order if replica in choice][: self._read_replicas]

    async def _read(self, table: str, partition: tuple[Any, ...], asked: list[Replica]) -> list[Partition]:
        return list(await asyncio.gather(*(self._read_one(replica, table, partition) for replica in asked)))

    async def _read_one(self, replica: Replica, table: str, partition: tuple[Any, ...]) -> Partition:
        """A slow replica may be slow before it looks, or with the answer."""
        before = replica.slow_reads * self._cluster.random.choice((0.0, 1.0))
        await asyncio.sleep(self._cluster.delay() + before)
        await replica.thawed()
        if not replica.up:
            raise StoreUnavailable("a replica went away")
        found = replica.select(table, partition)
        await asyncio.sleep(self._cluster.delay() + replica.slow_reads - before)
        return found

    async def _repair(
        self,
        table: str,
        partition: tuple[Any, ...],
        asked: list[Replica],
        found: list[Partition],
        merged: Partition,
    ) -> None:
        for replica, rows in zip(asked, found, strict=True):
            missing = [clustering for clustering, row in merged.items() if rows.get(clustering) != row]
            mutations = [Mutation(table, partition, each, merged[each]) for each in missing]
            await asyncio.gather(*(self._cluster.send(each, replica) for each in mutations))

    async def time_of(self, host: Replica) -> int:
        """Return the clock of *host* in milliseconds."""
        await self._reach()
        if not host.up:
            raise StoreUnavailable("the host is away")
        told: int = await self._answered(self._time(host))
        return told

    async def _time(self, host: Replica) -> int:
        await asyncio.sleep(self._cluster.delay())
        await host.thawed()
        told = int(host.clock.now() * 1000)
        await asyncio.sleep(self._cluster.delay() + host.slow_reads / 10)
        return told

    def coordinators(self) -> tuple[Sequence[Replica], int]:
        """Return the replicas that seem to be up, and how many there are."""
        return [replica for replica in self._cluster.replicas if replica.up], len(self._cluster.replicas)

    def replicated_datacenters(self, keyspace: str) -> dict[str, int] | None:
        return None

    async def close(self) -> None:
        """There is nothing to close."""

    async def _reach(self) -> None:
        if self.cut:
            await asyncio.sleep(self._seconds)
            raise StoreUnavailable("no answer in time")

    async def _answered(self, work: Any) -> Any:
        """Wait for *work* as long as the driver would; what was sent stays sent."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await work
                await asyncio.sleep(self.late)
                if self.deaf:
                    await asyncio.sleep(self._seconds * 2)
                return answer
        except TimeoutError:
            raise StoreUnavailable("no answer in time") from None

    def _mutation(self, prepared: Statement, values: tuple[Any, ...]) -> Mutation:
        row = {name: None if value is UNSET else value for name, value in zip(prepared.columns, values, strict=False)}
        ttl = values[-1] if prepared.ttl == "?" else prepared.ttl
        coordinator = self._cluster.random.choice(self._cluster.replicas)
        ends_at = coordinator.clock.now() + float(ttl) if ttl else float("inf")
        partition, clustering = KEYS[prepared.table]
        return Mutation(
            prepared.table,
            tuple(row[name] for name in partition),
            tuple(row[name] for name in clustering),
            Row(row, self._timestamps(), ends_at),
        )


async def _enough(confirmations: list[asyncio.Future[None]], wanted: int) -> None:
    waiting: list[asyncio.Future[None]] = confirmations
    while len(confirmations) - len(waiting) < wanted:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting = [each for each in waiting if not each.done()]


def _merged(found: list[Partition]) -> Partition:
    merged: Partition = {}
    for rows in found:
        for clustering, row in rows.items():
            held = merged.get(clustering)
            if held is None or (held.timestamp, held.ends_at) < (row.timestamp, row.ends_at):
                merged[clustering] = row
    return merged


def _split(prepared: Statement, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], Callable[[dict[str, Any]], bool]]:
    """Return the partition that a query is about, and what its rows must be."""
    conditions = [(name, sign, value) for (name, sign), value in zip(prepared.conditions, values, strict=True)]
    by_name = {name: value for name, sign, value in conditions if sign == "="}
    partition = tuple(by_name[name] for name in KEYS[prepared.table][0])

    def wanted(row: dict[str, Any]) -> bool:
        return all(row[name] == value if sign == "=" else row[name] >= value for name, sign, value in conditions)

    return partition, wanted
