"""Which store a URL names."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tokenry.errors import ConfigurationError
from tokenry.secret import Secret
from tokenry.testing.clock import FakeClock
from tokenry_revocation.adapters import sqlite
from tokenry_revocation.adapters.cassandra_options import CassandraOptions, TlsOptions
from tokenry_revocation.adapters.location import create_store, open_store, parse_store_url
from tokenry_revocation.adapters.sqlite import SqliteStore
from tokenry_revocation.ports import StoredRecord


def test_a_file() -> None:
    assert parse_store_url("sqlite:///var/lib/tokenry/revocations%20of%20today.db") == Path(
        "/var/lib/tokenry/revocations of today.db"
    )


def test_a_cluster() -> None:
    password = Secret("p")
    location = parse_store_url("cassandra://a:9142,b,[::1]:9043/tokenry", username="u", password=password)

    assert location == CassandraOptions(
        contact_points=(("a", 9142), ("b", 9042), ("::1", 9043)),
        keyspace="tokenry",
        username="u",
        password=password,
    )


def test_a_cluster_with_everything() -> None:
    location = parse_store_url(
        "cassandra://a/tokenry?datacenter=eu&readers=eu,us&write_consistency=each_quorum"
        "&tls=true&ca_file=/ca.pem&certificate_file=/c.pem&key_file=/k.pem&check_hostname=false"
    )

    assert location == CassandraOptions(
        contact_points=(("a", 9042),),
        keyspace="tokenry",
        local_datacenter="eu",
        reader_datacenters=("eu", "us"),
        write_consistency="EACH_QUORUM",
        tls=TlsOptions(
            ca_file=Path("/ca.pem"),
            certificate_file=Path("/c.pem"),
            key_file=Path("/k.pem"),
            check_hostname=False,
        ),
    )


def test_a_ca_file_turns_tls_on() -> None:
    location = parse_store_url("cassandra://a/tokenry?ca_file=/ca.pem")

    assert isinstance(location, CassandraOptions)
    assert location.tls == TlsOptions(ca_file=Path("/ca.pem"))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "begins with"),
        ("postgres://a/b", "begins with"),
        ("sqlite://relative/path.db", "absolute path"),
        ("sqlite:path.db", "absolute path"),
        ("sqlite:///", "absolute path"),
        ("sqlite:///path.db?mode=memory", "absolute path"),
        ("cassandra:///tokenry", "no contact point"),
        ("cassandra://a/", "CQL name"),
        ("cassandra://a", "CQL name"),
        ("cassandra://a/b/c", "CQL name"),
        ("cassandra://u:p@a/tokenry", "no user name and no password"),
        ("cassandra://a:port/tokenry", "cannot be read"),
        ("cassandra://a:99999/tokenry", "cannot be read"),
        ("cassandra://[::1/tokenry", "cannot be read"),
        ("cassandra://:9042/tokenry", "no host"),
        ("cassandra://a/tokenry?consistency=one", "'consistency', which means nothing"),
        ("cassandra://a/tokenry?tls=yes", "tls in the store's URL is true or false"),
        ("cassandra://a/tokenry?tls", "cannot be read"),
        ("cassandra://a/tokenry?tls=true&tls=false", "gives one parameter twice"),
        ("cassandra://a/tokenry?tls=false&ca_file=/ca.pem", "turns TLS off"),
        ("cassandra://a/tokenry?write_consistency=one", "write consistency"),
        ("cassandra://a/tokenry?readers=eu,us", "EACH_QUORUM"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        parse_store_url(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_store_url("cassandra://admin:hunter2@a/tokenry")

    assert "hunter2" not in str(refused.value)


async def test_a_file_is_created_and_opened(tmp_path: Path, clock: FakeClock) -> None:
    location = parse_store_url(f"sqlite://{tmp_path}/revocations.db")

    epoch = await create_store(location, now=clock.now(), retention_seconds=3600, environment="production")
    store = await open_store(location, clock=clock, environment="production")

    assert isinstance(store, SqliteStore)
    assert await store.epoch() == epoch == int(clock.now())
    assert await store.environment() == "production"
    await store.close()


async def test_F56_a_store_of_another_environment_is_neither_opened_nor_changed(
    tmp_path: Path, clock: FakeClock
) -> None:
    location = parse_store_url(f"sqlite://{tmp_path}/revocations.db")
    await create_store(location, now=clock.now(), retention_seconds=3600, environment="production")
    refusal = "belongs to the environment production, and TOKENRY_ENVIRONMENT is staging: name this environment's store"

    with pytest.raises(ConfigurationError, match=refusal):
        await open_store(location, clock=clock, environment="staging")
    with pytest.raises(ConfigurationError, match=refusal):
        await create_store(location, now=clock.now(), retention_seconds=3600, environment="staging")

    store = await open_store(location, clock=clock, environment="production")
    assert await store.environment() == "production"
    await store.close()
    # A copy for another environment gets that one's name by hand, as docs/revocation-store.md says.
    with contextlib.closing(sqlite3.connect(tmp_path / "revocations.db")) as connection, connection:
        connection.execute("UPDATE store_environment SET environment = 'staging'")
    await (await open_store(location, clock=clock, environment="staging")).close()


async def test_a_store_of_before_is_taken_for_ours_until_it_gets_its_name(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As the first release made it: without the table that holds the name."""
    location = parse_store_url(f"sqlite://{tmp_path}/revocations.db")
    assert isinstance(location, Path)
    epoch = sqlite.create_schema(location, now=clock.now(), added=())

    older = await open_store(location, clock=clock, environment="staging")
    assert await older.environment() is None
    assert "names no environment yet: run `tokenry serve revocation --create-schema`" in caplog.text
    named = await create_store(location, now=clock.now() + 9, retention_seconds=3600, environment="production")

    # What was open before works on beside the new table; what starts from now on is compared.
    await older.append(StoredRecord(id="a", body=b"{}", in_force_until=None))
    await older.ping()
    await older.close()
    assert named == epoch
    with pytest.raises(ConfigurationError, match="belongs to the environment production"):
        await open_store(location, clock=clock, environment="staging")
