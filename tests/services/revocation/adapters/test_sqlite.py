"""What the SQLite store promises beyond the contract suite: sudden death, several processes, a full disk."""

import asyncio
import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import Processes
from tokenry.testing.clock import FakeClock
from tokenry_revocation.adapters import sqlite
from tokenry_revocation.adapters.sqlite import PURGE_INTERVAL_SECONDS, PURGE_MARGIN_SECONDS, SqliteStore
from tokenry_revocation.ports import Batch, StoredRecord, StoreUnavailable

# Appends for ever and says which appends were acknowledged, one line a bundle.
WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from tokenry.clock import SystemClock
    from tokenry_revocation.adapters.sqlite import SqliteStore
    from tokenry_revocation.ports import StoredRecord

    async def main(path, name, count):
        store = await SqliteStore.open(Path(path), clock=SystemClock())
        number = 0
        while count < 0 or number < count:
            ids = [f"{name}-{number + n}" for n in range(5)]
            records = [StoredRecord(id=i, body=i.encode(), in_force_until=None) for i in ids]
            await asyncio.gather(*(store.append(r) for r in records))
            print(" ".join(ids), flush=True)
            number += 5
        await store.close()

    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    """
)


@pytest.fixture
def path(tmp_path: Path, clock: FakeClock) -> Path:
    path = tmp_path / "revocations.db"
    sqlite.create_schema(path, now=clock.now())
    return path


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path, clock=clock)
    yield opened
    await opened.close()


def record(name: str, *, until: float | None = None, body: bytes = b"{}") -> StoredRecord:
    return StoredRecord(id=name, body=body, in_force_until=None if until is None else int(until))


def ids(batch: Batch) -> set[str]:
    return {r.id for r in batch.records}


# --- durable ------------------------------------------------------------------------------------------------


@pytest.mark.processes
async def test_what_was_acknowledged_survives_a_kill(path: Path, clock: FakeClock, processes: Processes) -> None:
    writer = processes.start("writer", [sys.executable, "-c", WRITER, str(path), "w", "-1"])
    writer.wait_until(lambda: writer.output().count("\n") >= 30, seconds=30, every=0.01)

    writer.send_signal(signal.SIGKILL)
    writer.wait(seconds=10)

    acknowledged = set(writer.output().rpartition("\n")[0].split())
    assert len(acknowledged) >= 150
    store = await SqliteStore.open(path, clock=clock)
    assert acknowledged <= ids(await store.read(None))
    await store.append(record("after the kill"))
    await store.close()


@pytest.mark.processes
async def test_several_processes_append_to_one_file_and_a_reader_misses_nothing(
    path: Path, clock: FakeClock, processes: Processes
) -> None:
    store = await SqliteStore.open(path, clock=clock)
    writers = [
        processes.start(f"writer{n}", [sys.executable, "-c", WRITER, str(path), f"w{n}", "100"]) for n in range(3)
    ]
    first = await store.read(None)  # the writers may have begun already
    position, seen = first.position, ids(first)
    running = True
    while running:
        running = any(writer.running for writer in writers)
        acknowledged = {i for writer in writers for i in writer.output().rpartition("\n")[0].split()}
        batch = await store.read(position)
        position = batch.position
        assert all(r.id not in seen for r in batch.records)
        seen |= ids(batch)
        assert acknowledged <= seen
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(seen) == 300
    await store.close()


async def test_each_commit_is_flushed_to_disk(store: SqliteStore) -> None:
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_appends_that_come_together_share_a_commit(store: SqliteStore) -> None:
    commits: list[str] = []
    store._writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await asyncio.gather(*(store.append(record(f"r{n}")) for n in range(500)))

    store._writer.set_trace_callback(None)
    assert len(ids(await store.read(None))) == 500
    assert 1 <= len(commits) < 50


# --- what ends ----------------------------------------------------------------------------------------------


async def test_a_record_is_purged_only_long_after_its_end(store: SqliteStore, clock: FakeClock) -> None:
    await store.append(record("ends", until=clock.now() + 100))
    await store.append(record("stays"))
    start = 0

    clock.advance(100 + PURGE_MARGIN_SECONDS - 1)
    await store.append(record("one"))
    assert ids(await store.read(start)) == {"ends", "stays", "one"}

    clock.advance(PURGE_INTERVAL_SECONDS)
    await store.append(record("two"))
    assert ids(await store.read(start)) == {"stays", "one", "two"}


async def test_a_record_out_of_force_is_in_no_sweep(store: SqliteStore, clock: FakeClock) -> None:
    await store.append(record("ends", until=clock.now() + 100))

    clock.advance(101)

    assert ids(await store.read(None)) == set()


async def test_positions_go_on_after_everything_was_purged(path: Path, store: SqliteStore, clock: FakeClock) -> None:
    for n in range(3):
        await store.append(record(f"r{n}", until=clock.now() + 10))
    position = (await store.read(None)).position
    clock.advance(PURGE_MARGIN_SECONDS + PURGE_INTERVAL_SECONDS + 11)
    await store.remember("anything", b"", ttl_seconds=1)
    assert ids(await store.read(0)) == set()
    await store.close()

    reopened = await SqliteStore.open(path, clock=clock)
    assert (await reopened.read(None)).position == position
    await reopened.append(record("new"))
    assert ids(await reopened.read(position)) == {"new"}
    await reopened.close()


# --- what may be wrong with the file ------------------------------------------------------------------------


async def test_without_a_file_it_says_what_to_run(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(StoreUnavailable, match="run `tokenry serve revocation --create-schema`"):
        await SqliteStore.open(tmp_path / "none.db", clock=clock)
    assert not (tmp_path / "none.db").exists()


async def test_an_empty_file_is_no_store(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnavailable, match="run `tokenry serve revocation --create-schema`"):
        await SqliteStore.open(tmp_path / "empty.db", clock=clock)


async def test_another_version_is_refused(path: Path, clock: FakeClock) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()

    with pytest.raises(StoreUnavailable, match="schema version 9, this program needs 1"):
        await SqliteStore.open(path, clock=clock)
    with pytest.raises(StoreUnavailable, match="schema version 9"):
        sqlite.create_schema(path, now=0)


@pytest.mark.parametrize("statement", ["CREATE TABLE t (x)", "PRAGMA user_version = 1"])
async def test_a_database_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, clock: FakeClock, statement: str
) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute(statement)
    connection.close()

    with pytest.raises(StoreUnavailable, match="something else"):
        await SqliteStore.open(foreign, clock=clock)
    with pytest.raises(StoreUnavailable, match="something else"):
        sqlite.create_schema(foreign, now=0)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "text.db").write_text("This is not a database. " * 100)

    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqliteStore.open(tmp_path / "text.db", clock=clock)


def test_creating_it_again_keeps_epoch_and_records(path: Path, clock: FakeClock) -> None:
    assert sqlite.create_schema(path, now=clock.now() + 1000) == int(clock.now())


NEWER = (
    "CREATE TABLE IF NOT EXISTS of_a_newer_release (a TEXT) STRICT",
    "CREATE INDEX IF NOT EXISTS newer ON log (body)",
)


def names_in(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}


async def test_two_releases_in_a_row_add_to_a_store_and_the_older_one_works_beside_them(
    path: Path, clock: FakeClock
) -> None:
    older = await SqliteStore.open(path, clock=clock)
    await older.append(record := StoredRecord(id="a", body=b"{}", in_force_until=None))
    for added in (NEWER[:1], NEWER, NEWER, ()):  # the second release, the third, once more, and back
        assert sqlite.create_schema(path, now=clock.now() + 1000, added=added) == int(clock.now())
        assert [each.id for each in (await older.read(None)).records] == [record.id]
    assert {"of_a_newer_release", "newer"} <= names_in(path)
    await older.append(StoredRecord(id="b", body=b"{}", in_force_until=None))
    await older.close()
    reopened = await SqliteStore.open(path, clock=clock)
    assert {each.id for each in (await reopened.read(None)).records} == {"a", "b"}
    await reopened.close()


def test_a_release_that_is_interrupted_has_added_nothing_and_adds_all_the_next_time(
    path: Path, clock: FakeClock
) -> None:
    before = names_in(path)
    with pytest.raises(StoreUnavailable, match="cannot create"):
        sqlite.create_schema(path, now=clock.now(), added=(*NEWER, "CREATE INDEX IF NOT EXISTS x ON nowhere (a)"))
    assert names_in(path) == before
    sqlite.create_schema(path, now=clock.now(), added=NEWER)
    assert names_in(path) - before == {"of_a_newer_release", "newer"}


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 9", "PRAGMA application_id = 1"])
def test_nothing_is_added_to_what_is_of_another_version_or_of_somebody_else(
    path: Path, clock: FakeClock, statement: str
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = names_in(path)
    with pytest.raises(StoreUnavailable):
        sqlite.create_schema(path, now=clock.now(), added=NEWER)
    assert names_in(path) == before


def test_a_later_store_has_a_higher_epoch(tmp_path: Path) -> None:
    first = sqlite.create_schema(tmp_path / "a.db", now=1_000.9)
    second = sqlite.create_schema(tmp_path / "b.db", now=2_000.1)

    assert (first, second) == (1_000, 2_000)


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"none/store\.db"):
        sqlite.create_schema(tmp_path / "none" / "store.db", now=0)


@pytest.mark.processes
def test_two_processes_may_create_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "both.db"
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tokenry_revocation.adapters import sqlite
        print(sqlite.create_schema(Path(sys.argv[1]), now=float(sys.argv[2])))
        """
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(now)], stdout=subprocess.PIPE, text=True)
        for now in (100, 200)
    ]
    told = {process.communicate(timeout=30)[0].strip() for process in both}

    assert [process.returncode for process in both] == [0, 0]
    assert told in ({"100"}, {"200"})


async def test_a_file_that_was_replaced_takes_no_more_appends(path: Path, store: SqliteStore) -> None:
    await store.ping()
    await asyncio.to_thread(path.rename, path.with_name("moved.db"))
    with pytest.raises(StoreUnavailable, match="replaced or removed"):
        await store.append(record("lost"))
    with pytest.raises(StoreUnavailable, match="replaced or removed"):
        await store.ping()

    sqlite.create_schema(path, now=0)

    with pytest.raises(StoreUnavailable, match="replaced or removed"):
        await store.append(record("lost"))


async def test_F37_a_full_disk_refuses_an_append_and_harms_nothing(store: SqliteStore) -> None:
    await store.append(record("before"))
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.append(record("too much", body=b"x" * 60_000))

    store._writer.execute("PRAGMA max_page_count = 1000000")
    await store.append(record("after"))

    assert ids(await store.read(None)) == {"before", "after"}


async def test_a_writer_that_hangs_elsewhere_makes_it_unavailable_for_writes_only(path: Path, clock: FakeClock) -> None:
    store = await SqliteStore.open(path, clock=clock, busy_seconds=0.1)
    await store.append(record("before"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="append: database is locked"):
        await store.append(record("during"))
    assert ids(await store.read(None)) == {"before"}

    other.execute("ROLLBACK")
    other.close()
    await store.append(record("during"))
    assert ids(await store.read(None)) == {"before", "during"}
    await store.close()


async def test_a_group_without_a_name_is_refused(store: SqliteStore) -> None:
    with pytest.raises(ValueError, match="a group has a name"):
        await store.remember_member("", "name", b"", ttl_seconds=1)
