"""A revocation store on the Cassandra of the tests."""

from tests.support.cassandra import CassandraEndpoint
from tokenry.clock import SystemClock
from tokenry_revocation.adapters import cassandra_schema
from tokenry_revocation.adapters.cassandra_options import CassandraOptions

# The longest life of an ordinary record in tests.
RETENTION_SECONDS = 7200


def cassandra_options(endpoint: CassandraEndpoint, keyspace: str, **options: object) -> CassandraOptions:
    """Return options for *keyspace*, with time enough for a machine that does ten other things."""
    return CassandraOptions(
        contact_points=tuple((host, endpoint.port) for host in endpoint.contact_points),
        keyspace=keyspace,
        **({"request_seconds": 10.0, "write_seconds": 10.0} | options),  # type: ignore[arg-type]
    )


async def create_cassandra_schema(endpoint: CassandraEndpoint, keyspace: str, *, environment: str | None = None) -> int:
    """Create the tables in *keyspace*, which exists, and return the store's epoch."""
    return await cassandra_schema.create_schema(
        cassandra_options(endpoint, keyspace),
        replication=None,
        retention_seconds=RETENTION_SECONDS,
        now=SystemClock().now(),
        environment=environment,
    )
