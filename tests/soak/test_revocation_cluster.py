"""The store on three nodes: one lost node costs nothing, two cost writes and reads for a while. A minute."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cassandra import CassandraCluster
from tests.support.revocation_stores import cassandra_options
from tokenry.clock import SystemClock
from tokenry_revocation.adapters import cassandra_schema
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.ports import StoredRecord, StoreUnavailable

pytestmark = [pytest.mark.cassandra, pytest.mark.cluster, pytest.mark.soak]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CassandraCluster]:
    nodes = CassandraCluster(tmp_path / "cassandra", nodes=3)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.kill()


class Traffic:
    """Two replicas append all the time, a third one reads after each moment; every failure is counted."""

    def __init__(self, stores: list[CassandraStore]) -> None:
        self._writers, self._reader = stores[:2], stores[2]
        self._chance = random.Random(5)  # noqa: S311 -- reproducible, not secret
        self.acknowledged: set[str] = set()
        self.failures: list[str] = []
        self.ended = False

    async def write(self, writer: CassandraStore, name: str) -> None:
        number = 0
        while not self.ended:
            until = int(SystemClock().now()) + 600
            record = StoredRecord(id=f"{name}-{number}", body=b"{}", in_force_until=until)
            number += 1
            try:
                await writer.append(record)
            except StoreUnavailable as error:
                self.failures.append(f"append: {error}")
            else:
                self.acknowledged.add(record.id)
            await asyncio.sleep(self._chance.random() * 0.02)

    async def read(self) -> None:
        position, seen, last = None, set[str](), False
        while not last:
            last = self.ended
            expected = set(self.acknowledged)
            try:
                batch = await self._reader.read(position)
            except StoreUnavailable as error:
                self.failures.append(f"read: {error}")
                last = False
            else:
                position = batch.position
                seen |= {record.id for record in batch.records}
                assert expected <= seen
            await asyncio.sleep(0.1)

    async def run(self) -> None:
        writing = (self.write(writer, f"w{number}") for number, writer in enumerate(self._writers))
        await asyncio.gather(self.read(), *writing)


async def test_F11_F12_F13_one_node_of_three_may_go_and_come_back_without_a_failure(cluster: CassandraCluster) -> None:
    options = cassandra_options(cluster.endpoint, "tokenry", request_seconds=4.0, write_seconds=4.0)
    await cassandra_schema.create_schema(
        options, replication={"datacenter1": 3}, retention_seconds=7200, now=SystemClock().now()
    )
    stores = [await CassandraStore.open(options, clock=SystemClock()) for _ in range(3)]
    traffic = Traffic(stores)
    running = asyncio.create_task(traffic.run())

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 -- what is waited for is a count
                await asyncio.sleep(0.05)

    async def goes_on() -> None:
        """Return when fifty more appends were acknowledged."""
        target = len(traffic.acknowledged) + 50
        await until(lambda: len(traffic.acknowledged) >= target)

    await goes_on()
    await asyncio.to_thread(cluster.nodes[0].kill)
    await goes_on()
    await stores[0].measure()
    await asyncio.to_thread(cluster.nodes[0].start)
    await asyncio.to_thread(cluster.nodes[0].wait_until_ready)
    await goes_on()
    await asyncio.to_thread(cluster.nodes[1].pause)
    await goes_on()
    await asyncio.to_thread(cluster.nodes[1].resume)
    assert traffic.failures == []

    # Two of three gone: no quorum, and no answer that pretends otherwise.
    for node in cluster.nodes[1:]:
        await asyncio.to_thread(node.kill)
    await until(lambda: {failure.partition(":")[0] for failure in traffic.failures} == {"append", "read"})
    for node in cluster.nodes[1:]:
        await asyncio.to_thread(node.start)
    for node in cluster.nodes[1:]:
        await asyncio.to_thread(node.wait_until_ready)
    await goes_on()

    traffic.ended = True
    await running
    for store in stores:
        await store.close()
