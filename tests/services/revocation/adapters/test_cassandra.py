"""What the Cassandra store promises beyond the contract suite: late writes, wrong clocks, half-done appends."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.processes import free_port
from tests.support.revocation_stores import RETENTION_SECONDS, cassandra_options, create_cassandra_schema
from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError
from tokenry_revocation.adapters import cassandra_schema
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.cassandra_session import CqlSession, connect_cluster
from tokenry_revocation.adapters.location import create_store
from tokenry_revocation.adapters.location import open_store as open_located
from tokenry_revocation.adapters.store_clock import StoreClock
from tokenry_revocation.ports import Batch, RevocationStore, StoredRecord, StoreUnavailable

Open = Callable[..., Awaitable[CassandraStore]]


class SlowClock(SystemClock):
    """The clock of a machine that is a minute and a half behind."""

    def now(self) -> float:
        return super().now() - 90


class ShiftedStoreClock:
    """An estimate of the store's clock that is off by so much."""

    def __init__(self, clock: StoreClock, *, shift_ms: int) -> None:
        self._clock = clock
        self._shift_ms = shift_ms

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._shift_ms

    def certain_ms(self) -> int | None:
        certain = self._clock.certain_ms()
        return None if certain is None else certain + self._shift_ms

    def writable_ms(self, monotonic: float) -> int:
        return self._clock.writable_ms(monotonic) + self._shift_ms


class Weather:
    """A session whose writes meet with something on their way there or back."""

    def __init__(self, session: CqlSession) -> None:
        self._session = session
        self.before: Callable[[Any], Awaitable[None]] = self._nothing
        self.after: Callable[[Any], Awaitable[None]] = self._nothing
        self.writes: list[Any] = []

    async def write(self, prepared: Any, values: tuple[Any, ...]) -> None:
        await self.before(prepared)
        self.writes.append(prepared)
        await self._session.write(prepared, values)
        await self.after(prepared)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    @staticmethod
    async def _nothing(prepared: Any) -> None:
        pass


@pytest.fixture(scope="module")
def keyspace(cassandra: CassandraEndpoint, cassandra_keyspace: str) -> str:
    asyncio.run(create_cassandra_schema(cassandra, cassandra_keyspace))
    return cassandra_keyspace


@pytest.fixture
async def open_store(cassandra: CassandraEndpoint, keyspace: str) -> AsyncIterator[Open]:
    opened: list[CassandraStore] = []

    async def open_one(*, clock: SystemClock | None = None, **options: object) -> CassandraStore:
        chosen = cassandra_options(cassandra, keyspace, **options)
        opened.append(await CassandraStore.open(chosen, clock=clock or SystemClock()))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


def new_record(*, seconds: float | None = 600) -> StoredRecord:
    until = None if seconds is None else int(SystemClock().now() + seconds)
    return StoredRecord(id=uuid.uuid4().hex, body=b"{}", in_force_until=until)


def ids(batch: Batch) -> set[str]:
    return {r.id for r in batch.records}


def weather_of(store: CassandraStore) -> Weather:
    weather = Weather(store._session)
    store._session = weather  # type: ignore[assignment]
    return weather


def shift(store: CassandraStore, *, shift_ms: int) -> None:
    store._store_clock = ShiftedStoreClock(store._store_clock, shift_ms=shift_ms)  # type: ignore[assignment]


# --- nothing is missed --------------------------------------------------------------------------------------


async def test_slow_writes_and_skewed_estimates_hide_nothing_from_a_chain_of_reads(open_store: Open) -> None:
    """
    Writers stamp up to 0.4 s behind, the reader reads 0.4 s ahead, and up to 0.4 s pass before each write.

    A second reader, which reaches back by nothing, shows that the chance to miss is there.
    """
    chance = random.Random(11)  # noqa: S311 -- reproducible, not secret
    limits = {"write_seconds": 1.0, "skew_seconds": 0.5}
    writers = [await open_store(**limits) for _ in range(2)]
    reader, careless = await open_store(**limits), await open_store(**limits)
    for writer, shift_ms in zip(writers, (-400, 0), strict=True):
        shift(writer, shift_ms=shift_ms)
        weather = weather_of(writer)

        async def delay(prepared: Any) -> None:
            await asyncio.sleep(chance.random() * 0.4)

        weather.before = delay
    shift(reader, shift_ms=400)
    shift(careless, shift_ms=400)
    careless._write_ms = careless._skew_ms = 0
    acknowledged: set[str] = set()
    writing = True

    async def write(writer: CassandraStore) -> None:
        for _ in range(12):
            record = new_record()
            with contextlib.suppress(StoreUnavailable):  # a machine this busy may be too slow twice
                await writer.append(record)
                acknowledged.add(record.id)

    async def follow(store: CassandraStore, *, strict: bool) -> set[str]:
        position, seen = (await store.read(None)).position, set[str]()
        last = False
        while not last:
            last = not writing
            expected = set(acknowledged)
            batch = await store.read(position)
            position = batch.position
            seen |= ids(batch)
            assert not strict or expected <= seen
            await asyncio.sleep(0.02)
        return seen

    following = asyncio.gather(follow(reader, strict=True), follow(careless, strict=False))
    await asyncio.gather(*(write(writer) for writer in writers * 4))
    writing = False
    seen, seen_carelessly = await following

    assert len(acknowledged) > 48
    assert acknowledged <= seen
    assert not acknowledged <= seen_carelessly


async def test_F17_a_machine_whose_clock_is_slow_places_its_records_right(open_store: Open) -> None:
    reader, writer = await open_store(), await open_store(clock=SlowClock())
    position = (await reader.read(None)).position
    record = new_record()

    await writer.append(record)

    assert record.id in ids(await reader.read(position))
    assert writer.clock_offset == pytest.approx(-90, abs=2)
    assert reader.clock_offset == pytest.approx(0, abs=2)


@pytest.mark.parametrize("shift_ms", [-90_000, -40 * 60_000, 40 * 60_000])
async def test_a_sweep_finds_what_a_wrong_clock_has_placed_where_nobody_looks(open_store: Open, shift_ms: int) -> None:
    reader, writer = await open_store(), await open_store()
    position = (await reader.read(None)).position
    shift(writer, shift_ms=shift_ms)
    record = new_record()

    await writer.append(record)

    assert record.id not in ids(await reader.read(position))
    assert record.id in ids(await reader.read(None))


async def test_a_position_from_hours_ago_is_read_from_all_buckets_since(open_store: Open) -> None:
    reader, writer = await open_store(), await open_store()
    position = (await reader.read(None)).position
    shift(writer, shift_ms=-3 * 3600_000)
    record = new_record()
    await writer.append(record)

    assert record.id in ids(await reader.read(position - 3 * 3600_000 - 60_000))


# --- acknowledged in time, or not at all --------------------------------------------------------------------


async def test_a_write_that_was_confirmed_late_is_written_again_under_a_new_stamp(open_store: Open) -> None:
    store = await open_store(write_seconds=0.3)
    weather = weather_of(store)
    late = iter([0.4])

    async def hold_up_the_first(prepared: Any) -> None:
        if prepared is store._statements.insert_log:
            await asyncio.sleep(next(late, 0))

    weather.after = hold_up_the_first
    position = (await store.read(None)).position
    record = new_record()

    await store.append(record)

    stamps = [r.position for r in (await store.read(position)).records if r.id == record.id]
    assert len(stamps) == 2
    assert stamps[1] - stamps[0] >= 300
    found = await store.get(record.id)
    assert found is not None
    assert found.position == stamps[1]


async def test_a_write_that_is_always_confirmed_late_is_not_acknowledged(open_store: Open) -> None:
    store = await open_store(write_seconds=0.1)
    weather = weather_of(store)

    async def hold_up(prepared: Any) -> None:
        if prepared in (store._statements.insert_log, store._statements.insert_lasting):
            await asyncio.sleep(0.15)

    weather.after = hold_up
    for record in (new_record(), new_record(seconds=None)):
        with pytest.raises(StoreUnavailable, match="too late for readers"):
            await store.append(record)
    assert store._statements.insert_record not in weather.writes


async def test_what_the_log_did_not_take_is_not_found_by_its_id(open_store: Open) -> None:
    """Else a retry would hear that the revocation exists, and nobody would ever read it."""
    store = await open_store()
    weather = weather_of(store)

    async def refuse_the_log(prepared: Any) -> None:
        if prepared is store._statements.insert_log:
            raise StoreUnavailable("injected")

    weather.before = refuse_the_log
    record = new_record()

    with pytest.raises(StoreUnavailable, match="injected"):
        await store.append(record)

    assert await store.get(record.id) is None
    weather.before = weather._nothing
    await store.append(record)
    assert await store.get(record.id) is not None


async def test_what_only_the_log_took_is_in_force_and_can_be_appended_again(open_store: Open) -> None:
    store = await open_store()
    weather = weather_of(store)
    position = (await store.read(None)).position

    async def refuse_the_index(prepared: Any) -> None:
        if prepared is store._statements.insert_record:
            raise StoreUnavailable("injected")

    weather.before = refuse_the_index
    record = new_record()
    with pytest.raises(StoreUnavailable, match="injected"):
        await store.append(record)
    assert record.id in ids(await store.read(position))
    assert await store.get(record.id) is None

    weather.before = weather._nothing
    await store.append(record)
    assert await store.get(record.id) is not None


async def test_a_bucket_is_registered_before_the_first_row_in_it_and_then_never_again(
    open_store: Open,
) -> None:
    store = await open_store()
    weather = weather_of(store)

    for _ in range(3):
        await store.append(new_record())

    kinds = [prepared for prepared in weather.writes if prepared is not store._statements.insert_record]
    log, bucket = store._statements.insert_log, store._statements.insert_bucket
    # One more if the ten minutes of a bucket ended meanwhile.
    assert kinds[:2] == [bucket, log]
    assert kinds.count(log) == 3
    assert kinds.count(bucket) <= 2


async def test_a_bucket_that_could_not_be_registered_takes_no_row(open_store: Open) -> None:
    store = await open_store()
    weather = weather_of(store)

    async def refuse_the_registry(prepared: Any) -> None:
        if prepared is store._statements.insert_bucket:
            raise StoreUnavailable("injected")

    weather.before = refuse_the_registry

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="injected"):
            await store.append(new_record())
    assert weather.writes == []


# --- the schema ---------------------------------------------------------------------------------------------


async def test_without_a_keyspace_it_says_what_to_run(cassandra: CassandraEndpoint) -> None:
    options = cassandra_options(cassandra, "nowhere")

    with pytest.raises(StoreUnavailable, match="run `tokenry serve revocation --create-schema`"):
        await CassandraStore.open(options, clock=SystemClock())


async def test_a_keyspace_is_created_filled_and_described(cassandra: CassandraEndpoint) -> None:
    options = cassandra_options(cassandra, f"test_{uuid.uuid4().hex[:12]}")

    async def create(retention_seconds: int, now: float) -> int:
        return await cassandra_schema.create_schema(
            options, replication={"datacenter1": 1}, retention_seconds=retention_seconds, now=now
        )

    async def retention_of_an_opened_store() -> int | None:
        store = await CassandraStore.open(options, clock=SystemClock())
        await store.append(new_record())
        await store.close()
        return store.retention_seconds

    cluster, session = await asyncio.to_thread(connect_cluster, options)
    try:
        assert await create(3600, 1_000) == 1_000
        assert await retention_of_an_opened_store() == 3600
        # A second call changes nothing, a longer life is taken over, a shorter one is not.
        assert await create(3600, 2_000) == 1_000
        assert await create(5400, 3_000) == 1_000
        assert await retention_of_an_opened_store() == 5400
        assert await create(1800, 4_000) == 1_000
        assert await retention_of_an_opened_store() == 5400
        tables = (await asyncio.to_thread(cluster.refresh_schema_metadata)) or cluster.metadata.keyspaces
        log = tables[options.keyspace].tables["log"]
        assert log.options["default_time_to_live"] == 5400 + cassandra_schema.TTL_MARGIN_SECONDS
        assert "TimeWindowCompactionStrategy" in log.options["compaction"]["class"]
        assert tables[options.keyspace].tables["lasting"].options["default_time_to_live"] == 0

        await execute(session, f"UPDATE {options.keyspace}.store SET version = 9 WHERE name = 'revocations'")  # noqa: S608
        with pytest.raises(StoreUnavailable, match="schema version 9, this program needs 1"):
            await CassandraStore.open(options, clock=SystemClock())
    finally:
        await execute(session, f"DROP KEYSPACE {options.keyspace}")
        await asyncio.to_thread(cluster.shutdown)


async def test_a_schema_that_was_interrupted_anywhere_is_finished_by_the_next_run(cassandra: CassandraEndpoint) -> None:
    """As an older release leaves it, too: one that knew fewer tables."""
    options = cassandra_options(cassandra, f"test_{uuid.uuid4().hex[:12]}")
    cluster, session = await asyncio.to_thread(connect_cluster, options)

    async def create(now: float) -> int:
        return await cassandra_schema.create_schema(
            options, replication={"datacenter1": 1}, retention_seconds=3600, now=now
        )

    try:
        assert await create(1_000) == 1_000
        # What an interruption leaves: the last tables are missing, and the row that says what the store is.
        for table in ("remembered_members", "remembered", "lasting"):
            await execute(session, f"DROP TABLE {options.keyspace}.{table}")
        await execute(session, f"TRUNCATE {options.keyspace}.store")
        with pytest.raises(StoreUnavailable, match="run `tokenry serve revocation --create-schema`"):
            await CassandraStore.open(options, clock=SystemClock())
        assert await create(2_000) == 2_000  # nobody could have used it: it begins now
        assert await create(3_000) == 2_000
        store = await CassandraStore.open(options, clock=SystemClock())
        await store.append(record := new_record())
        assert await store.get(record.id) is not None
        # And what an older release leaves: all that it knew, and a description. What it had is there.
        await execute(session, f"DROP TABLE {options.keyspace}.remembered_members")
        assert await create(4_000) == 2_000
        await store.remember_member("group", "name", b"value", ttl_seconds=60)
        assert {each.id for each in (await store.read(None)).records} == {record.id}
        await store.close()
    finally:
        await execute(session, f"DROP KEYSPACE IF EXISTS {options.keyspace}")
        await asyncio.to_thread(cluster.shutdown)


async def test_F56_a_keyspace_of_another_environment_is_refused(
    cassandra: CassandraEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    options = cassandra_options(cassandra, f"test_{uuid.uuid4().hex[:12]}")
    keyspace = options.keyspace

    async def create(environment: str, *, retention_seconds: int = 3600) -> int:
        return await create_store(
            options,
            now=1_000,
            retention_seconds=retention_seconds,
            environment=environment,
            replication={"datacenter1": 1},
        )

    async def open_as(environment: str) -> RevocationStore:
        return await open_located(options, clock=SystemClock(), environment=environment)

    cluster, session = await asyncio.to_thread(connect_cluster, options)
    try:
        # As a release before left it: it is anybody's, and the service says what gives it its name.
        await create("production")
        await execute(session, f"DROP TABLE {keyspace}.store_environment")
        older = await open_as("staging")
        assert await older.environment() is None
        assert "names no environment yet: run `tokenry serve revocation --create-schema`" in caplog.text
        assert await create("production") == 1_000
        # A replica of before works on beside the name; another environment starts no replica, and changes nothing.
        await older.append(record := new_record())
        await older.ping()
        await older.close()
        for refused in (open_as("staging"), create("staging", retention_seconds=5400)):
            with pytest.raises(ConfigurationError, match="the store belongs to the environment production"):
                await refused
        ours = await open_as("production")
        assert (await ours.environment(), ours.retention_seconds) == ("production", 3600)
        assert await ours.get(record.id) is not None
        await ours.close()
        # A copy for another environment gets that one's name by hand, as docs/revocation-store.md says.
        rename = f"UPDATE {keyspace}.store_environment SET environment = 'staging' WHERE name = 'revocations' IF EXISTS"  # noqa: S608
        await execute(session, rename)
        assert await create("staging") == 1_000
        await (await open_as("staging")).close()
    finally:
        await execute(session, f"DROP KEYSPACE IF EXISTS {keyspace}")
        await asyncio.to_thread(cluster.shutdown)


async def execute(session: Any, statement: str) -> None:
    await asyncio.to_thread(session.execute, statement, timeout=60)


async def test_ordinary_records_end_with_the_table_and_lasting_ones_by_themselves(
    cassandra: CassandraEndpoint, keyspace: str, open_store: Open
) -> None:
    store = await open_store()
    ordinary, late, key = new_record(), new_record(seconds=RETENTION_SECONDS + 500), new_record(seconds=None)
    for record in (ordinary, late, key):
        await store.append(record)

    cluster, session = await asyncio.to_thread(connect_cluster, cassandra_options(cassandra, keyspace))

    async def life(table: str, record: StoredRecord) -> int | None:
        rows = await asyncio.to_thread(
            session.execute,
            f"SELECT id, ttl(body) FROM {keyspace}.{table} ALLOW FILTERING",  # noqa: S608 -- names of ours
        )
        return {row[0]: row[1] for row in rows.all()}[record.id]

    margin = cassandra_schema.TTL_MARGIN_SECONDS
    assert await life("log", ordinary) == pytest.approx(RETENTION_SECONDS + margin, abs=30)
    assert await life("records", ordinary) == pytest.approx(RETENTION_SECONDS + margin, abs=30)
    assert await life("lasting", late) == pytest.approx(RETENTION_SECONDS + 500 + margin, abs=30)
    assert await life("lasting", key) is None
    await asyncio.to_thread(cluster.shutdown)


# --- the cluster --------------------------------------------------------------------------------------------


async def test_F18_a_store_that_was_replaced_is_noticed(
    cassandra: CassandraEndpoint, keyspace: str, open_store: Open
) -> None:
    store = await open_store()
    await store.ping()
    epoch = await store.epoch()
    cluster, session = await asyncio.to_thread(connect_cluster, cassandra_options(cassandra, keyspace))
    update = f"UPDATE {keyspace}.store SET epoch = {{}} WHERE name = 'revocations' IF EXISTS"  # noqa: S608

    await execute(session, update.format(epoch + 1))
    with pytest.raises(StoreUnavailable, match="replaced by another one"):
        await store.ping()

    await execute(session, update.format(epoch))
    await store.ping()
    await asyncio.to_thread(cluster.shutdown)


async def test_with_a_quorum_in_each_datacentre_it_reads_and_writes(open_store: Open) -> None:
    store = await open_store(write_consistency="EACH_QUORUM", local_datacenter="datacenter1")
    position = (await store.read(None)).position
    record = new_record()

    await store.append(record)

    assert record.id in ids(await store.read(position))


async def test_a_datacentre_that_reads_without_replicas_is_refused(open_store: Open) -> None:
    with pytest.raises(ConfigurationError, match="has no replicas in datacenter1, elsewhere"):
        await open_store(reader_datacenters=("datacenter1", "elsewhere"), write_consistency="EACH_QUORUM")


async def test_where_nobody_listens_it_is_unavailable() -> None:
    endpoint = CassandraEndpoint(contact_points=("127.0.0.1",), port=free_port())

    with pytest.raises(StoreUnavailable, match="NoHostAvailable"):
        await CassandraStore.open(cassandra_options(endpoint, "any"), clock=SystemClock())


async def test_a_failed_write_is_unavailable_whatever_the_driver_calls_it(open_store: Open) -> None:
    store = await open_store(request_seconds=0.1)
    # So little time that no answer can be in time, as far as the driver's own timer goes.
    store._session._session.get_execution_profile("write").request_timeout = 1e-6
    with pytest.raises(StoreUnavailable, match="Cassandra: OperationTimedOut"):
        await store.append(new_record())
