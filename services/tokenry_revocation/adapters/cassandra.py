"""
`RevocationStore` on Apache Cassandra: several replicas of the service, no leader, no lock.

How nothing is missed, and nothing lost (docs/adr/0003-revocation-store.md has the argument):

1. A record is placed by a stamp of the *store's* clock (`StoreClock`), within S of every node's clock.
2. It is acknowledged only if a quorum confirmed the write within D of its stamp. Later confirmations count
   for nothing: it is written again under a new stamp, or refused. Both rows mean the same.
3. A read notes the store's time before it asks, reads at a quorum from D + 2 S below the position that it
   continues from, and names the noted time as its position. While that time is uncertain it stays where it is.
4. A full sweep reads every bucket that the registry names, and every write has registered its bucket first,
   so it relies on no clock at all.
5. The log is written before the index by id: what `get` finds is in the log.
6. Nothing is deleted, nothing is updated; a row ends by its time to live, long after its record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tokenry.errors import ConfigurationError
from tokenry_revocation.adapters.cassandra_schema import (
    DESCRIPTION_KEY,
    TTL_MARGIN_SECONDS,
    describe,
    description_query,
    environment_query,
    is_missing_schema,
    named_environment,
    no_store,
)
from tokenry_revocation.adapters.cassandra_session import UNSET, CqlSession
from tokenry_revocation.adapters.cassandra_statements import Statements
from tokenry_revocation.adapters.store_clock import Estimate, Sample, StoreClock
from tokenry_revocation.adapters.streams import merged
from tokenry_revocation.ports import Batch, StoredRecord, StoreUnavailable, check_lifetime, check_remembered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

    from tokenry.clock import Clock
    from tokenry_revocation.adapters.cassandra_options import CassandraOptions
    from tokenry_revocation.adapters.cassandra_schema import StoreDescription
    from tokenry_revocation.adapters.cassandra_session import Driver, Row

_log = logging.getLogger(__name__)

# The second attempt is for a write that came late or was lost; a third would keep the caller waiting longer
# than it takes to say "try again".
WRITE_ATTEMPTS: Final = 2
# Partitions read at the same time: enough to hide the network, too few to flood a node.
CONCURRENT_READS: Final = 8
# In a sweep, which is not in a hurry; it holds so many pages at a time.
CONCURRENT_SWEEPS: Final = 3
# A position further back than two hours is read like a sweep: by the buckets that exist.
MAX_DELTA_BUCKETS: Final = 12
MEASURE_SECONDS: Final = 10.0
# The narrowest of three answers: one may have been held up by a pause on either side.
_SAMPLES: Final = 3
_NARROW_MS: Final = 20.0
# Used buckets that a process remembers to have registered; more than one only around their boundary.
_REMEMBERED_BUCKETS: Final = 16
_LOG: Final = "log"


class CassandraStore:
    """
    The store in one keyspace. Make one with `open`.

    Everything runs on one event loop; the driver's threads are behind `CqlSession`.
    """

    def __init__(
        self,
        session: CqlSession,
        statements: Statements,
        *,
        select_description: Driver,
        description: StoreDescription,
        options: CassandraOptions,
        clock: Clock,
        store_clock: StoreClock,
    ) -> None:
        """Take over what `open` made."""
        self._session = session
        self._statements = statements
        self._select_description = select_description
        self._keyspace = options.keyspace
        self._description = description
        self._clock = clock
        self._store_clock = store_clock
        self._write_ms = round(options.write_seconds * 1000)
        self._skew_ms = round(options.skew_seconds * 1000)
        self._registered: dict[int, None] = {}
        self._reading = asyncio.Semaphore(CONCURRENT_READS)
        self._measuring: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, options: CassandraOptions, *, clock: Clock) -> CassandraStore:
        """
        Connect to the store that `create_schema` made, and keep measuring its clock.

        Args:
            options: Where it is.
            clock: Only its monotonic time decides anything.

        Raises:
            StoreUnavailable: No answer, no schema or one of another version; the text says what to do.
            ConfigurationError: The keyspace is not replicated to where it is read.
        """
        store_clock = StoreClock(clock, skew_ms=round(options.skew_seconds * 1000))
        async with contextlib.AsyncExitStack() as cleanup:
            session = await CqlSession.connect(options, timestamps=store_clock.timestamp_us)
            cleanup.push_async_callback(session.close)
            check_replication(session, options)
            select_description, description = await _description(session, options.keyspace)
            description = replace(description, environment=await _environment(session, options.keyspace))
            statements = await Statements.prepare(session, options.keyspace, description)
            store = cls(
                session,
                statements,
                select_description=select_description,
                description=description,
                options=options,
                clock=clock,
                store_clock=store_clock,
            )
            await store.measure()
            store.keep_measuring()
            cleanup.pop_all()
        return store

    @property
    def overlap(self) -> int:
        """D + 2 S, in milliseconds."""
        return self._write_ms + 2 * self._skew_ms

    @property
    def retention_seconds(self) -> int | None:
        """Within this, a record goes to the log; one that ends later goes among the lasting ones."""
        return self._description.retention_seconds

    @property
    def clock_error_ms(self) -> float | None:
        """How far the nodes' clocks are from the estimate at most: a metric to watch."""
        return self._store_clock.error_ms

    @property
    def clock_offset(self) -> float | None:
        """By how many seconds this machine's clock is ahead of the store's; None while that is unknown."""
        try:
            return self._clock.now() - self._store_clock.now_ms() / 1000
        except StoreUnavailable:
            return None

    # --- the log --------------------------------------------------------------------------------------------

    async def append(self, record: StoredRecord) -> None:
        """Write *record* at a quorum within D of its stamp: into the log, then into the index by id."""
        now = self._store_clock.writable_ms(self._clock.monotonic()) / 1000
        check_lifetime(record, now=now)
        ttl = self._lasting_ttl(record, now=now)
        if ttl is not None:
            await self._in_time(lambda stamp: self._write_lasting(record, stamp=stamp, ttl=ttl))
            return
        stamp = await self._in_time(lambda stamp: self._write_log(record, stamp=stamp))
        row = (record.id, record.body, record.in_force_until, stamp)
        await self._session.write(self._statements.insert_record, row)

    async def get(self, record_id: str) -> StoredRecord | None:
        """Look into the index by id and among the lasting records; the higher stamp counts."""
        found = await asyncio.gather(
            self._session.rows(self._statements.select_record, (record_id,)),
            self._session.rows(self._statements.select_lasting_record, (_LOG, record_id)),
        )
        return max((_record(row) for rows in found for row in rows), key=_position, default=None)

    async def read(self, after: int | None) -> Batch:
        """Read the log from the overlap below *after*, or whole, and all lasting records."""
        # Before any question is asked: whatever is acknowledged from here on belongs to the next read. While
        # the time is uncertain the position stays, and everything above it is read, wherever it was placed.
        now = self._store_clock.certain_ms()
        lasting, rows = await _all_of(
            [
                self._session.rows(self._statements.select_lasting, (_LOG,)),
                self._read_everything() if after is None else self._read_from(after - self.overlap, now=now),
            ]
        )
        records = sorted((_record(row) for row in (*lasting, *rows)), key=_position)
        return Batch(records=tuple(records), position=max(now or 0, after or 0))

    async def pages(self) -> AsyncGenerator[Batch, None]:
        """Yield all lasting records, then the log, some partitions at a time."""
        now = self._store_clock.certain_ms() or 0
        lasting = await self._session.rows(self._statements.select_lasting, (_LOG,))
        yield Batch(records=tuple(map(_record, lasting)), position=now)
        buckets = await self._session.rows(self._statements.select_buckets, (_LOG,))
        partitions = ((bucket, shard, 0) for (bucket,) in buckets for shard in range(self._description.shards))
        streams = (self._session.pages(self._statements.select_log, each) for each in partitions)
        async with contextlib.aclosing(merged(streams, at_once=CONCURRENT_SWEEPS)) as pages:
            async for rows in pages:
                yield Batch(records=tuple(map(_record, rows)), position=now)

    async def _in_time(self, write: Callable[[int], Coroutine[object, object, None]]) -> int:
        """Call *write* with a stamp until it returns within D of it; return the stamp."""
        failure = StoreUnavailable("append was not tried")
        for _ in range(WRITE_ATTEMPTS):
            begun = self._clock.monotonic()
            stamp = self._store_clock.writable_ms(begun)
            try:
                await write(stamp)
            except StoreUnavailable as error:
                failure = error
                continue
            # Readers reach back by D. Confirmed later, it may lie below where they look: as good as lost.
            if (self._clock.monotonic() - begun) * 1000 <= self._write_ms:
                return stamp
            failure = StoreUnavailable("Cassandra confirmed an append too late for readers to be sure of it")
        raise failure

    async def _write_log(self, record: StoredRecord, *, stamp: int) -> None:
        bucket = self._bucket(stamp)
        await self._register(bucket)
        row = (bucket, self._shard(record.id), stamp, record.id, record.body, record.in_force_until)
        await self._session.write(self._statements.insert_log, row)

    async def _write_lasting(self, record: StoredRecord, *, stamp: int, ttl: int) -> None:
        # Not null: that would be written as a deletion of the cell.
        until = UNSET if record.in_force_until is None else record.in_force_until
        row = (_LOG, record.id, record.body, until, stamp, ttl)
        await self._session.write(self._statements.insert_lasting, row)

    async def _register(self, bucket: int) -> None:
        if bucket in self._registered:
            return
        await self._session.write(self._statements.insert_bucket, (_LOG, bucket))
        self._registered[bucket] = None
        if len(self._registered) > _REMEMBERED_BUCKETS:
            del self._registered[next(iter(self._registered))]

    def _lasting_ttl(self, record: StoredRecord, *, now: float) -> int | None:
        """Return None for the log, else the row's time to live among the lasting ones; 0 means for ever."""
        if record.in_force_until is None:
            return 0
        life = record.in_force_until - now
        return None if life <= self._description.retention_seconds else math.ceil(life) + TTL_MARGIN_SECONDS

    async def _read_everything(self) -> list[Row]:
        buckets = await self._session.rows(self._statements.select_buckets, (_LOG,))
        return await self._read_buckets((bucket for (bucket,) in buckets), since=0)

    async def _read_from(self, since: int, *, now: int | None) -> list[Row]:
        first = self._bucket(max(0, since))
        if now is not None:
            # Another writer's estimate may be ahead by 2 S; one bucket more for what the argument leaves out.
            last = self._bucket(now + 2 * self._skew_ms) + 1
            if last - first <= MAX_DELTA_BUCKETS:
                return await self._read_buckets(range(first, last + 1), since=since)
        known = await self._session.rows(self._statements.select_buckets, (_LOG,))
        return await self._read_buckets((bucket for (bucket,) in known if bucket >= first), since=since)

    async def _read_buckets(self, buckets: Iterable[int], *, since: int) -> list[Row]:
        reads = [
            self._read_partition(bucket, shard, since=since)
            for bucket in buckets
            for shard in range(self._description.shards)
        ]
        return [row for rows in await _all_of(reads) for row in rows]

    async def _read_partition(self, bucket: int, shard: int, *, since: int) -> list[Row]:
        async with self._reading:
            return await self._session.rows(self._statements.select_log, (bucket, shard, since))

    def _bucket(self, stamp: int) -> int:
        return stamp // (self._description.bucket_seconds * 1000)

    def _shard(self, record_id: str) -> int:
        # Any even spread does; this one is the same in every process and every version of Python.
        return zlib.crc32(record_id.encode()) % self._description.shards

    # --- what is remembered ---------------------------------------------------------------------------------

    async def remember(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep *value* for a while."""
        check_remembered(value, ttl_seconds=ttl_seconds)
        await self._session.write(self._statements.insert_remembered, (key, value, ttl_seconds))

    async def recall(self, key: str) -> bytes | None:
        """Return the value unless it has expired."""
        rows = await self._session.rows(self._statements.select_remembered, (key,))
        return rows[0][0] if rows else None

    async def remember_member(self, group: str, name: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep *value* for a while, as part of a group."""
        check_remembered(value, ttl_seconds=ttl_seconds)
        await self._session.write(self._statements.insert_member, (group, name, value, ttl_seconds))

    async def recall_members(self, group: str) -> dict[str, bytes]:
        """Return the members that have not expired."""
        return dict(await self._session.rows(self._statements.select_members, (group,)))

    # --- the store itself -----------------------------------------------------------------------------------

    async def epoch(self) -> int:
        """Return the epoch that the store had when it was opened; `ping` notices another one."""
        return self._description.epoch

    async def environment(self) -> str | None:
        """Return the environment that the store named when it was opened."""
        return self._description.environment

    async def ping(self) -> None:
        """Read the description at a quorum: it must be the same store, and its clock good to write by."""
        rows = await self._session.rows(self._select_description, DESCRIPTION_KEY)
        found = describe(rows, keyspace=self._keyspace)
        if found.epoch != self._description.epoch:
            raise StoreUnavailable("the store was replaced by another one: restart the service")
        self._store_clock.writable_ms(self._clock.monotonic())

    async def close(self) -> None:
        """Stop measuring and end the session."""
        if self._measuring is not None:
            self._measuring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._measuring
            self._measuring = None
        await self._session.close()

    # --- its clock ------------------------------------------------------------------------------------------

    def keep_measuring(self, *, every: float = MEASURE_SECONDS) -> None:
        """Measure the store's clock every so many seconds until `close`."""
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._measure_for_ever(every), name="revocation-store-clock")

    async def measure(self) -> None:
        """
        Ask the coordinators for their time, and go by it if a majority of them told.

        Raises:
            StoreUnavailable: Fewer did; the last estimate is kept until it is stale.
        """
        begun = self._clock.monotonic()
        up, known = self._session.coordinators()
        samples = await asyncio.gather(*(self._sample(host) for host in up))
        told = [sample for sample in samples if sample is not None]
        if len(told) * 2 <= known:
            raise StoreUnavailable(f"only {len(told)} of {known} nodes told their time")
        self._store_clock.set(Estimate.of(told), at=begun)

    async def _measure_for_ever(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await self.measure()
            except StoreUnavailable as error:
                _log.warning("the clock of the revocation store was not measured: %s", error)
            except Exception:  # noqa: BLE001 -- the loop must outlive a surprise of the driver; it is logged
                _log.exception("the clock of the revocation store was not measured")

    async def _sample(self, host: Driver) -> Sample | None:
        best: Sample | None = None
        for _ in range(_SAMPLES):
            sent = self._clock.monotonic()
            try:
                told = await self._session.time_of(host)
            except StoreUnavailable:
                break
            sample = Sample.of(sent=sent, received=self._clock.monotonic(), told_ms=told)
            if best is None or sample.width_ms < best.width_ms:
                best = sample
            if best.width_ms <= _NARROW_MS:
                break
        return best


async def _description(session: CqlSession, keyspace: str) -> tuple[Driver, StoreDescription]:
    try:
        query = await session.prepare(description_query(keyspace, name="?"))
        return query, describe(await session.rows(query, DESCRIPTION_KEY), keyspace=keyspace)
    except StoreUnavailable as error:
        if is_missing_schema(error.__cause__):
            raise no_store(keyspace) from error
        raise


async def _environment(session: CqlSession, keyspace: str) -> str | None:
    try:
        query = await session.prepare(environment_query(keyspace, name="?"))
        return named_environment(await session.rows(query, DESCRIPTION_KEY))
    except StoreUnavailable as error:
        if is_missing_schema(error.__cause__):
            return None  # a release that named none has made the tables
        raise


def check_replication(session: CqlSession, options: CassandraOptions) -> None:
    """
    See that every datacentre that reads has replicas of its own.

    Raises:
        ConfigurationError: One has none, or the keyspace's strategy knows no datacentres.
    """
    if not options.reader_datacenters:
        return
    factors = session.replicated_datacenters(options.keyspace) or {}
    missing = sorted(set(options.reader_datacenters) - set(factors))
    if missing:
        raise ConfigurationError(
            [f"keyspace {options.keyspace} has no replicas in {', '.join(missing)}, where the store is read"]
        )


async def _all_of(calls: Iterable[Coroutine[object, object, list[Row]]]) -> list[list[Row]]:
    """Return all results in order; the first failure ends the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _record(row: Row) -> StoredRecord:
    record_id, body, in_force_until, stamp = row
    return StoredRecord(id=record_id, body=body, in_force_until=in_force_until, position=stamp)


def _position(record: StoredRecord) -> int:
    return record.position
