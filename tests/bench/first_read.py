"""
Measure a replica's first read of a long store: `python -m tests.bench.first_read [--records 200000] [--rules]`.

Prints how long it took and for how long at most the event loop answered nobody: by the clock, and as CPU time of its
own thread, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from itertools import count
from typing import TYPE_CHECKING

from tokenry.clock import SystemClock
from tokenry.revocation.entries import Entry, Kind
from tokenry.secret import Secret
from tokenry.serving.metrics import Metrics
from tokenry_revocation.adapters.memory import MemoryLog, MemoryStore
from tokenry_revocation.feed import Feed
from tokenry_revocation.metrics import ServiceMetrics
from tokenry_revocation.ports import Batch, StoredRecord
from tokenry_revocation.records import Actor, Record, RecordType
from tokenry_revocation.revoking import Fingerprints
from tokenry_revocation.sheets import Sheet, spelled_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LIFETIME = 3600
PAGE_ROWS = 500
_numbers = random.Random(7)  # noqa: S311 -- a spread, not a secret
_names = count()


class PagedStore(MemoryStore):
    """Reads a page at a time, as a database does: that all is there in one piece is the memory's own doing."""

    def __init__(self, clock: SystemClock, log: MemoryLog) -> None:
        super().__init__(clock, shared=log)
        self._log = log.log

    async def pages(self) -> AsyncGenerator[Batch, None]:
        position = len(self._log)
        for start in range(0, position, PAGE_ROWS):
            yield Batch(records=tuple(self._log[start : start + PAGE_ROWS]), position=position)


def a_token(fingerprints: Fingerprints, now: int) -> StoredRecord:
    name = spelled_name(_numbers.randbytes(20))
    sheet = Sheet(
        revoked_at=now, in_force_until=now + LIFETIME, issued_before=now, salt=fingerprints.salt_id,
        ids=_numbers.randbytes(16), tokens=_numbers.randbytes(16), token_hashes=_numbers.randbytes(32),
        id_hashes=_numbers.randbytes(32), created_at=float(now),
    )  # fmt: skip
    about = {"id": name, "propagated_by": now, "plan_b_by": now, "actor": {"iss": "i", "sub": "s"}}
    return StoredRecord(id=name, body=sheet.to_bytes(about=about), in_force_until=now + LIFETIME)


def a_rule(fingerprints: Fingerprints, now: int) -> StoredRecord:
    name = f"rule-{next(_names)}"
    entry = Entry(
        id=name, kind=Kind.CLAIMS, fingerprint=_numbers.randbytes(16), salt=fingerprints.salt_id, names=("sub",),
        issued_before=now, in_force_until=now + LIFETIME,
    )  # fmt: skip
    record = Record(
        id=name, type=RecordType.CLAIM, revoked_at=now, in_force_until=now + LIFETIME, propagated_by=now,
        plan_b_by=now, actor=Actor(iss="i", sub="s"), entries=(entry,),
    )  # fmt: skip
    return StoredRecord(id=name, body=record.to_bytes(), in_force_until=now + LIFETIME)


async def measure(*, records: int, rules: bool) -> None:
    clock, fingerprints = SystemClock(), Fingerprints(Secret("a-salt-of-the-benchmark"))
    store, now = PagedStore(clock, MemoryLog()), int(clock.now())
    for _ in range(records):
        await store.append(a_rule(fingerprints, now) if rules else a_token(fingerprints, now))
    feed = Feed(
        store=store,
        clock=clock,
        skew=2.0,
        max_token_lifetime=LIFETIME,
        fingerprints=fingerprints,
        metrics=ServiceMetrics(Metrics(service="bench"), clock=clock, store="memory"),
    )
    gc.collect()
    gc.freeze()  # as a service does after its start
    stalls: list[tuple[float, float]] = []

    async def tick() -> None:
        while True:
            wall, busy = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0)
            stalls.append((time.perf_counter() - wall, time.thread_time() - busy))

    ticking = asyncio.create_task(tick())
    began = time.perf_counter()
    read = await feed.read()
    took = time.perf_counter() - began
    ticking.cancel()
    if not read or feed.publication is None or len(feed.publication) != records:
        raise SystemExit("the store was not read")
    walls, busys = (sorted(each, reverse=True) for each in zip(*stalls, strict=True))
    nearly = len(walls) // 1000
    sys.stdout.write(
        f"{records:,} {'rules' if rules else 'tokens'} read in {took:.1f} s; the event loop was held for at most"
        f" {1e3 * walls[0]:.0f} ms by the clock, {1e3 * busys[0]:.0f} ms of CPU;"
        f" in 99.9 % of its turns for {1e3 * walls[nearly]:.0f} and {1e3 * busys[nearly]:.0f} ms\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rules", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(measure(records=arguments.records, rules=arguments.rules))


if __name__ == "__main__":
    main()
