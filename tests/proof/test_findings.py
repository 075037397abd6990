"""Defects that the simulation found, each as the shortest story that shows it."""

import asyncio
import random

from tests.proof.quorum_store import Cluster, Replica, SimulatedSession
from tests.proof.virtual_time import SkewedClock, VirtualLoop, run
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.cassandra_options import CassandraOptions
from tokenry_revocation.adapters.cassandra_schema import StoreDescription
from tokenry_revocation.adapters.cassandra_statements import Statements
from tokenry_revocation.adapters.store_clock import StoreClock
from tokenry_revocation.ports import StoredRecord

START = 1_800_000_000.0
OPTIONS = CassandraOptions(contact_points=(("127.0.0.1", 9042),), keyspace="simulated")


def a_cluster() -> Cluster:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    replicas = [Replica(f"node{number}", SkewedClock(loop, start=START)) for number in range(3)]
    return Cluster(replicas=replicas, random=random.Random(1))  # noqa: S311


async def a_store(cluster: Cluster) -> CassandraStore:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    clock = SkewedClock(loop, start=START, uptime=77.0)
    store_clock = StoreClock(clock, skew_ms=1000)
    session = SimulatedSession(cluster, timestamps=store_clock.timestamp_us, request_seconds=2.0)
    description = StoreDescription(epoch=1, retention_seconds=3600)
    statements = await Statements.prepare(session, "simulated", description)
    store = CassandraStore(
        session,
        statements,
        select_description=None,
        description=description,
        options=OPTIONS,
        clock=clock,
        store_clock=store_clock,
    )
    await store.measure()
    return store


def a_record(name: str) -> StoredRecord:
    return StoredRecord(id=name, body=b"{}", in_force_until=int(START) + 3600)


def ids(records: tuple[StoredRecord, ...]) -> set[str]:
    return {record.id for record in records}


def a_reader_meets_a_wrong_clock(offset: float) -> set[str]:
    """
    One of three nodes is away and the clock of another is off, so the two that answer have no middle that
    means anything. Writers refuse; readers go on, and must not take that middle for the time.
    """

    async def story() -> set[str]:
        cluster = a_cluster()
        writer, reader = await a_store(cluster), await a_store(cluster)
        position = (await reader.read(None)).position
        cluster.replicas[0].up = False
        cluster.replicas[2].clock.offset = offset
        await reader.measure()
        for _ in range(30):  # longer than two buckets
            await asyncio.sleep(50.0)
            await reader.measure()
            position = (await reader.read(position)).position
        cluster.replicas[0].up, cluster.replicas[2].clock.offset = True, 0.0
        await writer.measure()
        cluster.replicas[0].up, cluster.replicas[2].clock.offset = False, offset
        await writer.append(a_record("taken by a service that has measured before"))
        seen = ids((await reader.read(position)).records)
        cluster.replicas[0].up, cluster.replicas[2].clock.offset = True, 0.0
        await asyncio.sleep(30.0)
        await reader.measure()
        await writer.measure()
        position = (await reader.read(position)).position
        await writer.append(a_record("taken when all was mended"))
        return seen | ids((await reader.read(position)).records)

    return run(story())


def test_a_reader_that_was_told_a_time_ahead_does_not_look_past_what_is_written_now():
    assert "taken when all was mended" in a_reader_meets_a_wrong_clock(600.0)


def test_a_reader_that_is_told_a_time_ahead_sees_what_is_written_meanwhile():
    assert "taken by a service that has measured before" in a_reader_meets_a_wrong_clock(600.0)


def test_a_reader_that_is_told_a_time_of_long_ago_sees_what_is_written_meanwhile():
    assert "taken by a service that has measured before" in a_reader_meets_a_wrong_clock(-1800.0)
