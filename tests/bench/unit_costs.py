"""
Measure what docs/scale.md reckons with: `python -m tests.bench.unit_costs`.

One revocation service on SQLite as a process, asked over loopback; its CPU time from /proc, so that other work on the
machine counts little. Prints the constants of `tests.support.scale.UnitCosts`; nothing passes or fails.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from tests.support.platform import Deployment
from tests.support.processes import Processes
from tests.support.revocation_entries import LIFETIME, NOW, SALTS, UNTIL
from tokenry.jose.jwk import PrivateKey
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.signed import SignedList, read_signed_list
from tokenry.revocation.wire import ListDocument, document_of, format_binary_list, format_list, parse_list
from tokenry_revocation.live import LiveSheet
from tokenry_revocation.sheets import Sheet, spelled_name

if TYPE_CHECKING:
    from collections.abc import Callable

POLLS, HELD, ENTRIES = 4000, 1000, 1_000_000


def say(name: str, value: float, unit: str) -> None:
    sys.stdout.write(f"{name:<44} {value:10.3g} {unit}\n")
    sys.stdout.flush()


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def ask_service(deployment: Deployment) -> None:
    pid, url = deployment.pid("revocation"), deployment.url("revocation", "/revocations")
    headers = {"Authorization": f"Bearer {deployment.admin_token()}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def changes(cursor: str, wait: int) -> str:
            path = f"{url}/changes?created_at=true&wait={wait}"
            async with session.get(path, params={"after": cursor}) as answer:
                return str(json.loads(await answer.read())["cursor"])

        async def revoke(number: int) -> None:
            body = json.dumps({"type": "TOKEN", "data": {"jti": f"unit-{number}"}})
            async with session.post(url, data=body, headers=headers) as answer:
                assert answer.status == 201, await answer.text()

        async with session.get(f"{url}/snapshot") as answer:
            cursor = json.loads(await answer.read())["cursor"]

        idle = cpu_seconds(pid)
        await asyncio.sleep(5)
        idle = (cpu_seconds(pid) - idle) / 5
        say("service with nothing to do", 1e3 * idle, "ms of CPU a second")

        async def poll() -> None:
            for _ in range(POLLS // 20):
                await changes(cursor, 0)

        began, before = time.perf_counter(), cpu_seconds(pid)
        await asyncio.gather(*(poll() for _ in range(20)))
        spent = cpu_seconds(pid) - before - idle * (time.perf_counter() - began)
        say("a poll without news", 1e6 * spent / POLLS, "µs of CPU")

        memory = resident(pid)
        waiting = [asyncio.create_task(changes(cursor, 50)) for _ in range(HELD)]
        await asyncio.sleep(6)
        say("a held request", (resident(pid) - memory) / HELD / 1024, "KiB of memory")
        before, began = cpu_seconds(pid), time.perf_counter()
        await revoke(1)
        await asyncio.gather(*waiting)
        took = time.perf_counter() - began
        say("a held request that is answered", 1e6 * (cpu_seconds(pid) - before) / HELD, "µs of CPU")
        say(f"{HELD} held requests answered within", took, "s (client and server on this machine)")


def busy(call: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best


def weigh() -> None:
    """What entries weigh in each form, and what a validator spends on them."""
    entries = tuple(
        Entry(
            id=spelled_name(os.urandom(20)), kind=Kind.JTI, fingerprint=os.urandom(16), salt="s1", in_force_until=UNTIL,
            created_at=NOW + 0.123,
        )
        for _ in range(10_000)
    )  # fmt: skip
    delta = ListDocument(cursor="c", epoch=1, salts=SALTS, max_token_lifetime=LIFETIME, entries=entries)
    text = format_list(delta, created_at=True)
    say("an entry in changes", len(text) / len(entries), "bytes")
    say("the same packed", len(gzip.compress(text, 5)) / len(entries), "bytes")
    packed = busy(lambda: gzip.compress(text, 5), 5)
    sheets = [
        LiveSheet(
            id=spelled_name(os.urandom(15)), position=1,
            sheet=Sheet(
                revoked_at=NOW, in_force_until=UNTIL, issued_before=NOW, salt="s1", ids=os.urandom(16 * 250),
                created_at=NOW + 0.123,
            ),
        )
        for _ in range(40)
    ]  # fmt: skip
    written = busy(lambda: [b"".join(sheet.written(created_at=True)) for sheet in sheets], 5)
    say("an entry is written and packed", 1e6 * (packed + written) / 10_000, "µs of CPU")
    block = Block.of({os.urandom(16): UNTIL for _ in range(ENTRIES)})
    held = ListDocument(cursor="c", epoch=1, salts=SALTS, max_token_lifetime=LIFETIME, block=block).onto(None, now=NOW)
    gc.collect()
    gc.freeze()

    say(
        "a validator takes in an entry",
        1e6 * busy(lambda: parse_list(text).onto(held, now=NOW), 5) / 10_000,
        "µs of CPU",
    )
    full = document_of(held, cursor="c")
    binary = format_binary_list(full)
    say("an entry in the snapshot", len(binary) / ENTRIES, "bytes")
    say("an entry in the snapshot is written", 1e6 * busy(lambda: format_binary_list(full), 3) / ENTRIES, "µs of CPU")
    key = PrivateKey.generate()
    issue = SignedList(
        issuer="https://i", issued_at=NOW, as_of=NOW - 2, next_update=NOW + 30, stream="A" * 22, seq=1, previous=None,
        content=full,
    )  # fmt: skip
    signed = issue.sign(key)
    say("an entry in the signed list", len(signed) / ENTRIES, "bytes")
    say("an entry in the signed list is written", 1e6 * busy(lambda: issue.sign(key), 2) / ENTRIES, "µs of CPU")

    def read() -> None:
        read_signed_list(signed, issuer="https://i", find=lambda _kid: key.public).content.onto(held, now=NOW)

    say("an entry in the signed list is read", 1e6 * busy(read, 2) / ENTRIES, "µs of CPU")


def main() -> None:
    load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    sys.stdout.write(f"load average {load} on {os.cpu_count()} processors\n")
    weigh()
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder, "processes"))
        try:
            deployment = Deployment(Path(folder), processes)
            deployment.use_folder()
            deployment.use_sqlite()
            deployment.start("issuer", "revocation")
            asyncio.run(ask_service(deployment))
        finally:
            processes.end()


if __name__ == "__main__":
    main()
