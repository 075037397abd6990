"""One running platform for all faults. Each test breaks something, looks, mends it, and measures the way back."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.faulted import FaultedPlatform, until
from tests.support.faults_page import faults
from tests.support.processes import Processes

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from tests.support.s3 import S3Server

WELL_SECONDS = 60.0


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: "S3Server",
    s3_client: "S3Client",
    cassandra: CassandraEndpoint,
) -> Iterator[FaultedPlatform]:
    """The platform; everything on it is mended after each test."""
    folder = tmp_path_factory.mktemp("faults")
    processes = Processes(folder / "processes")
    broken = FaultedPlatform(folder, processes, s3_server=s3_server, s3_client=s3_client, cassandra=cassandra)
    broken.start()
    yield broken
    processes.end()
    broken.close()


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test everything is whole again, nothing was answered 500, and nobody logged a traceback."""
    if "platform" not in request.fixturenames:
        yield
        return
    platform = request.getfixturevalue("platform")
    yield
    platform.mend()
    until(platform.is_well, seconds=WELL_SECONDS)
    for service in ("issuer", "tokeninfo", "revocation"):
        assert platform.metric(service, "tokenry_unhandled_errors_total") == 0
        assert "Traceback (most recent call last)" not in platform.process(service).output(), service


@pytest.fixture
def back(request: pytest.FixtureRequest) -> Callable[..., float]:
    """Return `back("F1", holds)`: wait until *holds*, no longer than docs/operations/faults.md promises for F1."""
    bounds = faults()

    def wait(number: str, holds: Callable[[], bool], *, every: float = 0.05) -> float:
        bound = bounds[number].back_seconds
        assert bound is not None, f"{number} has no bound"
        took = until(holds, seconds=bound, every=every)
        request.node.user_properties.append((f"{number} back after", round(took, 2)))
        return took

    return wait
