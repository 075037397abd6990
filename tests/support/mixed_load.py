"""A run of mixed load from beginning to end: the platform, the run, and what must hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.faulted import FaultedPlatform
from tests.support.processes import Processes
from tests.support.soak import Soak, judged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mypy_boto3_s3.client import S3Client

    from tests.support.cassandra import CassandraEndpoint
    from tests.support.s3 import S3Server

REFUSE_AGE = 120.0  # beyond every fault and its way back: within it, nothing but what is broken may refuse


class SoakedPlatform(FaultedPlatform):
    """The platform of a run; nobody's address is refused for what the driver does while something is broken."""

    refuse_age = REFUSE_AGE

    def _environment(self, service: str) -> dict[str, str]:
        environment = super()._environment(service)
        if service == "issuer":
            many = str(10**6)
            environment |= {"TOKENRY_FAILURES_PER_CLIENT": many, "TOKENRY_FAILURES_PER_ADDRESS": many}
        if service == "tokeninfo":
            environment |= {"TOKENRY_INTROSPECTION_RATE": "1000", "TOKENRY_INTROSPECTION_BURST": "10000"}
        return environment


def platform_for(
    folder: Path, *, s3_server: S3Server, s3_client: S3Client, cassandra: CassandraEndpoint
) -> Iterator[FaultedPlatform]:
    """Yield a platform of its own in *folder*, running."""
    processes = Processes(folder / "processes")
    platform = SoakedPlatform(folder, processes, s3_server=s3_server, s3_client=s3_client, cassandra=cassandra)
    try:
        platform.start()
        yield platform
    finally:
        processes.end()
        platform.close()


async def perform(platform: FaultedPlatform, *, seed: int, seconds: float, folder: Path) -> tuple[Sequence[str], str]:
    """Run it; write report, plots and history into *folder*; return what did not hold, and the page."""
    soak = Soak(platform, seed=seed, seconds=seconds)
    report = await soak.run()
    return await asyncio.to_thread(judged, soak, report, folder=folder, name=f"soak-{seed}-{seconds:.0f}s")
