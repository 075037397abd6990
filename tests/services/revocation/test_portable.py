"""Revocations as one file, and back: into another store, and of another kind."""

import io
import json
import random

import pytest

from tests.support.revocation_stores import cassandra_options, create_cassandra_schema
from tokenry.clock import SystemClock
from tokenry_revocation.adapters import sqlite
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.memory import MemoryLog, MemoryStore
from tokenry_revocation.adapters.sqlite import SqliteStore
from tokenry_revocation.portable import ExportRefused, check, export, restore
from tokenry_revocation.ports import (
    MAX_BODY_BYTES,
    MAX_TTL_SECONDS,
    RecordOutlivesStore,
    StoredRecord,
    StoreUnavailable,
)

OURS = {"issuer": "https://issuer.test", "environment": "test"}
_random = random.Random(3)  # noqa: S311 -- reproducible, not secret


def a_record(now, *, seconds=600, body=None, name=None):
    return StoredRecord(
        id=name or f"r{_random.getrandbits(64):x}",
        body=_random.randbytes(40) if body is None else body,
        in_force_until=None if seconds is None else int(now + seconds),
    )


def essence(records):
    return {(record.id, record.body, record.in_force_until) for record in records}


async def exported(store, now):
    file = io.BytesIO()
    await export(store, file, **OURS, now=now)
    return file


@pytest.fixture
async def sqlite_store(tmp_path, clock):
    sqlite.create_schema(tmp_path / "a.sqlite", now=clock.now())
    store = await SqliteStore.open(tmp_path / "a.sqlite", clock=clock)
    yield store
    await store.close()


@pytest.fixture
def memory(clock):
    return MemoryStore(clock, shared=MemoryLog())


async def test_what_is_in_force_comes_back_whole_in_a_store_of_another_kind(sqlite_store, memory, clock):
    now = clock.now()
    records = [
        *(a_record(now) for _ in range(150)),
        a_record(now, seconds=None),
        a_record(now, body=_random.randbytes(MAX_BODY_BYTES), seconds=MAX_TTL_SECONDS),
        a_record(now, name="käse|%_ \U0001f511"),
    ]
    for record in records:
        await sqlite_store.append(record)
    file = await exported(sqlite_store, now)
    assert check(file, **OURS).records == len(records)
    assert await restore(file, memory, **OURS, now=now) == (len(records), 0)
    assert essence((await memory.read(None)).records) == essence(records)


async def test_restoring_again_and_into_a_store_in_use_takes_nothing_away(sqlite_store, memory, clock):
    now = clock.now()
    kept, saved = a_record(now), a_record(now)
    await sqlite_store.append(saved)
    await memory.append(kept)
    file = await exported(sqlite_store, now)
    for _ in range(2):
        await restore(file, memory, **OURS, now=now)
    assert essence((await memory.read(None)).records) == essence([kept, saved])


async def test_what_has_run_out_since_is_left_out_and_told(sqlite_store, memory, clock):
    await sqlite_store.append(a_record(clock.now(), seconds=60))
    await sqlite_store.append(later := a_record(clock.now(), seconds=600))
    file = await exported(sqlite_store, clock.now())
    clock.advance(61)
    assert await restore(file, memory, **OURS, now=clock.now()) == (1, 1)
    assert essence((await memory.read(None)).records) == essence([later])
    assert check(await exported(sqlite_store, clock.now()), **OURS).records == 1


async def test_of_one_id_the_last_one_counts_after_a_restore_as_well(memory, clock):
    now = clock.now()
    first, second = (a_record(now, name="same", body=body) for body in (b"first", b"second"))
    source = MemoryStore(clock, shared=MemoryLog())
    await source.append(first)
    await source.append(second)
    file = await exported(source, now)
    lines = file.getvalue().splitlines(keepends=True)
    # Pages come in no order.
    shuffled = _signed([lines[0], *reversed(lines[1:-1])])
    await restore(io.BytesIO(shuffled), memory, **OURS, now=now)
    found = await memory.get("same")
    assert found is not None
    assert found.body == b"second"


def _signed(lines):
    import hashlib

    last = json.dumps({"records": len(lines) - 1, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()})
    return b"".join([*lines, last.encode(), b"\n"])


async def test_a_file_that_was_cut_or_changed_anywhere_restores_nothing(sqlite_store, memory, clock):
    for _ in range(3):
        await sqlite_store.append(a_record(clock.now()))
    whole = (await exported(sqlite_store, clock.now())).getvalue()
    lines = whole.splitlines(keepends=True)
    damaged = [whole[:cut] for cut in range(0, len(whole), 7)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole) - 1, 3)]
    damaged += [whole + lines[1], b"".join([lines[0], *lines[2:]]), b"".join(lines[1:]), b"\n" + whole]
    for each in damaged:
        with pytest.raises(ExportRefused):
            await restore(io.BytesIO(each), memory, **OURS, now=clock.now())
    assert (await memory.read(None)).records == ()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"issuer": "https://other.test"}, "another issuer"),
        ({"environment": "production"}, "another environment"),
        ({"version": 2}, "another release"),
        ({"format": "x"}, "no export"),
        ({"epoch": "1"}, "malformed"),
    ],
)
def test_a_file_of_another_platform_or_release_is_refused(members, why):
    first = {"format": "tokenry-revocations", "version": 1, **OURS, "epoch": 1, "made_at": 1, **members}
    with pytest.raises(ExportRefused, match=why):
        check(io.BytesIO(_signed([json.dumps(first).encode() + b"\n"])), **OURS)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"body": None},
        {"body": 7},
        {"body": "e30="},
        {"id": ""},
        {"id": 7},
        {"until": "1"},
        {"until": True},
        {"until": -1},
        {"position": None},
    ],
)
def test_a_record_that_is_none_is_refused(record):
    first = {"format": "tokenry-revocations", "version": 1, **OURS, "epoch": 1, "made_at": 1}
    good = {"id": "a", "until": 1, "position": 1, "body": "e30"}
    check(io.BytesIO(_signed([json.dumps(each).encode() + b"\n" for each in (first, good)])), **OURS)
    wrong = {**good, **record} if record else {}
    lines = [json.dumps(each).encode() + b"\n" for each in (first, wrong)]
    with pytest.raises(ExportRefused, match="malformed"):
        check(io.BytesIO(_signed(lines)), **OURS)


class Failing(MemoryStore):
    """A store that fails at its fifth append."""

    def __init__(self, clock, error):
        super().__init__(clock, shared=MemoryLog())
        self.error, self.appends = error, 0

    async def append(self, record):
        self.appends += 1
        if self.error and self.appends == 5:
            raise self.error
        await super().append(record)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RecordOutlivesStore("too long")])
async def test_a_restore_that_fails_says_so_and_goes_on_when_it_is_run_again(sqlite_store, clock, error):
    records = [a_record(clock.now()) for _ in range(10)]
    for record in records:
        await sqlite_store.append(record)
    file, store = await exported(sqlite_store, clock.now()), Failing(clock, error)
    with pytest.raises(type(error)):
        await restore(file, store, **OURS, now=clock.now())
    store.error = None
    assert await restore(file, store, **OURS, now=clock.now()) == (10, 0)
    assert essence((await store.read(None)).records) == essence(records)


async def test_from_cassandra_and_back(cassandra, cassandra_keyspace, sqlite_store, clock):
    """From a real cluster into SQLite, and from there into the cluster again, where it is read."""
    await create_cassandra_schema(cassandra, cassandra_keyspace)
    now = SystemClock().now()
    store = await CassandraStore.open(cassandra_options(cassandra, cassandra_keyspace), clock=SystemClock())
    try:
        records = [a_record(now), a_record(now, seconds=None), a_record(now, seconds=20 * 24 * 3600)]
        for record in records:
            await store.append(record)
        file = await exported(store, now)
        clock.set_wall_clock(now)
        assert await restore(file, sqlite_store, **OURS, now=now) == (3, 0)
        await sqlite_store.append(another := a_record(now))
        back = await exported(sqlite_store, now)
        assert await restore(back, store, **OURS, now=now) == (4, 0)
        assert essence((await store.read(None)).records) == essence([*records, another])
    finally:
        await store.close()
