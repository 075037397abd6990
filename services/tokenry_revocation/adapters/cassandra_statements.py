"""The statements that the Cassandra store executes: all of them idempotent, none of them a delete."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenry_revocation.adapters.cassandra_schema import StoreDescription
    from tokenry_revocation.adapters.cassandra_session import CqlSession, Driver

_COLUMNS = "id, body, in_force_until, stamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Prepared statements, by what they do."""

    insert_log: Driver
    insert_bucket: Driver
    insert_record: Driver
    insert_lasting: Driver
    insert_remembered: Driver
    insert_member: Driver
    select_log: Driver
    select_buckets: Driver
    select_record: Driver
    select_lasting: Driver
    select_lasting_record: Driver
    select_remembered: Driver
    select_members: Driver

    @classmethod
    async def prepare(cls, session: CqlSession, keyspace: str, description: StoreDescription) -> Statements:
        """Prepare all; raises StoreUnavailable, also when a table is missing."""
        texts = _texts(keyspace, description)
        return cls(**{field.name: await session.prepare(texts[field.name]) for field in fields(cls)})


def _texts(keyspace: str, description: StoreDescription) -> dict[str, str]:
    # The lifetime is written out, and so is the one that this process checks records against: a table that
    # was altered meanwhile changes nothing for it.
    ttl, registry_ttl = description.ttl_seconds, description.registry_ttl_seconds
    k = keyspace
    # ruff: noqa: S608 -- the keyspace is checked in the options, everything else is bound
    return {
        "insert_log": f"INSERT INTO {k}.log (bucket, shard, stamp, id, body, in_force_until)"
        f" VALUES (?, ?, ?, ?, ?, ?) USING TTL {ttl}",
        "insert_bucket": f"INSERT INTO {k}.log_buckets (log, bucket) VALUES (?, ?) USING TTL {registry_ttl}",
        "insert_record": f"INSERT INTO {k}.records ({_COLUMNS}) VALUES (?, ?, ?, ?) USING TTL {ttl}",
        "insert_lasting": f"INSERT INTO {k}.lasting (log, {_COLUMNS}) VALUES (?, ?, ?, ?, ?) USING TTL ?",
        "insert_remembered": f"INSERT INTO {k}.remembered (name, value) VALUES (?, ?) USING TTL ?",
        "insert_member": f"INSERT INTO {k}.remembered_members (in_group, name, value) VALUES (?, ?, ?) USING TTL ?",
        "select_log": f"SELECT {_COLUMNS} FROM {k}.log WHERE bucket = ? AND shard = ? AND stamp >= ?",
        "select_buckets": f"SELECT bucket FROM {k}.log_buckets WHERE log = ?",
        "select_record": f"SELECT {_COLUMNS} FROM {k}.records WHERE id = ?",
        "select_lasting": f"SELECT {_COLUMNS} FROM {k}.lasting WHERE log = ?",
        "select_lasting_record": f"SELECT {_COLUMNS} FROM {k}.lasting WHERE log = ? AND id = ?",
        "select_remembered": f"SELECT value FROM {k}.remembered WHERE name = ?",
        "select_members": f"SELECT name, value FROM {k}.remembered_members WHERE in_group = ?",
    }
