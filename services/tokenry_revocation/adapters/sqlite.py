"""
`RevocationStore` in one file: the embedded default, durable and without a server.

* *Durable*: write-ahead log with `synchronous=FULL`: an append returns after its commit has been flushed to
  disk. Appends that arrive meanwhile share the next commit.
* *Complete*: a position is the row number that SQLite assigns inside the write transaction. There is one
  writer at a time over all processes of the file, so positions become visible in ascending order, and nothing
  appears below a position that somebody has read: the overlap is zero.
* Several processes on one machine may share the file. Several machines may not: SQLite's locks and its shared
  memory do not work over a network file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from tokenry_revocation.adapters.lane import Lane, LaneFull
from tokenry_revocation.ports import (
    CREATE_COMMAND,
    Batch,
    StoredRecord,
    StoreUnavailable,
    check_environment,
    check_lifetime,
    check_remembered,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from pathlib import Path

    from tokenry.clock import Clock

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
# "tkrv": tells this file from every other SQLite database.
APPLICATION_ID: Final = 0x746B7276

# How long one process waits for another one's transaction; theirs take milliseconds.
BUSY_SECONDS: Final = 5.0
_BUSY_LOOK_SECONDS: Final = 0.01
# What may wait for the writer: some seconds' worth. Beyond that the caller hears 503 rather than wait.
WAITING_WRITES: Final = 10_000
WAITING_READS: Final = 1_000
# The first of so many waits some milliseconds for the last one.
WRITES_TOGETHER: Final = 1_000
# A record out of force goes a day later: a wall clock that is wrong by hours destroys nothing that matters.
PURGE_MARGIN_SECONDS: Final = 24 * 3600
PURGE_INTERVAL_SECONDS: Final = 600.0
# A transaction of this many deletes takes some milliseconds.
PURGE_ROWS: Final = 2_000
# A portion of a sweep: read in some milliseconds, so that deltas in the same lane come in between.
PAGE_ROWS: Final = 1_000

_SCHEMA = """
CREATE TABLE log (
  position       INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, also after a purge
  id             TEXT    NOT NULL,
  body           BLOB    NOT NULL,
  in_force_until INTEGER                             -- Unix seconds; NULL: for ever
) STRICT;
CREATE INDEX log_by_id ON log (id, position);
CREATE INDEX log_by_end ON log (in_force_until);
CREATE TABLE remembered (
  in_group   TEXT NOT NULL,                          -- '' for a key that is in no group
  name       TEXT NOT NULL,
  value      BLOB NOT NULL,
  expires_at REAL NOT NULL,                          -- Unix seconds
  PRIMARY KEY (in_group, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX remembered_by_end ON remembered (expires_at);
CREATE TABLE store (epoch INTEGER NOT NULL) STRICT;
"""
# What later releases add, in their order: each statement is of the form `CREATE … IF NOT EXISTS`, and an older release
# works beside it. So the version stays; what an older release could not work with takes a new version.
ADDED: Final[tuple[str, ...]] = (
    # No row, or one: the environment that the store was created for.
    "CREATE TABLE IF NOT EXISTS store_environment (environment TEXT NOT NULL) STRICT",
)
_IN_FORCE = "(in_force_until IS NULL OR in_force_until > ?)"
_RECORD = "SELECT id, body, in_force_until, position FROM log"
# Keys and members share a table; no group has an empty name.
_NO_GROUP = ""


def create_schema(path: Path, *, now: float, environment: str | None = None, added: Sequence[str] = ADDED) -> int:
    """
    Make the store's file with its tables, or add to them, and return the store's epoch; harmless when all is there.

    It is one transaction: interrupted, it has not happened.

    Args:
        path: The file; its folder exists, and only this platform's user may write there.
        now: Unix seconds; the epoch of a new store.
        environment: Name to give to a store that has none; None gives none.
        added: What this release adds to the first one.

    Raises:
        StoreUnavailable: The file cannot be made, is no store, or is one of another version.
        ConfigurationError: It belongs to another environment; nothing was changed.
    """
    try:
        # Before SQLite does, and for the owner only: its companions (-wal, -shm) take over the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_connect(path)) as connection:
            _create_tables(connection, epoch=int(now), environment=environment, added=added)
            return _check_schema(connection, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"cannot create the store {path}: {error}") from error


def _create_tables(
    connection: sqlite3.Connection, *, epoch: int, environment: str | None, added: Sequence[str]
) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    with _transaction_end(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if not version and not tables:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO store (epoch) VALUES (?)", (epoch,))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif application != APPLICATION_ID or version != SCHEMA_VERSION:
            return  # not ours to add to; what it is instead is said by the check that follows
        named = _environment(connection)
        if environment is not None:
            check_environment(named, wanted=environment)
        for statement in added:
            connection.execute(statement)
        if environment is not None and named is None:
            connection.execute("INSERT INTO store_environment (environment) VALUES (?)", (environment,))


def _connect(path: Path, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    # mode=rw: never make a file by the way. Autocommit: transactions begin where the code says so.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        _enter_wal(connection, busy_seconds)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS, where fsync alone reaches only the drive's cache
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch to the write-ahead log; for this SQLite does not wait by itself while another process does the same."""
    end = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                raise
            time.sleep(_BUSY_LOOK_SECONDS)
        else:
            return


def _check_schema(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID and (version or _has_tables(connection)):
        raise StoreUnavailable(f"{path} is a database of something else; name another file")
    if not version:
        raise StoreUnavailable(f"{path} holds no revocation store yet: run `{CREATE_COMMAND}`")
    if version != SCHEMA_VERSION:
        message = f"{path} has schema version {version}, this program needs {SCHEMA_VERSION}"
        raise StoreUnavailable(f"{message}: run `{CREATE_COMMAND}` of the matching release")
    (epoch,) = connection.execute("SELECT epoch FROM store").fetchone()
    return int(epoch)


def _environment(connection: sqlite3.Connection) -> str | None:
    """Return the environment that the store names; a release that named none made no table for it."""
    table = "SELECT count(*) FROM sqlite_schema WHERE name = 'store_environment'"
    if not connection.execute(table).fetchone()[0]:
        return None
    row = connection.execute("SELECT environment FROM store_environment").fetchone()
    return None if row is None else str(row[0])


def _has_tables(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return bool(tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connections:
    writer: sqlite3.Connection
    reader: sqlite3.Connection
    scanner: sqlite3.Connection
    epoch: int
    environment: str | None


class SqliteStore:
    """
    The store in an open file. Make one with `open`.

    One thread writes, one looks single things up, one reads the log: a long sweep holds up nobody else.
    """

    def __init__(self, path: Path, connections: _Connections, *, clock: Clock) -> None:
        """Take over the connections to one checked file; used by `open`."""
        self._path = path
        self._inode = path.stat().st_ino
        self._writer, self._reader, self._scanner = connections.writer, connections.reader, connections.scanner
        self._epoch, self._environment = connections.epoch, connections.environment
        self._clock = clock
        self._purge_at = 0.0
        self._writes = Lane(
            self._write_bundle, name="revocation-writer", capacity=WAITING_WRITES, bundle=WRITES_TOGETHER
        )
        self._reads = Lane(_read_bundle, name="revocation-reader", capacity=WAITING_READS, bundle=1)
        self._scans = Lane(_read_bundle, name="revocation-scanner", capacity=WAITING_READS, bundle=1)

    @classmethod
    async def open(cls, path: Path, *, clock: Clock, busy_seconds: float = BUSY_SECONDS) -> SqliteStore:
        """
        Open the store that `create_schema` made.

        Args:
            path: Its file.
            clock: For what expires; never for what is ordered.
            busy_seconds: How long to wait for another process's transaction.

        Raises:
            StoreUnavailable: There is none, or one of another version; the text says what to run.
        """
        connections = await asyncio.to_thread(_open_all, path, busy_seconds)
        return cls(path, connections, clock=clock)

    @property
    def overlap(self) -> int:
        """Zero: positions become visible in ascending order."""
        return 0

    @property
    def retention_seconds(self) -> int | None:
        """None: a record is purged by its own end."""
        return None

    async def append(self, record: StoredRecord) -> None:
        """Insert *record*, and return after the commit was flushed to disk."""
        check_lifetime(record, now=self._clock.now())
        await self._write("append", lambda: _insert(self._writer, record))

    async def get(self, record_id: str) -> StoredRecord | None:
        """Return the row of *record_id* with the highest position."""
        return await self._read("get", lambda: _latest(self._reader, record_id))

    async def read(self, after: int | None) -> Batch:
        """Return the rows above *after*, or all in force."""
        scan = partial(_read, self._scanner, after, now=self._clock.now())
        return cast("Batch", await _outcome(self._scans, "read", scan))

    async def pages(self) -> AsyncGenerator[Batch, None]:
        """Yield the rows in force, by ascending position."""
        now, after, position = self._clock.now(), 0, None
        while True:
            scan = partial(_read_page, self._scanner, after, now=now)
            batch = cast("Batch", await _outcome(self._scans, "read", scan))
            # What is above the first portion's position was written since: it is news of the next read as well.
            position = batch.position if position is None else position
            yield Batch(records=batch.records, position=position)
            if len(batch.records) < PAGE_ROWS:
                return
            after = batch.records[-1].position

    async def remember(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep *value* for a while."""
        await self._remember(_NO_GROUP, key, value, ttl_seconds=ttl_seconds)

    async def recall(self, key: str) -> bytes | None:
        """Return the value unless it has expired."""
        sql = "SELECT value FROM remembered WHERE in_group = ? AND name = ? AND expires_at > ?"
        row = await self._read(
            "recall", lambda: self._reader.execute(sql, (_NO_GROUP, key, self._clock.now())).fetchone()
        )
        return None if row is None else row[0]

    async def remember_member(self, group: str, name: str, value: bytes, *, ttl_seconds: int) -> None:
        """Keep *value* for a while, as part of a group."""
        if not group:
            raise ValueError("a group has a name")
        await self._remember(group, name, value, ttl_seconds=ttl_seconds)

    async def recall_members(self, group: str) -> dict[str, bytes]:
        """Return the members that have not expired."""
        sql = "SELECT name, value FROM remembered WHERE in_group = ? AND expires_at > ?"
        return await self._read(
            "recall", lambda: dict(self._reader.execute(sql, (group, self._clock.now())).fetchall())
        )

    async def epoch(self) -> int:
        """Return the Unix seconds at which the file was made."""
        return self._epoch

    async def environment(self) -> str | None:
        """Return the environment that the file named when it was opened."""
        return self._environment

    async def ping(self) -> None:
        """Read a row, and see that the file is still the one that was opened."""
        await self._read("ping", self._ping)

    async def close(self) -> None:
        """Commit what waits and close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # The writer last, whose connection takes the write-ahead log along when it is the only one left.
        for lane, connection in (
            (self._scans, self._scanner),
            (self._reads, self._reader),
            (self._writes, self._writer),
        ):
            lane.close()
            connection.close()

    # --- on the event loop ----------------------------------------------------------------------------------

    async def _remember(self, group: str, name: str, value: bytes, *, ttl_seconds: int) -> None:
        check_remembered(value, ttl_seconds=ttl_seconds)
        row = (group, name, value, self._clock.now() + ttl_seconds)
        sql = "INSERT OR REPLACE INTO remembered (in_group, name, value, expires_at) VALUES (?, ?, ?, ?)"
        await self._write("remember", lambda: self._writer.execute(sql, row))

    async def _write(self, operation: str, job: Callable[[], object]) -> None:
        await _outcome(self._writes, operation, job)

    async def _read(self, operation: str, job: Callable[[], T]) -> T:
        return cast("T", await _outcome(self._reads, operation, job))

    # --- in the lanes' threads ------------------------------------------------------------------------------

    def _write_bundle(self, jobs: Sequence[Callable[[], object]]) -> Sequence[object]:
        """Do all of *jobs* in one transaction: all are durable, or none is acknowledged."""
        try:
            self._check_file()
            self._writer.execute("BEGIN IMMEDIATE")
            with _transaction_end(self._writer):
                outcomes = [job() for job in jobs]
                self._purge()
        except Exception as error:  # noqa: BLE001 -- whatever it was, the callers hear of it and the thread goes on
            return [error] * len(jobs)
        return outcomes

    def _ping(self) -> None:
        self._check_file()
        self._reader.execute("SELECT epoch FROM store").fetchone()

    def _check_file(self) -> None:
        # An open file lives on after it was deleted or replaced, and would be gone with this process.
        try:
            same = self._path.stat().st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise StoreUnavailable(f"{self._path} was replaced or removed: restart the service")

    def _purge(self) -> None:
        now = self._clock.now()
        if self._clock.monotonic() < self._purge_at:
            return
        gone = "SELECT position FROM log WHERE in_force_until < ? ORDER BY in_force_until LIMIT ?"
        purged = self._writer.execute(
            f"DELETE FROM log WHERE position IN ({gone})",  # noqa: S608 -- constant text
            (int(now) - PURGE_MARGIN_SECONDS, PURGE_ROWS),
        ).rowcount
        self._writer.execute("DELETE FROM remembered WHERE expires_at < ?", (now - PURGE_MARGIN_SECONDS,))
        # A full portion: there is more, so the next transaction takes another one.
        if purged < PURGE_ROWS:
            self._purge_at = self._clock.monotonic() + PURGE_INTERVAL_SECONDS


def _open_all(path: Path, busy_seconds: float) -> _Connections:
    if not path.is_file():
        raise StoreUnavailable(f"there is no revocation store at {path}: run `{CREATE_COMMAND}`")
    with contextlib.ExitStack() as cleanup:
        try:
            writer, reader, scanner = (
                cleanup.enter_context(contextlib.closing(_connect(path, busy_seconds))) for _ in range(3)
            )
            epoch, environment = _check_schema(writer, path), _environment(writer)
            for connection in (reader, scanner):
                connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot open the store {path}: {error}") from error
        cleanup.pop_all()
        return _Connections(writer=writer, reader=reader, scanner=scanner, epoch=epoch, environment=environment)


def _read_bundle(jobs: Sequence[Callable[[], object]]) -> Sequence[object]:
    return [_attempt(job) for job in jobs]


async def _outcome(lane: Lane, operation: str, job: Callable[[], object]) -> object:
    try:
        return await lane.submit(job)
    except (sqlite3.Error, LaneFull) as error:
        raise StoreUnavailable(f"{operation}: {error}") from error


def _attempt(job: Callable[[], object]) -> object:
    try:
        return job()
    except Exception as error:  # noqa: BLE001 -- raised again where the job came from
        return error


@contextlib.contextmanager
def _transaction_end(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the transaction that is open, or roll it back when the block or the commit fails."""
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some failures (disk full) SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, record: StoredRecord) -> None:
    latest = _latest(connection, record.id)
    if latest is not None and (latest.body, latest.in_force_until) == (record.body, record.in_force_until):
        return
    row = (record.id, record.body, record.in_force_until)
    connection.execute("INSERT INTO log (id, body, in_force_until) VALUES (?, ?, ?)", row)


def _latest(connection: sqlite3.Connection, record_id: str) -> StoredRecord | None:
    sql = f"{_RECORD} WHERE id = ? ORDER BY position DESC LIMIT 1"
    row = connection.execute(sql, (record_id,)).fetchone()
    return None if row is None else _record(row)


def _read(connection: sqlite3.Connection, after: int | None, *, now: float) -> Batch:
    # One read transaction, so that the position belongs to exactly these rows.
    connection.execute("BEGIN")
    with _transaction_end(connection):
        last = _last_position(connection)
        condition, argument = (_IN_FORCE, now) if after is None else ("position > ?", after)
        rows = connection.execute(f"{_RECORD} WHERE {condition} ORDER BY position", (argument,))
        records = tuple(_record(row) for row in rows)
    return Batch(records=records, position=max(last, after or 0))


def _read_page(connection: sqlite3.Connection, after: int, *, now: float) -> Batch:
    connection.execute("BEGIN")
    with _transaction_end(connection):
        rows = connection.execute(
            f"{_RECORD} WHERE position > ? AND {_IN_FORCE} ORDER BY position LIMIT ?", (after, now, PAGE_ROWS)
        )
        records = tuple(_record(row) for row in rows)
        return Batch(records=records, position=_last_position(connection))


def _last_position(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return 0 if row is None else int(row[0])


def _record(row: tuple[str, bytes, int | None, int]) -> StoredRecord:
    record_id, body, in_force_until, position = row
    return StoredRecord(id=record_id, body=body, in_force_until=in_force_until, position=position)
