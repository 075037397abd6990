"""
A minute of mixed load with faults at random. The long form, an hour by default, is tests/soak/test_soak.py.

The report, with plots, lies in build/soak; TOKENRY_TEST_SEED chooses another run than seed 1.
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

pytestmark = pytest.mark.processes

SECONDS = 60.0
SEED = int(os.environ.get("TOKENRY_TEST_SEED", "1"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def loaded(
    tmp_path: Path, s3_server: "S3Server", s3_client: "S3Client", cassandra: CassandraEndpoint
) -> "Iterator[FaultedPlatform]":
    yield from platform_for(tmp_path, s3_server=s3_server, s3_client=s3_client, cassandra=cassandra)


async def test_F43_a_minute_of_mixed_traffic_with_faults_at_random(loaded: "FaultedPlatform") -> None:
    faults, page = await perform(loaded, seed=SEED, seconds=SECONDS, folder=ROOT / "build/soak")
    assert not faults, "\n".join([*faults, page])
