"""Which store a URL names, and how to open or create it: what the composition root calls."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from tokenry.errors import ConfigurationError
from tokenry_revocation.adapters.cassandra_options import CassandraOptions, TlsOptions
from tokenry_revocation.ports import CREATE_COMMAND, check_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenry.clock import Clock
    from tokenry.secret import Secret
    from tokenry_revocation.ports import RevocationStore

StoreLocation: TypeAlias = Path | CassandraOptions

DEFAULT_PORT: Final = 9042
_log = logging.getLogger(__name__)

_PARAMETERS: Final = {
    "datacenter",
    "readers",
    "write_consistency",
    "tls",
    "ca_file",
    "certificate_file",
    "key_file",
    "check_hostname",
}


def parse_store_url(url: str, *, username: str | None = None, password: Secret | None = None) -> StoreLocation:
    """
    Return what *url* names: the path of a SQLite file, or the options of a Cassandra store.

    Args:
        url: `sqlite:///absolute/path` or `cassandra://host[:port][,host…]/keyspace[?…]` with, after the
            question mark: `datacenter` (whose nodes to use), `readers` (the datacentres that read, separated
            by commas), `write_consistency` (`local_quorum`, `each_quorum`), `tls` (`true`, `false`),
            `ca_file`, `certificate_file`, `key_file`, `check_hostname`.
        username: For Cassandra; never in the URL, which is shown.
        password: Likewise.

    Raises:
        ConfigurationError: With all that is wrong.
    """
    try:
        parts = urlsplit(url)
        match parts.scheme:
            case "sqlite":
                return _sqlite_path(parts)
            case "cassandra":
                return _cassandra_options(parts, username=username, password=password)
    except ValueError as error:  # urlsplit's own, of brackets and ports
        raise ConfigurationError([f"the store's URL cannot be read: {error}"]) from error
    raise ConfigurationError(["the store's URL begins with sqlite:/// or cassandra://"])


async def open_store(location: StoreLocation, *, clock: Clock, environment: str) -> RevocationStore:
    """
    Open the store at *location*, which exists, and see that it is one of our environment.

    Args:
        location: From `parse_store_url`.
        clock: Where the time comes from.
        environment: Ours. A store that names none, of an earlier release, is taken for ours.

    Raises:
        StoreUnavailable: It does not answer, or does not exist; the text says what to run.
        ConfigurationError: What is configured contradicts the store, or the store belongs to another environment.
    """
    store = await _opened(location, clock=clock)
    try:
        named = await store.environment()
        check_environment(named, wanted=environment)
    except BaseException:
        await store.close()
        raise
    if named is None:
        _log.warning("the revocation store names no environment yet: run `%s`", CREATE_COMMAND)
    return store


async def _opened(location: StoreLocation, *, clock: Clock) -> RevocationStore:
    match location:
        case Path():
            from tokenry_revocation.adapters.sqlite import SqliteStore

            return await SqliteStore.open(location, clock=clock)
        case CassandraOptions():
            from tokenry_revocation.adapters.cassandra import CassandraStore

            return await CassandraStore.open(location, clock=clock)
        case never:
            assert_never(never)


async def create_store(
    location: StoreLocation,
    *,
    now: float,
    retention_seconds: int,
    environment: str,
    replication: Mapping[str, int] | None = None,
) -> int:
    """
    Create the store at *location* unless it exists, and return its epoch.

    Args:
        location: From `parse_store_url`.
        now: Unix seconds; the epoch of a new store.
        retention_seconds: Longest life of an ordinary record: at least that of a token plus the skew. Only
            Cassandra needs it.
        environment: Named in the store, unless it names one already.
        replication: Replicas in each datacentre, as in {"eu-central": 3}; None if the keyspace exists.
            Likewise.

    Raises:
        StoreUnavailable: It cannot be created.
        ConfigurationError: A value is out of bounds, or the store belongs to another environment: nothing was changed.
    """
    match location:
        case Path():
            from tokenry_revocation.adapters import sqlite

            return await asyncio.to_thread(partial(sqlite.create_schema, location, now=now, environment=environment))
        case CassandraOptions():
            from tokenry_revocation.adapters import cassandra_schema

            return await cassandra_schema.create_schema(
                location,
                replication=replication,
                retention_seconds=retention_seconds,
                now=now,
                environment=environment,
            )
        case never:
            assert_never(never)


def _sqlite_path(parts: SplitResult) -> Path:
    path = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or not path.startswith("/") or path.endswith("/"):
        raise ConfigurationError(["the store's URL is sqlite:/// and the absolute path of a file"])
    return Path(path)


def _cassandra_options(parts: SplitResult, *, username: str | None, password: Secret | None) -> CassandraOptions:
    if "@" in parts.netloc:
        raise ConfigurationError(["the store's URL holds no user name and no password: set them by themselves"])
    values = _parameters(parts.query)
    return CassandraOptions(
        contact_points=tuple(_host_and_port(text) for text in parts.netloc.split(",") if text),
        keyspace=parts.path.removeprefix("/"),
        local_datacenter=values.get("datacenter"),
        reader_datacenters=tuple(name for name in values.get("readers", "").split(",") if name),
        write_consistency=values.get("write_consistency", "local_quorum").upper(),
        username=username,
        password=password,
        tls=_tls(values),
    )


def _parameters(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=32)
    unknown = sorted({name for name, _ in pairs} - _PARAMETERS)
    if unknown:
        raise ConfigurationError([f"the store's URL has a parameter {name!r}, which means nothing" for name in unknown])
    if len(dict(pairs)) != len(pairs):
        raise ConfigurationError(["the store's URL gives one parameter twice"])
    return dict(pairs)


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ConfigurationError([f"the store's URL has no host in {text!r}"])
    return parts.hostname, parts.port or DEFAULT_PORT


def _tls(values: Mapping[str, str]) -> TlsOptions | None:
    files = {name: Path(values[name]) for name in ("ca_file", "certificate_file", "key_file") if name in values}
    if not _flag(values, "tls", default=bool(files)):
        if files:
            raise ConfigurationError(["the store's URL names files for TLS and turns TLS off"])
        return None
    return TlsOptions(
        ca_file=files.get("ca_file"),
        certificate_file=files.get("certificate_file"),
        key_file=files.get("key_file"),
        check_hostname=_flag(values, "check_hostname", default=True),
    )


def _flag(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = values.get(name, str(default)).lower()
    if text not in {"true", "false"}:
        raise ConfigurationError([f"{name} in the store's URL is true or false"])
    return text == "true"
