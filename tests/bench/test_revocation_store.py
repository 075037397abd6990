"""
What the stores cost: appends a second, one after the other and many at once, and reads.

Run by `make bench`, or with `pytest tests/bench/test_revocation_store.py -m bench -s`. Nothing is asserted but that
all records are there: the numbers are for people, and belong to the machine that they were measured on.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.revocation_stores import cassandra_options, create_cassandra_schema
from tokenry.clock import SystemClock
from tokenry_revocation.adapters import sqlite
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.memory import MemoryStore
from tokenry_revocation.adapters.sqlite import SqliteStore
from tokenry_revocation.ports import RevocationStore, StoredRecord

pytestmark = pytest.mark.bench

ALONE = 300
TOGETHER = 10_000
AT_ONCE = 256
# What a record of the service takes.
BODY = b"x" * 500


@pytest.fixture(params=["memory", "sqlite", "cassandra"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RevocationStore]:
    clock = SystemClock()
    opened: RevocationStore
    match request.param:
        case "memory":
            opened = MemoryStore(clock)
        case "sqlite":
            sqlite.create_schema(tmp_path / "bench.db", now=clock.now())
            opened = await SqliteStore.open(tmp_path / "bench.db", clock=clock)
        case _:
            endpoint = request.getfixturevalue("cassandra")
            keyspace = request.getfixturevalue("cassandra_keyspace")
            await create_cassandra_schema(endpoint, keyspace)
            opened = await CassandraStore.open(cassandra_options(endpoint, keyspace), clock=clock)
    yield opened
    await opened.close()


def a_record() -> StoredRecord:
    return StoredRecord(id=uuid.uuid4().hex, body=BODY, in_force_until=int(time.time()) + 3600)


async def seconds_of(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def longest_wait_of_the_loop_during(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the seconds that *call* took, and for how long the event loop answered nobody meanwhile."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - began)

    ticking = asyncio.create_task(tick())
    took = await seconds_of(call)
    ticking.cancel()
    return took, worst


async def test_the_cost_of_a_store(store: RevocationStore) -> None:
    name = type(store).__name__
    before = (await store.read(None)).position
    alone = [await seconds_of(lambda: store.append(a_record())) for _ in range(ALONE)]
    limit = asyncio.Semaphore(AT_ONCE)

    async def append() -> None:
        async with limit:
            await store.append(a_record())

    async def append_all() -> None:
        await asyncio.gather(*(append() for _ in range(TOGETHER)))

    together = await seconds_of(append_all)
    full, full_lag = await longest_wait_of_the_loop_during(lambda: store.read(before))
    sweep, sweep_lag = await longest_wait_of_the_loop_during(lambda: store.read(None))
    batch = await store.read(None)
    # Until nothing is left within the overlap, so that a delta has nothing to bring.
    position = batch.position + store.overlap
    empty = [await seconds_of(lambda: store.read(position)) for _ in range(50)]

    print(  # noqa: T201 -- what a benchmark is for
        f"\n{name}: append alone {1000 * statistics.median(alone):.2f} ms"
        f" (p99 {1000 * statistics.quantiles(alone, n=100)[98]:.2f} ms);"
        f" {AT_ONCE} at once {TOGETHER / together:,.0f}/s;"
        f"\n  read of {len(batch.records):,} records {1000 * full:.0f} ms (loop held for {1000 * full_lag:.0f} ms);"
        f" sweep {1000 * sweep:.0f} ms ({1000 * sweep_lag:.0f} ms);"
        f" empty read {1000 * statistics.median(empty):.2f} ms"
    )
    assert len({record.id for record in batch.records}) == ALONE + TOGETHER
