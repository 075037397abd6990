"""
Mixed load with faults at random: an hour, or TOKENRY_TEST_SOAK_SECONDS; TOKENRY_TEST_SEED for another run than seed 1.

The report, with plots, lies in build/soak. A minute of it runs with `make test`: tests/faults/test_mixed_load.py.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.mixed_load import perform, platform_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3.client import S3Client

    from tests.support.faulted import FaultedPlatform
    from tests.support.s3 import S3Server

pytestmark = [pytest.mark.soak, pytest.mark.processes]

SECONDS = float(os.environ.get("TOKENRY_TEST_SOAK_SECONDS", "3600"))
SEED = int(os.environ.get("TOKENRY_TEST_SEED", "1"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def platform(
    tmp_path: Path, s3_server: "S3Server", s3_client: "S3Client", cassandra: CassandraEndpoint
) -> "Iterator[FaultedPlatform]":
    yield from platform_for(tmp_path, s3_server=s3_server, s3_client=s3_client, cassandra=cassandra)


async def test_F43_mixed_traffic_with_faults_at_random(platform: "FaultedPlatform") -> None:
    faults, page = await perform(platform, seed=SEED, seconds=SECONDS, folder=ROOT / "build/soak")
    print(f"\n{page}")  # noqa: T201 -- the result
    assert not faults, "\n".join(faults)
