"""The real Cassandra that other tests rely on is one, and is as durable as they assume."""

from pathlib import Path

import pytest

from tests.support import cassandra as support
from tests.support.cassandra import CassandraEndpoint, CassandraUnavailable


def test_the_shared_node_answers_a_statement(cassandra: CassandraEndpoint, cassandra_keyspace: str) -> None:
    from cassandra.cluster import Cluster

    cluster = Cluster(list(cassandra.contact_points), port=cassandra.port)
    try:
        session = cluster.connect(cassandra_keyspace)
        session.default_timeout = 60
        session.execute("CREATE TABLE t (id int PRIMARY KEY, text text) WITH default_time_to_live = 60")
        session.execute("INSERT INTO t (id, text) VALUES (1, 'one')")
        assert session.execute("SELECT text FROM t WHERE id = 1").one().text == "one"
    finally:
        cluster.shutdown()


def test_the_driver_uses_the_libev_reactor() -> None:
    from cassandra.cluster import Cluster
    from cassandra.io.libevreactor import LibevConnection

    assert Cluster.connection_class is LibevConnection


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:1,127.0.0.2:2", ":9042"])
def test_contact_points_that_cannot_be_meant_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENRY_TEST_CASSANDRA_CONTACT_POINTS", text)
    with pytest.raises(CassandraUnavailable, match="host:port"):
        support.existing_endpoint()


def test_contact_points_name_a_cluster_with_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENRY_TEST_CASSANDRA_CONTACT_POINTS", "10.0.0.1:9042, 10.0.0.2:9042")
    assert support.existing_endpoint() == CassandraEndpoint(contact_points=("10.0.0.1", "10.0.0.2"), port=9042)


def test_the_cache_of_jars_lies_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert support.cache_directory() == tmp_path / "tokenry" / f"cassandra-{support.VERSION}"
