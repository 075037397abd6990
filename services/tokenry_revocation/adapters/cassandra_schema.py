"""
The keyspace of the Cassandra store: made in a step of its own, and checked at each start.

Two programs that make tables at the same moment can leave Cassandra with two tables of one name, so the step
is run once, by one job, before the services start; they only look.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from cassandra import ConsistencyLevel, InvalidRequest
from cassandra.query import SimpleStatement

from tokenry.errors import ConfigurationError
from tokenry_revocation.adapters.cassandra_session import connect_cluster, unavailable
from tokenry_revocation.ports import CREATE_COMMAND, MAX_TTL_SECONDS, StoreUnavailable, check_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry_revocation.adapters.cassandra_options import CassandraOptions
    from tokenry_revocation.adapters.cassandra_session import Driver

VERSION: Final = 1

# A row's end is computed by its coordinator's clock and judged by another's: an hour covers a node that is
# ten minutes off, the write deadline and whatever skew is configured.
TTL_MARGIN_SECONDS: Final = 3600
# Above the three hours for which hints are kept by default, so that no replica misses what has expired.
GC_GRACE_SECONDS: Final = 4 * 3600
# Wide against every skew that is allowed (seconds), small against a lifetime (hours).
BUCKET_SECONDS: Final = 600
# At a thousand revocations a second, some 150,000 rows a partition.
SHARDS: Final = 4
# A rule of thumb for the compaction: 20 to 30 windows in one lifetime.
_WINDOWS: Final = 24
# Changes of the schema wait until all nodes agree.
_SCHEMA_SECONDS: Final = 60.0
_NAME: Final = "revocations"
# A shorter bucket comes near to the skew; a longer one makes partitions without end.
_LEAST_SECONDS: Final = 60
_DAY_SECONDS: Final = 24 * 3600
# Each read asks every shard.
_MOST_SHARDS: Final = 64
_MOST_REPLICAS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDescription:
    """
    The row that says what the store is, and the environment that it names.

    Attributes:
        epoch: Unix seconds of its creation.
        retention_seconds: How long an ordinary record may be in force.
        bucket_seconds: The span of one bucket.
        shards: Partitions of a bucket.
        environment: The environment that it was created for; None for a store that names none.
    """

    epoch: int
    retention_seconds: int
    bucket_seconds: int = BUCKET_SECONDS
    shards: int = SHARDS
    environment: str | None = None

    def __post_init__(self) -> None:
        """Check itself; raises ConfigurationError."""
        faults = []
        if not _LEAST_SECONDS <= self.retention_seconds <= MAX_TTL_SECONDS:
            faults.append(f"the store's retention must lie between {_LEAST_SECONDS} and {MAX_TTL_SECONDS} s")
        if not 1 <= self.shards <= _MOST_SHARDS:
            faults.append(f"the store needs 1 to {_MOST_SHARDS} shards")
        if not _LEAST_SECONDS <= self.bucket_seconds <= _DAY_SECONDS:
            faults.append("the store's buckets must span between a minute and a day")
        if faults:
            raise ConfigurationError(faults)

    @property
    def ttl_seconds(self) -> int:
        """How long every row of the log lives."""
        return self.retention_seconds + TTL_MARGIN_SECONDS

    @property
    def registry_ttl_seconds(self) -> int:
        """How long the mark of a bucket lives: as long as any row that was written into it."""
        return self.ttl_seconds + self.bucket_seconds + TTL_MARGIN_SECONDS


async def create_schema(
    options: CassandraOptions,
    *,
    replication: Mapping[str, int] | None,
    retention_seconds: int,
    now: float,
    environment: str | None = None,
) -> int:
    """
    Make keyspace and tables, and return the store's epoch; harmless when they are there.

    Args:
        options: Where; the user needs the right to create.
        replication: Replicas in each datacentre, as in {"eu-central": 3}; None if the keyspace exists.
        retention_seconds: Longest life of an ordinary record. A later call may raise it, and never lowers it.
        now: Unix seconds; the epoch of a new store.
        environment: Name to give to a store that has none; None gives none.

    Raises:
        StoreUnavailable: The cluster does not answer or refuses, or has another version of the schema.
        ConfigurationError: A value is out of bounds, or the store belongs to another environment: nothing was changed.
    """
    wanted = StoreDescription(epoch=int(now), retention_seconds=retention_seconds, environment=environment)
    return await asyncio.to_thread(partial(_create, options, replication=replication, wanted=wanted))


def _create(options: CassandraOptions, *, replication: Mapping[str, int] | None, wanted: StoreDescription) -> int:
    statements = _statements(options.keyspace, wanted)
    if replication is not None:
        statements.insert(0, _create_keyspace(options.keyspace, replication))
    cluster, session = connect_cluster(options)
    try:
        _check_environment(session, options.keyspace, wanted)  # before anything of another one is touched
        for statement in statements:
            _execute(session, statement)
        _insert_description(session, options.keyspace, wanted)
        found = _read_description(session, options.keyspace)
        _name_environment(session, options.keyspace, wanted)
        if found.retention_seconds < wanted.retention_seconds:
            found = _raise_retention(session, options.keyspace, found, wanted.retention_seconds)
    except (StoreUnavailable, ConfigurationError):
        raise
    except Exception as error:
        raise unavailable(error) from error
    finally:
        cluster.shutdown()
    return found.epoch


def _execute(session: Driver, statement: str, values: tuple[object, ...] = ()) -> Driver:
    # Conditions are decided among all replicas, whichever datacentre runs the step.
    query = SimpleStatement(
        statement,
        consistency_level=ConsistencyLevel.QUORUM,
        serial_consistency_level=ConsistencyLevel.SERIAL,
    )
    return session.execute(query, values, timeout=_SCHEMA_SECONDS)


def _create_keyspace(keyspace: str, replication: Mapping[str, int]) -> str:
    for datacenter, factor in replication.items():
        if not datacenter.replace("-", "").replace("_", "").isalnum() or not 1 <= factor <= _MOST_REPLICAS:
            raise ConfigurationError([f"{datacenter!r}: {factor} is no replication: name a datacentre, 1 to 9"])
    factors = "".join(f", '{datacenter}': {factor}" for datacenter, factor in replication.items())
    strategy = f"{{'class': 'NetworkTopologyStrategy'{factors}}}"
    return f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {strategy}"


def _statements(keyspace: str, wanted: StoreDescription) -> list[str]:
    text = Path(__file__).with_name("schema.cql").read_text(encoding="utf-8")
    bare = "\n".join(line.partition("--")[0] for line in text.splitlines())
    filled = Template(bare).substitute(keyspace=keyspace, gc_grace=GC_GRACE_SECONDS, **_lifetimes(wanted))
    return [statement for part in filled.split(";") if (statement := part.strip())]


def _lifetimes(description: StoreDescription) -> dict[str, int]:
    return {
        "ttl": description.ttl_seconds,
        "registry_ttl": description.registry_ttl_seconds,
        "window": max(1, description.ttl_seconds // _WINDOWS // 60),
    }


def _insert_description(session: Driver, keyspace: str, wanted: StoreDescription) -> None:
    _execute(
        session,
        f"INSERT INTO {keyspace}.store"  # noqa: S608 -- the name is checked in the options
        " (name, version, epoch, retention_seconds, bucket_seconds, shards)"
        " VALUES (%s, %s, %s, %s, %s, %s) IF NOT EXISTS",
        (_NAME, VERSION, wanted.epoch, wanted.retention_seconds, wanted.bucket_seconds, wanted.shards),
    )


def _name_environment(session: Driver, keyspace: str, wanted: StoreDescription) -> None:
    if wanted.environment is None:
        return
    insert = f"INSERT INTO {keyspace}.store_environment (name, environment) VALUES (%s, %s) IF NOT EXISTS"  # noqa: S608
    _execute(session, insert, (_NAME, wanted.environment))
    _check_environment(session, keyspace, wanted)  # another one's step may have come first


def _check_environment(session: Driver, keyspace: str, wanted: StoreDescription) -> None:
    if wanted.environment is None:
        return
    try:
        rows = _execute(session, environment_query(keyspace, name=f"'{_NAME}'")).all()
    except InvalidRequest:
        return  # no keyspace or no table: nobody has named it
    check_environment(named_environment(rows), wanted=wanted.environment)


def _raise_retention(
    session: Driver, keyspace: str, found: StoreDescription, retention_seconds: int
) -> StoreDescription:
    raised = replace(found, retention_seconds=retention_seconds)
    lifetimes = _lifetimes(raised)
    for table in ("log", "records"):
        _execute(session, f"ALTER TABLE {keyspace}.{table} WITH default_time_to_live = {lifetimes['ttl']}")
    registry = f"{keyspace}.log_buckets WITH default_time_to_live = {lifetimes['registry_ttl']}"
    _execute(session, f"ALTER TABLE {registry}")
    # Last, so that nobody relies on the longer life before the tables have it.
    update = f"UPDATE {keyspace}.store SET retention_seconds = %s WHERE name = %s IF EXISTS"  # noqa: S608
    _execute(session, update, (retention_seconds, _NAME))
    return raised


def _read_description(session: Driver, keyspace: str) -> StoreDescription:
    return describe(_execute(session, description_query(keyspace, name=f"'{_NAME}'")).all(), keyspace=keyspace)


def description_query(keyspace: str, *, name: str) -> str:
    """Return the query for the row that says what the store is; *name* is a literal or `?`."""
    columns = "version, epoch, retention_seconds, bucket_seconds, shards"
    return f"SELECT {columns} FROM {keyspace}.store WHERE name = {name}"  # noqa: S608 -- checked in the options


def environment_query(keyspace: str, *, name: str) -> str:
    """Return the query for the environment that the store names; *name* is a literal or `?`."""
    return f"SELECT environment FROM {keyspace}.store_environment WHERE name = {name}"  # noqa: S608 -- likewise


def named_environment(rows: list[tuple[str]]) -> str | None:
    """Return what the answer to `environment_query` says: None where nobody has named it."""
    return rows[0][0] if rows else None


# Of both queries.
DESCRIPTION_KEY: Final = (_NAME,)


def describe(rows: list[tuple[int, ...]], *, keyspace: str) -> StoreDescription:
    """
    Return what the answer to `description_query` says.

    Raises:
        StoreUnavailable: There is no store, or one of another version; the text says what to run.
    """
    if not rows:
        raise no_store(keyspace)
    version, epoch, retention_seconds, bucket_seconds, shards = rows[0]
    if version != VERSION:
        raise StoreUnavailable(
            f"keyspace {keyspace} has schema version {version}, this program needs {VERSION}:"
            f" run `{CREATE_COMMAND}` of the matching release"
        )
    return StoreDescription(
        epoch=epoch, retention_seconds=retention_seconds, bucket_seconds=bucket_seconds, shards=shards
    )


def no_store(keyspace: str) -> StoreUnavailable:
    """Return the error that says how to make the store."""
    return StoreUnavailable(f"keyspace {keyspace} holds no revocation store yet: run `{CREATE_COMMAND}`")


def is_missing_schema(error: BaseException | None) -> bool:
    """Tell whether the driver's *error* means that keyspace or table is not there."""
    return isinstance(error, InvalidRequest)
