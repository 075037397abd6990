"""
What many clients cost the issuer: `python -m tests.bench.registry KIND OBJECTS` in a process of its own, JSON out.

KIND is `folder`, or `s3`: moto's server over HTTP on loopback, itself a process in Python that answers some hundreds of
requests a second, so that its seconds are moto's and only the CPU time is ours.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import proc
from tests.support.s3 import S3Server
from tokenry.clock import SystemClock
from tokenry_issuer.credentials import Credentials
from tokenry_registry.adapters.directory import DirectoryStore
from tokenry_registry.adapters.s3 import S3Store, make_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry_registry.ports import ObjectStore

REALMS = 5
BUCKET = "tokenry-bench"


def client(number: int, *, scope: str = "orders.read") -> tuple[str, bytes]:
    """Return key and body of one client."""
    name = f"client-{number:06d}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    body = {
        "client_id": name,
        "secrets": [{"hash": f"sha256:{digest}", "created_at": 1_700_000_000}],
        "scopes": [scope, "orders.write", "stock.read"],
        "default_scopes": [scope],
        "audiences": ["https://stock.example.org"],
    }
    return f"realms/realm-{number % REALMS}/clients/{name}.json", json.dumps(body).encode()


def realms() -> list[tuple[str, bytes]]:
    return [
        (
            f"realms/realm-{number}/realm.json",
            json.dumps({"realm": f"/realm-{number}", "environment": "bench"}).encode(),
        )
        for number in range(REALMS)
    ]


async def measured(store: ObjectStore, write: Callable[[str, bytes], object], objects: int) -> dict[str, float]:
    """Return CPU and elapsed seconds of each refresh, and what the objects take of memory."""
    credentials = Credentials(
        store,
        clock=SystemClock(),
        environment="bench",
        max_token_lifetime=3600,
        removal_share=0.2,
        hard_age=3600.0,
        on_refused=lambda _cause: None,
    )
    found: dict[str, float] = {"objects": objects}

    async def refresh(name: str) -> None:
        cpu, began = time.process_time(), time.perf_counter()
        async with asyncio.timeout(600):
            while True:
                try:
                    await credentials.refresh()
                    break
                except TimeoutError:  # its own deadline; the next one goes on where it was cut off
                    found["cut off"] = found.get("cut off", 0) + 1
        found[f"{name}, CPU s"] = time.process_time() - cpu
        found[f"{name}, s"] = time.perf_counter() - began

    gc.collect()
    before = proc.resident_bytes(os.getpid())
    await refresh("first load")
    gc.collect()
    found["memory, MiB"] = (proc.resident_bytes(os.getpid()) - before) / 2**20
    registry = credentials.current()
    assert registry is not None
    assert sum(len(realm.clients) for realm in registry.realms.values()) == objects
    await refresh("nothing changed")
    write(*client(7, scope="changed.once"))
    await refresh("one changed")
    for number in range(objects):
        write(*client(number, scope="changed.all"))
    await refresh("all changed")
    registry = credentials.current()
    assert registry is not None
    assert "changed.all" in registry.realms["/realm-0"].clients["client-000005"].scopes
    await store.close()
    return found


def in_folder(objects: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def write(key: str, body: bytes) -> None:
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

        for key, body in [*realms(), *map(client, range(objects))]:
            write(key, body)
        return asyncio.run(measured(DirectoryStore(root), write, objects))


def over_s3(objects: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        server = S3Server(Path(name))
        server.start()
        try:
            os.environ.update(server.environment)
            s3 = server.client()
            s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": server.region})  # type: ignore[typeddict-item]

            def write(key: str, body: bytes) -> None:
                s3.put_object(Bucket=BUCKET, Key=key, Body=body)

            for key, body in [*realms(), *map(client, range(objects))]:
                write(key, body)
            connect = partial(make_client, endpoint_url=server.endpoint_url, region=server.region)
            return asyncio.run(measured(S3Store(BUCKET, prefix="", client=connect), write, objects))
        finally:
            server.stop()


def main() -> None:
    kind, objects = sys.argv[1], int(sys.argv[2])
    found = in_folder(objects) if kind == "folder" else over_s3(objects)
    print(json.dumps(found))  # noqa: T201 -- the answer


if __name__ == "__main__":
    main()
