"""
What every `RevocationStore` promises, tried on memory, on SQLite and on a real Cassandra.

A *backend* is one store with as many replicas as a test opens: connections of their own to the same records.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.revocation_stores import cassandra_options, create_cassandra_schema
from tokenry.clock import SystemClock
from tokenry.testing.clock import FakeClock
from tokenry_revocation.adapters import sqlite
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.memory import MemoryLog, MemoryStore
from tokenry_revocation.adapters.sqlite import SqliteStore
from tokenry_revocation.ports import (
    MAX_BODY_BYTES,
    MAX_TTL_SECONDS,
    MAX_VALUE_BYTES,
    Batch,
    RecordOutlivesStore,
    RevocationStore,
    StoredRecord,
    StoreUnavailable,
)

Open = Callable[[], Awaitable[RevocationStore]]
ENVIRONMENT = "staging"


class Backend(Protocol):
    async def open(self) -> RevocationStore: ...
    def now(self) -> float: ...
    async def let_pass(self, seconds: float) -> None: ...


class FakeTimeBackend:
    """Memory or SQLite: their time is an argument."""

    def __init__(self, clock: FakeClock, open_replica: Callable[[], Awaitable[RevocationStore]]) -> None:
        self._clock = clock
        self.open = open_replica

    def now(self) -> float:
        return self._clock.now()

    async def let_pass(self, seconds: float) -> None:
        self._clock.advance(seconds)


class CassandraBackend:
    """Cassandra expires values by its own clock, so time has to pass."""

    def __init__(self, endpoint: CassandraEndpoint, keyspace: str) -> None:
        self._options = cassandra_options(endpoint, keyspace)

    async def open(self) -> RevocationStore:
        return await CassandraStore.open(self._options, clock=SystemClock())

    def now(self) -> float:
        return SystemClock().now()

    async def let_pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.fixture(scope="module")
def cassandra_schema(cassandra: CassandraEndpoint, cassandra_keyspace: str) -> str:
    asyncio.run(create_cassandra_schema(cassandra, cassandra_keyspace, environment=ENVIRONMENT))
    return cassandra_keyspace


@pytest.fixture(params=["memory", "sqlite", pytest.param("cassandra", marks=pytest.mark.cassandra)])
def backend(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Backend:
    match request.param:
        case "memory":
            shared = MemoryLog(environment=ENVIRONMENT)

            async def open_memory() -> RevocationStore:
                return MemoryStore(clock, shared=shared)

            return FakeTimeBackend(clock, open_memory)
        case "sqlite":
            path = tmp_path / "revocations.db"
            sqlite.create_schema(path, now=clock.now(), environment=ENVIRONMENT)

            async def open_sqlite() -> RevocationStore:
                return await SqliteStore.open(path, clock=clock)

            return FakeTimeBackend(clock, open_sqlite)
        case _:
            endpoint = request.getfixturevalue("cassandra")
            return CassandraBackend(endpoint, request.getfixturevalue("cassandra_schema"))


@pytest.fixture
async def replicas(backend: Backend) -> AsyncIterator[Open]:
    """Open a replica of the backend; all are closed with the test."""
    opened: list[RevocationStore] = []

    async def open_replica() -> RevocationStore:
        opened.append(await backend.open())
        return opened[-1]

    yield open_replica
    for store in opened:
        await store.close()


@pytest.fixture
async def store(replicas: Open) -> RevocationStore:
    return await replicas()


_names = random.Random(20)  # noqa: S311 -- reproducible, not secret


def a_record(backend: Backend, *, body: bytes = b"{}", seconds: float | None = 600, name: str = "") -> StoredRecord:
    """A record that no other test has; with *seconds* None it is in force for ever."""
    until = None if seconds is None else int(backend.now() + seconds)
    return StoredRecord(id=name or f"r{_names.getrandbits(64):x}", body=body, in_force_until=until)


def unplaced(record: StoredRecord) -> StoredRecord:
    return StoredRecord(id=record.id, body=record.body, in_force_until=record.in_force_until)


def ids(batch: Batch) -> set[str]:
    return {record.id for record in batch.records}


def latest(batch: Batch, record_id: str) -> StoredRecord:
    return max((r for r in batch.records if r.id == record_id), key=lambda r: r.position)


async def append_all(store: RevocationStore, records: Iterable[StoredRecord]) -> None:
    await asyncio.gather(*(store.append(record) for record in records))


# --- the log ------------------------------------------------------------------------------------------------


async def test_an_appended_record_comes_back_as_it_was(store: RevocationStore, backend: Backend) -> None:
    before = await store.read(None)
    record = a_record(backend, body=bytes(range(256)))

    await store.append(record)

    batch = await store.read(before.position)
    assert unplaced(latest(batch, record.id)) == record
    assert latest(batch, record.id).position > 0
    found = await store.get(record.id)
    assert found is not None
    assert unplaced(found) == record


async def test_a_full_sweep_finds_it_as_well(store: RevocationStore, backend: Backend) -> None:
    record = a_record(backend)

    await store.append(record)

    assert unplaced(latest(await store.read(None), record.id)) == record


async def test_each_read_of_a_chain_brings_what_was_appended_before_it(
    store: RevocationStore, backend: Backend
) -> None:
    position = (await store.read(None)).position
    for _ in range(5):
        record = a_record(backend)
        await store.append(record)
        batch = await store.read(position)
        assert record.id in ids(batch)
        assert batch.position >= position
        position = batch.position


async def test_a_batch_is_in_ascending_position(store: RevocationStore, backend: Backend) -> None:
    start = await store.read(None)
    await append_all(store, [a_record(backend) for _ in range(20)])
    await store.append(a_record(backend, seconds=None))

    for batch in (await store.read(start.position), await store.read(None)):
        positions = [record.position for record in batch.records]
        assert positions == sorted(positions)


async def test_what_one_replica_appended_another_one_reads_at_once(replicas: Open, backend: Backend) -> None:
    one, other = await replicas(), await replicas()
    position = (await other.read(None)).position
    record, key = a_record(backend), a_record(backend, seconds=None)

    await append_all(one, [record, key])

    assert {record.id, key.id} <= ids(await other.read(position))
    assert {record.id, key.id} <= ids(await other.read(None))
    assert await other.get(record.id) is not None


async def test_a_replica_continues_from_the_position_of_another(replicas: Open, backend: Backend) -> None:
    one, other = await replicas(), await replicas()
    position = (await one.read(None)).position
    record = a_record(backend)

    await other.append(record)

    batch = await other.read(position)
    assert record.id in ids(batch)
    assert batch.position >= position


async def test_a_lower_position_than_the_last_brings_everything_since(store: RevocationStore, backend: Backend) -> None:
    start = (await store.read(None)).position
    first, second = a_record(backend), a_record(backend)
    await store.append(first)
    middle = (await store.read(start)).position
    await store.append(second)
    await store.read(middle)

    assert {first.id, second.id} <= ids(await store.read(start))
    assert {first.id, second.id} <= ids(await store.read(0))


async def test_a_position_never_goes_back(store: RevocationStore) -> None:
    ahead = (await store.read(None)).position + 60_000

    assert (await store.read(ahead)).position >= ahead


async def test_a_record_without_an_end_is_in_every_sweep(store: RevocationStore, backend: Backend) -> None:
    key = a_record(backend, seconds=None, body=b"key")
    await store.append(key)

    await backend.let_pass(1)

    assert unplaced(latest(await store.read(None), key.id)) == key
    found = await store.get(key.id)
    assert found is not None
    assert unplaced(found) == key


async def test_a_record_that_ends_late_is_in_sweep_and_delta(store: RevocationStore, backend: Backend) -> None:
    position = (await store.read(None)).position
    lasting = a_record(backend, seconds=3 * 24 * 3600)

    await store.append(lasting)

    assert unplaced(latest(await store.read(position), lasting.id)) == lasting
    assert unplaced(latest(await store.read(None), lasting.id)) == lasting
    found = await store.get(lasting.id)
    assert found is not None
    assert unplaced(found) == lasting


async def test_a_record_that_ends_too_late_is_refused(store: RevocationStore, backend: Backend) -> None:
    position = (await store.read(None)).position
    record = a_record(backend, seconds=MAX_TTL_SECONDS + 3600)

    with pytest.raises(RecordOutlivesStore):
        await store.append(record)

    assert record.id not in ids(await store.read(position))
    assert await store.get(record.id) is None


async def test_more_records_than_one_page_come_whole(store: RevocationStore, backend: Backend) -> None:
    position = (await store.read(None)).position
    records = [a_record(backend, body=b"x" * 300) for _ in range(2_500)]
    for start in range(0, len(records), 250):
        await append_all(store, records[start : start + 250])

    assert {r.id for r in records} <= ids(await store.read(position))
    assert {r.id for r in records} <= ids(await store.read(None))


# --- ids ----------------------------------------------------------------------------------------------------


async def test_the_pages_of_a_sweep_are_the_sweep(store: RevocationStore, backend: Backend) -> None:
    records = [a_record(backend) for _ in range(1_203)]
    key, late = a_record(backend, seconds=None), a_record(backend, seconds=MAX_TTL_SECONDS - 3600)
    await asyncio.gather(*(store.append(record) for record in (*records, key, late)))
    pages = [page async for page in store.pages()]
    assert len(pages) > 1
    assert all(len(page.records) <= 1_000 for page in pages)
    seen = {record.id: unplaced(record) for page in pages for record in page.records}
    assert {record.id: record for record in (*records, key, late)}.items() <= seen.items()


async def test_what_is_appended_during_a_sweep_is_in_it_or_in_the_read_after_it(
    replicas: Open, backend: Backend
) -> None:
    store, writer = await replicas(), await replicas()
    await asyncio.gather(*(writer.append(a_record(backend)) for _ in range(1_100)))
    meanwhile: list[StoredRecord] = []
    seen: set[str] = set()
    position = 0
    async for page in store.pages():
        meanwhile.append(a_record(backend))
        await writer.append(meanwhile[-1])
        seen |= ids(page)
        position = page.position
    assert len(meanwhile) > 1
    assert {record.id for record in meanwhile} <= seen | ids(await store.read(position))


async def test_a_sweep_has_a_page_and_may_be_left(store: RevocationStore) -> None:
    start = (await store.read(None)).position
    pages = store.pages()
    assert (await anext(pages)).position >= start
    await pages.aclose()
    await store.ping()


async def test_appending_the_same_record_again_changes_nothing(store: RevocationStore, backend: Backend) -> None:
    position = (await store.read(None)).position
    record = a_record(backend)

    for _ in range(3):
        await store.append(record)

    batch = await store.read(position)
    assert {unplaced(r) for r in batch.records if r.id == record.id} == {record}


async def test_the_last_record_under_an_id_is_the_one_that_counts(store: RevocationStore, backend: Backend) -> None:
    position = (await store.read(None)).position
    for body, seconds in ((b"first", 600.0), (b"second", 900.0), (b"third", 900.0)):
        record = a_record(backend, name="the-same", body=body, seconds=seconds)
        await store.append(record)
        await backend.let_pass(0.01)

    found = await store.get("the-same")
    assert found is not None
    assert unplaced(found) == record
    assert unplaced(latest(await store.read(position), "the-same")) == record


async def test_the_last_record_counts_also_where_one_of_them_has_no_end(
    store: RevocationStore, backend: Backend
) -> None:
    for body, seconds in ((b"for ever", None), (b"ends", 600.0), (b"for ever again", None)):
        record = a_record(backend, name="now-and-then", body=body, seconds=seconds)
        await store.append(record)
        await backend.let_pass(0.01)
        found = await store.get("now-and-then")
        assert found is not None
        assert unplaced(found) == record

    # What was appended without an end is still in the log, whatever came after it.
    sweep = await store.read(None)
    assert b"for ever" in {r.body for r in sweep.records if r.id == "now-and-then"}


async def test_an_id_that_was_never_appended_is_not_found(store: RevocationStore) -> None:
    assert await store.get("never") is None


@pytest.mark.parametrize("name", ["'; DROP TABLE log; --", "käse|%_", "a/b?c=d&e", "\U0001f511" * 50, " ", "\\x00"])
async def test_an_id_is_taken_as_it_is(store: RevocationStore, backend: Backend, name: str) -> None:
    record = a_record(backend, name=name)

    await store.append(record)

    found = await store.get(name)
    assert found is not None
    assert unplaced(found) == record
    assert await store.get(name + " ") is None


async def test_a_body_of_the_largest_size_is_kept_whole(store: RevocationStore, backend: Backend) -> None:
    record = a_record(backend, body=b"\xff" * MAX_BODY_BYTES)

    await store.append(record)

    found = await store.get(record.id)
    assert found is not None
    assert unplaced(found) == record


# --- many at once -------------------------------------------------------------------------------------------


async def test_a_chain_of_reads_misses_nothing_that_several_replicas_append(replicas: Open, backend: Backend) -> None:
    """At each read, everything acknowledged before it began must have come."""
    writers = [await replicas(), await replicas()]
    reader = await replicas()
    chance = random.Random(4711)  # noqa: S311 -- reproducible, not secret
    acknowledged: set[str] = set()
    done = asyncio.Event()

    async def write(writer: RevocationStore) -> None:
        for _ in range(100):
            record = a_record(backend, seconds=None if chance.random() < 0.05 else 600)
            await writer.append(record)
            acknowledged.add(record.id)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.004)

    async def follow() -> None:
        position = (await reader.read(None)).position
        seen: set[str] = set()
        finished = False
        while not finished:
            finished = done.is_set()
            expected = set(acknowledged)
            batch = await reader.read(position)
            position = batch.position
            seen |= ids(batch)
            assert expected <= seen
            await asyncio.sleep(0)
        assert len(acknowledged) == 400

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(writer) for writer in writers * 2))
    done.set()
    await following


async def test_a_caller_that_gives_up_harms_nobody(store: RevocationStore, backend: Backend) -> None:
    impatient = asyncio.create_task(store.append(a_record(backend)))
    await asyncio.sleep(0)
    impatient.cancel()
    # Memory has answered by then; the others were still at work.
    with contextlib.suppress(asyncio.CancelledError):
        await impatient
    record = a_record(backend)

    await store.append(record)

    assert await store.get(record.id) is not None


# --- what is remembered -------------------------------------------------------------------------------------


async def test_what_is_remembered_can_be_recalled_by_every_replica(replicas: Open) -> None:
    one, other = await replicas(), await replicas()

    await one.remember("key", b"\x00value", ttl_seconds=60)

    assert await other.recall("key") == b"\x00value"
    assert await other.recall("another") is None


async def test_the_last_value_remembered_counts(store: RevocationStore) -> None:
    for value in (b"1", b"2", b""):
        await store.remember("progress", value, ttl_seconds=60)
        assert await store.recall("progress") == value


async def test_what_is_remembered_is_forgotten_in_time(store: RevocationStore, backend: Backend) -> None:
    await store.remember("short", b"1", ttl_seconds=1)
    await store.remember("long", b"2", ttl_seconds=600)
    await store.remember_member("views", "short", b"3", ttl_seconds=1)
    await store.remember_member("views", "long", b"4", ttl_seconds=600)

    await backend.let_pass(2.1)

    assert await store.recall("short") is None
    assert await store.recall("long") == b"2"
    assert await store.recall_members("views") == {"long": b"4"}


async def test_a_group_is_recalled_whole_and_alone(replicas: Open) -> None:
    one, other = await replicas(), await replicas()
    await one.remember_member("replicas", "a", b"1", ttl_seconds=60)
    await other.remember_member("replicas", "b", b"2", ttl_seconds=60)
    await other.remember_member("replicas", "a", b"3", ttl_seconds=60)
    await one.remember_member("others", "c", b"4", ttl_seconds=60)
    await one.remember("replicas", b"a key of the same name", ttl_seconds=60)

    assert await one.recall_members("replicas") == {"a": b"3", "b": b"2"}
    assert await one.recall_members("none") == {}
    assert await one.recall("a") is None


@pytest.mark.parametrize(
    ("value", "ttl_seconds"),
    [(b"", 0), (b"", -1), (b"", MAX_TTL_SECONDS + 1), (b"x" * (MAX_VALUE_BYTES + 1), 60)],
)
async def test_what_no_store_remembers_is_refused(store: RevocationStore, value: bytes, ttl_seconds: int) -> None:
    with pytest.raises(ValueError, match="a remembered value"):
        await store.remember("key-of-its-own", value, ttl_seconds=ttl_seconds)
    with pytest.raises(ValueError, match="a remembered value"):
        await store.remember_member("group-of-its-own", "name", value, ttl_seconds=ttl_seconds)
    assert await store.recall("key-of-its-own") is None
    assert await store.recall_members("group-of-its-own") == {}


# --- the store itself ---------------------------------------------------------------------------------------


async def test_the_environment_that_it_was_created_for_is_told_to_all_replicas(replicas: Open) -> None:
    assert [await (await replicas()).environment() for _ in range(2)] == [ENVIRONMENT, ENVIRONMENT]


async def test_the_epoch_is_the_same_for_all_replicas(replicas: Open) -> None:
    one, other = await replicas(), await replicas()

    assert await one.epoch() == await other.epoch() > 0


async def test_what_was_acknowledged_is_there_after_the_store_was_closed(replicas: Open, backend: Backend) -> None:
    first = await replicas()
    records = [a_record(backend), a_record(backend, seconds=None)]
    await append_all(first, records)
    await first.close()

    second = await replicas()

    assert {r.id for r in records} <= ids(await second.read(None))


async def test_a_closed_store_says_that_it_is_unavailable(replicas: Open, backend: Backend) -> None:
    store = await replicas()
    await store.ping()
    await store.close()
    await store.close()

    for operation in (
        store.append(a_record(backend)),
        store.get("id"),
        store.read(None),
        store.read(0),
        anext(store.pages()),
        store.remember("key", b"", ttl_seconds=1),
        store.recall("key"),
        store.remember_member("group", "name", b"", ttl_seconds=1),
        store.recall_members("group"),
        store.ping(),
    ):
        with pytest.raises(StoreUnavailable):
            await operation


# --- the values of the port ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"id": "x" * 201},
        {"body": b"x" * (MAX_BODY_BYTES + 1)},
        {"in_force_until": -1},
        {"position": -1},
    ],
)
def test_a_record_beyond_its_bounds_cannot_be_made(wrong: dict[str, object]) -> None:
    values: dict[str, object] = {"id": "x", "body": b"", "in_force_until": None}
    with pytest.raises(ValueError, match="record"):
        StoredRecord(**(values | wrong))  # type: ignore[arg-type]
