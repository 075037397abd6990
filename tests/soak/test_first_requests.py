"""
A cluster restarts: 10,000 first requests in a minute, on a real process. A minute and a half.

Nobody holds a token, so everybody asks at once: instances of clients with fast and with slow secrets. None of them may
see a 500, each must be served when it comes back as it was told, and whoever asks calmly meanwhile must not notice.
"""

import asyncio
import json
import random
import time
from base64 import b64encode
from pathlib import Path

import aiohttp
import pytest

from tests.support.platform import Deployment
from tests.support.processes import Processes
from tokenry_registry.bootstrap import hash_password, hash_secret

pytestmark = [pytest.mark.soak, pytest.mark.processes]

REQUESTS = 10_000
SECONDS = 60.0
FAST_CLIENTS, SLOW_CLIENTS = 200, 20
LONGEST = 120.0  # seconds within which everybody has a token, whatever they were told meanwhile


def write_clients(deployment: Deployment) -> list[tuple[str, str]]:
    """Write the clients; return id and secret of one instance after the other, fast ones nine times in ten."""
    folder = deployment._folder.credentials / "realms" / "services" / "clients"
    fast = [(f"fast-{number}", f"secret-of-fast-{number}-0123456789-0123456789") for number in range(FAST_CLIENTS)]
    slow = [(f"slow-{number}", f"secret-of-slow-{number}") for number in range(SLOW_CLIENTS)]
    for (client_id, secret), hashed in [
        *((each, hash_secret(each[1])) for each in fast),
        *((each, hash_password(each[1])) for each in slow),
    ]:
        members = {"client_id": client_id, "secrets": [{"hash": hashed, "created_at": 1}]}
        (folder / f"{client_id}.json").write_text(json.dumps(members))
        assert secret
    chance = random.Random(11)  # noqa: S311 -- reproducible
    return [chance.choice(slow if chance.random() < 0.1 else fast) for _ in range(REQUESTS)]


def basic(client: tuple[str, str]) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(":".join(client).encode()).decode()}


async def burst(url: str, instances: list[tuple[str, str]]) -> tuple[list[int], list[float], float]:
    """Let every instance ask for its first token; return all statuses, calm latencies, and the longest wait."""
    statuses: list[int] = []
    waited: list[float] = []
    form = {"grant_type": "client_credentials", "realm": "/services"}
    started = time.monotonic()

    async def instance(http: aiohttp.ClientSession, number: int, client: tuple[str, str]) -> None:
        await asyncio.sleep(SECONDS * number / REQUESTS)
        asked = time.monotonic()
        while True:
            async with http.post(url, data=form, headers=basic(client)) as answer:
                statuses.append(answer.status)
                await answer.read()
                if answer.status == 200:
                    waited.append(time.monotonic() - asked)
                    return
                pause = float(answer.headers["Retry-After"])
            assert time.monotonic() - started < LONGEST + SECONDS, "an instance starved"
            await asyncio.sleep(pause)

    async def calm() -> list[float]:
        latencies = []
        headers = basic(next(client for client in instances if client[0].startswith("fast")))
        async with aiohttp.ClientSession() as own:
            while time.monotonic() - started < SECONDS:
                asked = time.monotonic()
                async with own.post(url, data=form, headers=headers) as answer:
                    assert answer.status == 200
                latencies.append(time.monotonic() - asked)
                await asyncio.sleep(0.25)
        return latencies

    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as group:
        calmly = group.create_task(calm())
        for number, client in enumerate(instances):
            group.create_task(instance(http, number, client))
    return statuses, calmly.result(), max(waited)


def test_F53_ten_thousand_first_requests_in_a_minute(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "processes")
    try:
        deployment = Deployment(tmp_path, processes)
        deployment.use_folder()
        deployment.use_sqlite()
        instances = write_clients(deployment)
        deployment.start("issuer", "revocation")
        statuses, calm, longest = asyncio.run(burst(deployment.url("issuer", "/oauth2/token"), instances))
    finally:
        processes.end()
    calm.sort()
    print(  # noqa: T201 -- the result
        f"{len(statuses)} answers: {statuses.count(200)} tokens, {statuses.count(503)} told to come back; "
        f"longest wait {longest:.1f} s; calm p50 {calm[len(calm) // 2] * 1e3:.0f} ms, "
        f"p99 {calm[int(len(calm) * 0.99)] * 1e3:.0f} ms"
    )
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) == REQUESTS
    # A process of its own answers a fast secret in milliseconds; the slow hashes beside it take every processor.
    assert calm[len(calm) // 2] < 0.1
    assert calm[int(len(calm) * 0.99)] < 2.0
