"""The Cassandra store while its node hangs and after it was killed: a node of its own, that no other test sees."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cassandra import CassandraCluster
from tests.support.revocation_stores import cassandra_options
from tokenry.clock import SystemClock
from tokenry_revocation.adapters import cassandra_schema
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.ports import StoredRecord, StoreUnavailable

pytestmark = pytest.mark.cassandra

# A driver that waits for ten minutes before it tries again would show; a busy machine does not.
BACK_WITHIN_SECONDS = 60.0


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[CassandraCluster]:
    cluster = CassandraCluster(tmp_path / "cassandra")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def records(name: str, count: int) -> list[StoredRecord]:
    until = int(SystemClock().now()) + 3600
    ordinary = [StoredRecord(id=f"{name}{n}", body=b"{}", in_force_until=until) for n in range(count)]
    return [*ordinary, StoredRecord(id=f"{name}-key", body=b"{}", in_force_until=None)]


async def back_again(store: CassandraStore) -> float:
    """Return how many seconds it took until the store answered again."""
    began = time.monotonic()
    while True:
        try:
            await store.ping()
        except StoreUnavailable:
            if time.monotonic() - began > BACK_WITHIN_SECONDS:
                raise
            await asyncio.sleep(0.1)
        else:
            return time.monotonic() - began


async def test_F13_F19_a_hanging_node_is_unavailable_soon_and_a_killed_one_forgets_nothing(
    own_node: CassandraCluster,
) -> None:
    node = own_node.nodes[0]
    options = cassandra_options(own_node.endpoint, "tokenry", request_seconds=2.0, write_seconds=2.0)
    await cassandra_schema.create_schema(
        options, replication={"datacenter1": 1}, retention_seconds=7200, now=SystemClock().now()
    )
    store = await CassandraStore.open(options, clock=SystemClock())
    before = records("before", 300)
    await asyncio.gather(*(store.append(record) for record in before))

    # SIGSTOP: every port stays open and nothing answers.
    await asyncio.to_thread(node.pause)
    began = time.monotonic()
    operations = (store.append(records("during", 0)[0]), store.read(None), store.get("x"), store.ping())
    outcomes = await asyncio.gather(*operations, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 4
    # Two attempts of two seconds each for the append.
    assert time.monotonic() - began < 4 + 10
    await asyncio.to_thread(node.resume)
    await back_again(store)
    after_the_pause = records("resumed", 10)
    await asyncio.gather(*(store.append(record) for record in after_the_pause))

    # SIGKILL while appends are under way: what was acknowledged is there afterwards, the rest may be.
    acknowledged = {record.id for record in (*before, *after_the_pause)}

    async def append(record: StoredRecord) -> None:
        try:
            await store.append(record)
        except StoreUnavailable:
            return
        acknowledged.add(record.id)

    under_way = [asyncio.create_task(append(record)) for record in records("killed", 2_000)]
    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(node.kill)
    await asyncio.gather(*under_way)
    with pytest.raises(StoreUnavailable):
        await store.read(None)

    await asyncio.to_thread(node.start)
    await asyncio.to_thread(node.wait_until_ready)
    assert await back_again(store) < BACK_WITHIN_SECONDS

    sweep = await store.read(None)
    assert acknowledged <= {record.id for record in sweep.records}
    assert len(acknowledged) > 310
    fresh = records("fresh", 3)
    await asyncio.gather(*(store.append(record) for record in fresh))
    delta = await store.read(sweep.position)
    assert {record.id for record in fresh} <= {record.id for record in delta.records}
    await store.close()
