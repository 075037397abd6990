"""
What all tests have: loopback only, an environment without the user's own settings, and the real components.

Fixtures start what they stand for when the first test asks, and end it with the run.
"""

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import cassandra as cassandra_support
from tests.support.cassandra import CassandraCluster, CassandraEndpoint, CassandraUnavailable
from tests.support.processes import Processes
from tests.support.sockets import allow_loopback_only

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from tests.support.s3 import S3Server
    from tokenry.testing import FakeClock

# 2027-01-15 08:00:00 UTC: a round number of seconds that is nobody's "now".
START_OF_TIME = 1_800_000_000.0

# The machine that runs this may be busy, so a slow example is no finding; the same examples are tried in
# every run, and `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("tokenry", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile("tokenry")

_FOREIGN_SETTINGS = ("AWS_", "TOKENRY_", "OAUTH2_", "PROMETHEUS_", "OTEL_")
_OURS = ("TOKENRY_TEST_",)


def pytest_configure(config: pytest.Config) -> None:
    _forget_foreign_settings()
    try:
        existing = cassandra_support.existing_endpoint()
    except CassandraUnavailable as error:
        raise pytest.UsageError(str(error)) from error
    allow_loopback_only(also=existing.contact_points if existing else ())


def _forget_foreign_settings() -> None:
    """A developer's credentials, proxies and settings must neither be used by a test nor decide it."""
    for name in list(os.environ):
        if (name.startswith(_FOREIGN_SETTINGS) and not name.startswith(_OURS)) or name.lower() in {
            "http_proxy",
            "https_proxy",
            "all_proxy",
        }:
            del os.environ[name]
    os.environ["NO_PROXY"] = "*"
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.devnull
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the real Cassandra, so that `-m 'not cassandra'` is the quick half."""
    for item in items:
        if {"cassandra", "cassandra_keyspace"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.cassandra)


# --- time ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Whoever ran a command or a service in this process has configured the logs of all tests behind it."""
    yield
    if configured := sys.modules.get("structlog"):  # a base install has none
        configured.reset_defaults()


@pytest.fixture
def clock() -> "FakeClock":
    """A clock that stands at 1,800,000,000 until the test advances it."""
    from tokenry.testing import FakeClock

    return FakeClock(start=START_OF_TIME)


# --- processes ----------------------------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start programs; all end with the test. Their output is in tmp_path."""
    started = Processes(tmp_path / "processes")
    yield started
    started.end()


# --- Cassandra ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraEndpoint]:
    """
    The real Cassandra of this run: one node, started for the first test that asks and shared by all.

    Fails, rather than skips, where there cannot be one. TOKENRY_TEST_CASSANDRA_CONTACT_POINTS names an
    existing cluster instead.
    """
    existing = cassandra_support.existing_endpoint()
    if existing is not None:
        yield existing
        return
    cluster = CassandraCluster(tmp_path_factory.mktemp("cassandra"))
    try:
        cluster.start()
    except CassandraUnavailable as error:
        pytest.fail(f"these tests need a real Cassandra, and there is none: {error}", pytrace=False)
    yield cluster.endpoint
    cluster.kill()


@pytest.fixture(scope="module")
def cassandra_keyspace(cassandra: CassandraEndpoint) -> Iterator[str]:
    """The name of an empty keyspace with one replica, for the tests of one module; dropped after them."""
    from cassandra.cluster import Cluster

    name = f"test_{uuid.uuid4().hex[:12]}"
    cluster = Cluster(list(cassandra.contact_points), port=cassandra.port)
    session = cluster.connect()
    # Schema changes are slow on a busy machine, and the driver's 10 s are meant for queries.
    session.default_timeout = 60
    session.execute(f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}")
    yield name
    session.execute(f"DROP KEYSPACE IF EXISTS {name}")
    cluster.shutdown()


# --- S3 -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Server"]:
    """
    The S3 of this run, over HTTP on loopback. A test that pauses it must resume it; for kills, start your
    own.
    """
    from tests.support.s3 import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_server: "S3Server") -> Iterator["S3Client"]:
    """A boto3 client of `s3_server`."""
    client = s3_server.client()
    yield client
    client.close()


@pytest.fixture
def s3_bucket(s3_server: "S3Server", s3_client: "S3Client") -> str:
    """The name of a fresh, empty bucket."""
    name = f"tokenry-test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": s3_server.region})
    return name
