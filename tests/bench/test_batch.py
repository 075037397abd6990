"""
What a million revocations cost, on a real Cassandra of one node: written as a batch, read by a validator, read again.

Run by `make bench-store`, or with `pytest tests/bench/test_batch.py -m bench -s`; BENCH_LINES=100000 makes it short.
Nothing is asserted but that all revocations are there.
"""

import json
import os
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.platform import Deployment
from tests.support.processes import Processes
from tests.system.conftest import until
from tokenry.http.fetch import HttpFetcher
from tokenry.sources.revocations import RevocationSource

pytestmark = pytest.mark.bench

LINES = int(os.environ.get("BENCH_LINES", "1000000"))


def lines() -> Iterator[bytes]:
    """Yield the lines of a batch, a thousand at a time."""
    for start in range(0, LINES, 1000):
        yield b"".join(
            b'{"type":"TOKEN","data":{"jti":"bench-%d"}}\n' % number
            for number in range(start, min(start + 1000, LINES))
        )


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 -- a benchmark


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def post_batch(deployment: Deployment) -> dict[str, object]:
    connection = HTTPConnection(urlsplit(deployment.url("revocation", "/")).netloc, timeout=600)
    headers = {
        "Authorization": f"Bearer {deployment.admin_token()}",
        "Content-Type": "application/x-ndjson",
        "Idempotency-Key": "bench",
    }
    connection.request("POST", "/revocations/batch", body=lines(), headers=headers, encode_chunked=True)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert answer.status == 202, body
    return dict(body)


def test_the_cost_of_a_million_revocations(cassandra: CassandraEndpoint, tmp_path: Path, processes: Processes) -> None:
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_cassandra(cassandra)
    deployment.start("issuer", "revocation")
    service = deployment.pid("revocation")

    before, began = cpu_seconds(service), time.perf_counter()
    job = post_batch(deployment)
    took, busy = time.perf_counter() - began, cpu_seconds(service) - before
    assert job["accepted"] == LINES, job
    say(f"\nbatch of {LINES:,}: {LINES / took:,.0f} lines/s ({took:.1f} s, {1e6 * busy / LINES:.0f} µs of CPU a line)")

    say(f"a validator reads it: {first_list(deployment.url('revocation', '')):.2f} s")
    say(f"another one reads it: {first_list(deployment.url('revocation', '')):.2f} s")
    say(f"the service has {resident_mib(service):.0f} MiB")

    deployment.stop("revocation")
    began = time.perf_counter()
    deployment.start("revocation", wait=False)
    deployment.wait_alive("revocation")
    until(lambda: deployment.is_ready("revocation"), seconds=600, every=0.1)
    took = time.perf_counter() - began
    restarted = deployment.pid("revocation")
    say(f"the service starts and reads it: {took:.1f} s ({cpu_seconds(restarted):.1f} s of CPU)")
    say(f"a validator reads it from there: {first_list(deployment.url('revocation', '')):.2f} s")
    load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    say(f"load average {load} on {os.cpu_count()} processors")


def first_list(url: str) -> float:
    """Return the seconds that a validator needs from its start to its first list."""
    source = RevocationSource(url, fetcher=HttpFetcher(allow_plain_http=True), name="bench")
    began = time.perf_counter()
    source.start()
    try:
        while (held := source.snapshot()) is None:
            assert time.perf_counter() - began < 120
            time.sleep(0.01)
        took = time.perf_counter() - began
        assert len(held.value) == LINES
    finally:
        source.stop()
    return took
