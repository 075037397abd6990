"""The Cassandra store's options, its driver's settings and its clock, as far as they need no Cassandra."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT
from cassandra.policies import ConstantSpeculativeExecutionPolicy

from tokenry.errors import ConfigurationError
from tokenry.secret import Secret
from tokenry.testing.clock import FakeClock
from tokenry_revocation.adapters import cassandra_schema
from tokenry_revocation.adapters.cassandra import CassandraStore
from tokenry_revocation.adapters.cassandra_options import CassandraOptions, TlsOptions
from tokenry_revocation.adapters.cassandra_schema import StoreDescription
from tokenry_revocation.adapters.cassandra_session import _cluster_arguments
from tokenry_revocation.adapters.store_clock import StoreClock
from tokenry_revocation.ports import StoreUnavailable

GOOD: dict[str, Any] = {"contact_points": (("127.0.0.1", 9042),), "keyspace": "tokenry"}


def options(**changed: object) -> CassandraOptions:
    return CassandraOptions(**(GOOD | changed))


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"contact_points": ()}, "no contact point"),
        ({"keyspace": ""}, "lower-case CQL name"),
        ({"keyspace": "Tokenry"}, "lower-case CQL name"),
        ({"keyspace": "a; DROP KEYSPACE b"}, "lower-case CQL name"),
        ({"keyspace": "x" * 49}, "lower-case CQL name"),
        ({"write_consistency": "ONE"}, "LOCAL_QUORUM, EACH_QUORUM"),
        ({"username": "u"}, "go together"),
        ({"password": Secret("p")}, "go together"),
        ({"request_seconds": 0.0}, "request time"),
        ({"write_seconds": 11.0}, "write deadline"),
        ({"skew_seconds": 0.01}, "clock skew"),
        ({"skew_seconds": float("nan")}, "clock skew"),
    ],
)
def test_a_wrong_option_is_refused_by_name(wrong: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        options(**wrong)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        options(keyspace="A", write_consistency="ONE", skew_seconds=0)

    assert len(refused.value.faults) == 3


@pytest.mark.parametrize(
    "readers",
    [
        {"reader_datacenters": ("one", "two")},
        {"reader_datacenters": ("two",), "local_datacenter": "one"},
        {"reader_datacenters": ("one", "two"), "local_datacenter": "one"},
    ],
)
def test_readers_elsewhere_need_a_quorum_in_each_datacentre(readers: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="EACH_QUORUM"):
        options(**readers)
    options(**readers, write_consistency="EACH_QUORUM")


def test_readers_at_home_need_no_more_than_a_local_quorum() -> None:
    options(reader_datacenters=("one",), local_datacenter="one")


def test_a_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(options(username="u", password=Secret("hunter2")))


# --- the driver ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write_consistency", ["LOCAL_QUORUM", "EACH_QUORUM"])
def test_reads_need_a_local_quorum_and_writes_what_is_configured(write_consistency: str) -> None:
    profiles = _cluster_arguments(options(write_consistency=write_consistency), None)["execution_profiles"]

    assert profiles["read"].consistency_level == ConsistencyLevel.LOCAL_QUORUM
    assert profiles["write"].consistency_level == ConsistencyLevel.name_to_value[write_consistency]
    assert profiles[EXEC_PROFILE_DEFAULT] is profiles["read"]
    for profile in profiles.values():
        assert profile.request_timeout == 2.0
        assert isinstance(profile.speculative_execution_policy, ConstantSpeculativeExecutionPolicy)


def test_it_tries_to_reconnect_within_ten_seconds_for_ever() -> None:
    schedule = _cluster_arguments(options(), None)["reconnection_policy"].new_schedule()

    delays = [delay for delay, _ in zip(schedule, range(40), strict=False)]
    assert delays[0] <= 1
    assert max(delays) <= 12


def test_user_name_and_password_reach_the_driver() -> None:
    provider = _cluster_arguments(options(username="u", password=Secret("p")), None)["auth_provider"]

    assert isinstance(provider, PlainTextAuthProvider)
    assert (provider.username, provider.password) == ("u", "p")
    assert _cluster_arguments(options(), None)["auth_provider"] is None


def test_tls_checks_certificate_and_host_name_unless_told_otherwise() -> None:
    strict = _cluster_arguments(options(tls=TlsOptions()), None)["ssl_context"]
    lenient = TlsOptions(check_hostname=False).context()

    assert (strict.check_hostname, strict.verify_mode.name) == (True, "CERT_REQUIRED")
    assert (lenient.check_hostname, lenient.verify_mode.name) == (False, "CERT_REQUIRED")
    assert _cluster_arguments(options(), None)["ssl_context"] is None


def test_a_ca_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TlsOptions(ca_file=tmp_path / "none.pem").context()


# --- the schema ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replication", [{"dc1'}; DROP KEYSPACE x": 3}, {"": 3}, {"dc1": 0}, {"dc1": 99}])
async def test_a_replication_that_is_none_is_refused(replication: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="is no replication"):
        await cassandra_schema.create_schema(options(), replication=replication, retention_seconds=3600, now=0)


@pytest.mark.parametrize("retention_seconds", [0, 59, 31 * 24 * 3600])
async def test_a_retention_out_of_bounds_is_refused(retention_seconds: int) -> None:
    with pytest.raises(ConfigurationError, match="retention"):
        await cassandra_schema.create_schema(options(), replication=None, retention_seconds=retention_seconds, now=0)


@pytest.mark.parametrize(
    ("wrong", "fault"), [({"shards": 0}, "shards"), ({"shards": 65}, "shards"), ({"bucket_seconds": 30}, "buckets")]
)
def test_a_description_out_of_bounds_is_refused(wrong: dict[str, int], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        StoreDescription(epoch=1, retention_seconds=3600, **wrong)


def test_a_bucket_is_registered_for_longer_than_any_row_in_it_lives() -> None:
    description = StoreDescription(epoch=1, retention_seconds=3600)

    assert description.registry_ttl_seconds > description.ttl_seconds + description.bucket_seconds


# --- the store's clock --------------------------------------------------------------------------------------


@dataclass
class Node:
    offset_ms: int
    answers: bool = True


class Nodes:
    """Stands for a `CqlSession` as far as measuring goes; an answer takes two milliseconds."""

    def __init__(self, clock: FakeClock, *offsets_ms: int) -> None:
        self.nodes = [Node(offset_ms) for offset_ms in offsets_ms]
        self.down = 0
        self.questions = 0
        self._clock = clock

    def coordinators(self) -> tuple[list[Node], int]:
        return self.nodes, len(self.nodes) + self.down

    async def time_of(self, node: Node) -> int:
        self.questions += 1
        if not node.answers:
            raise StoreUnavailable("injected")
        told = int(self._clock.now() * 1000) + node.offset_ms
        self._clock.advance(0.002)
        return told

    async def close(self) -> None:
        pass


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- what is waited for is a loop that tells nobody
            await asyncio.sleep(0.001)


def store_of(nodes: Nodes, clock: FakeClock) -> CassandraStore:
    return CassandraStore(
        nodes,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        select_description=None,
        description=StoreDescription(epoch=1, retention_seconds=3600),
        options=options(),
        clock=clock,
        store_clock=StoreClock(clock, skew_ms=1_000),
    )


async def test_F11_one_node_of_three_may_be_silent(clock: FakeClock) -> None:
    nodes = Nodes(clock, 5_000, 5_010, 0)
    nodes.nodes[2].answers = False
    store = store_of(nodes, clock)

    await store.measure()

    assert store.clock_error_ms is not None
    assert store.clock_error_ms < 20
    assert store.clock_offset == pytest.approx(-5.005, abs=0.02)


@pytest.mark.parametrize(("silent", "down"), [(2, 0), (1, 1), (0, 3)])
async def test_less_than_a_majority_measures_nothing(clock: FakeClock, silent: int, down: int) -> None:
    nodes = Nodes(clock, *([0] * 3 if down == 3 else [0] * (3 - down)))
    nodes.down = down
    for node in nodes.nodes[:silent]:
        node.answers = False
    store = store_of(nodes, clock)

    with pytest.raises(StoreUnavailable, match="nodes told their time"):
        await store.measure()
    assert store.clock_offset is None


async def test_a_failed_measurement_keeps_the_last_one_and_the_loop_goes_on(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = Nodes(clock, 0)
    store = store_of(nodes, clock)
    await store.measure()
    nodes.nodes[0].answers = False
    store.keep_measuring(every=0.001)

    await until(lambda: "was not measured" in caplog.text)
    assert store.clock_offset == pytest.approx(0, abs=0.02)

    nodes.nodes[0].answers = True
    nodes.nodes[0].offset_ms = 500
    await until(lambda: (store.clock_offset or 0) < -0.4)
    await store.close()


async def test_an_ended_store_measures_no_more(clock: FakeClock) -> None:
    nodes = Nodes(clock, 0)
    store = store_of(nodes, clock)
    store.keep_measuring(every=0.001)
    await until(lambda: nodes.questions > 0)

    await store.close()

    asked = nodes.questions
    await asyncio.sleep(0.01)
    assert nodes.questions == asked


def test_readers_reach_back_by_the_deadline_and_twice_the_skew(clock: FakeClock) -> None:
    assert store_of(Nodes(clock, 0), clock).overlap == 2_000 + 2 * 1_000
