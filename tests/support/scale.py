"""
What a large platform costs, and how long its revocations take: `python -m tests.support.scale` prints the tables.

Pure and seeded: the same tables in every run. Bytes, requests and CPU time are reckoned from unit costs that were
measured (`tests/bench/unit_costs.py`); how long a revocation takes is simulated, validator by validator.
"""

from __future__ import annotations

import math
import random
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tokenry.revocation.lists import MAX_ENTRIES
from tokenry.sources.revocation_conversation import GAP_SECONDS, POLL_SECONDS, WAIT_SECONDS
from tokenry.sources.signed_list import PERIOD_SECONDS
from tokenry_revocation.feed import READ_INTERVAL_SECONDS, WAKE_SECONDS
from tokenry_revocation.publication import MAX_DELTA_ENTRIES
from tokenry_revocation.revoking import KEEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VALIDATORS: Final = 100_000
REGIONS: Final = 3
PUBLISH_SECONDS: Final = 30.0
BURST_SECONDS: Final = 0.3  # of the second that is promised: half of it may pass before a replica has read the store
_JITTER: Final = 3.0  # seconds by which a poll comes earlier, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """
    Measured on 2026-11-21, Python 3.11.7, on a virtual machine with 2 processors that did other work at the same time
    (load average 15; CPU times on a quiet machine are smaller).

    Attributes:
        poll_us: CPU of the service for a poll without news, µs.
        answered_us: CPU of the service for a held request that is answered, µs.
        written_us: CPU of the service for an entry that is written and packed, µs.
        held_kib: Memory of the service for a held request, KiB.
        entry_bytes: An entry in the service's memory, bytes (from `make bench-store`: 490 MiB with a million).
        packed_bytes: An entry in a packed answer of `changes`, bytes.
        snapshot_bytes: An entry in the binary snapshot, bytes.
        signed_bytes: An entry in the signed list, bytes.
        taken_us: CPU of a validator for an entry of `changes`, µs.
        signed_us: CPU of a validator for an entry of the signed list, µs.
        held_bytes: An entry in a validator's memory, bytes.
        head_bytes: Head fields of a request and its answer, bytes (counted, not measured).
        batch_lines: Revocations a second that one replica writes (`make bench-store`, at a load average of 9).
        signed_written_us: CPU of the service for an entry of the signed list that is written, µs.
    """

    poll_us: float = 130
    answered_us: float = 120
    written_us: float = 4.7
    held_kib: float = 15
    entry_bytes: float = 470
    packed_bytes: float = 44
    snapshot_bytes: float = 20
    signed_bytes: float = 35.6
    taken_us: float = 10.5
    signed_us: float = 0.45
    held_bytes: float = 21
    head_bytes: float = 900
    batch_lines: float = 7300
    signed_written_us: float = 0.33


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """
    Assumed list prices, in dollars; put your own here.

    Attributes:
        cpu_hour: One processor for an hour.
        gib_hour: One GiB of memory for an hour.
        gb_region: A GB within a region, between its zones.
        gb_cdn: A GB from a CDN to the validators.
        requests_cdn: Ten thousand requests to a CDN.
    """

    cpu_hour: float = 0.04
    gib_hour: float = 0.005
    gb_region: float = 0.01
    gb_cdn: float = 0.02
    requests_cdn: float = 0.0075


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    What there is to do.

    Attributes:
        name: For the tables.
        live: Entries in force.
        lifetime: Seconds that the longest token lives.
    """

    name: str
    live: int
    lifetime: int = 3600

    @property
    def news(self) -> float:
        """Return how many entries a second keep so many in force."""
        return self.live / (self.lifetime + KEEP_SECONDS)


LOADS: Final = (
    Load(name="leaks only", live=1_000),
    Load(name="logout of some", live=100_000),
    Load(name="logout of all", live=1_000_000),
    Load(name="the most that a validator takes", live=10_000_000),
    Load(name="100 million", live=100_000_000),
    Load(name="100 million, tokens of a day", live=100_000_000, lifetime=86_400),
    Load(name="as many a second, tokens of 4 minutes", live=9_677_419, lifetime=240),
)


@dataclass(slots=True, kw_only=True)
class Bill:
    """
    What one way of reading takes, for the whole fleet.

    Attributes:
        requests: A second.
        megabytes: A second, to all validators together.
        cores: Processors of the service that are busy with it, beside those that take revocations.
        replicas: How many there have to be.
        gibibytes: Memory of all replicas.
        validator_share: Part of one processor that each validator spends.
        dollars: An hour.
        impossible: Why it cannot be done at all, if so.
    """

    requests: float
    megabytes: float
    cores: float
    replicas: int
    gibibytes: float
    validator_share: float
    dollars: float
    impossible: str = ""


def replicas(cores: float, *, held: int = 0, costs: UnitCosts) -> int:
    """
    Return how many replicas share the work: at least two a region, each busy for half of a processor.

    One revocation wakes all *held* requests at once: they must be answered within what is left of the second.
    """
    burst = held * costs.answered_us / 1e6 / BURST_SECONDS
    return max(2 * REGIONS, math.ceil(cores / 0.5), math.ceil(burst))


def polling(load: Load, *, validators: int = VALIDATORS, costs: UnitCosts, prices: Prices) -> Bill:
    """Reckon with requests that are not held: each validator asks every 25 to 28 seconds."""
    interval = POLL_SECONDS - _JITTER / 2
    entries = load.news * interval
    requests = validators / interval
    if entries > MAX_DELTA_ENTRIES:  # then each poll brings the whole list
        size, written, taken = load.live * costs.snapshot_bytes, 0.0, load.live * costs.signed_us
    else:
        size, written, taken = entries * costs.packed_bytes, entries * costs.written_us, entries * costs.taken_us
    # Readers with one cursor who ask within half a second of each other share what is written: cursors are half a
    # second apart, and jitter spreads those of one over six of them.
    alike = max(1.0, validators / (2 * REGIONS) / interval * READ_INTERVAL_SECONDS / (_JITTER / READ_INTERVAL_SECONDS))
    cores = requests * (costs.poll_us + written / alike) / 1e6
    return _bill(
        load, requests=requests, size=size, cores=cores, taken=taken / interval, held=0, costs=costs, prices=prices
    )


def holding(load: Load, *, validators: int = VALIDATORS, costs: UnitCosts, prices: Prices) -> Bill:
    """Reckon with requests that are held open: each is answered at once, at most four times a second."""
    wakes = 1 / GAP_SECONDS if load.news >= 1 / GAP_SECONDS else load.news + 1 / WAIT_SECONDS
    entries = load.news / wakes
    requests = validators * wakes
    size, taken = entries * costs.packed_bytes, load.news * costs.taken_us
    written = REGIONS * 2 * wakes * entries * costs.written_us / 1e6  # all who wait have one of a few cursors
    cores = requests * costs.answered_us / 1e6 + written
    return _bill(
        load, requests=requests, size=size, cores=cores, taken=taken, held=validators, costs=costs, prices=prices
    )


def signed(load: Load, *, validators: int = VALIDATORS, costs: UnitCosts, prices: Prices) -> Bill:
    """Reckon with the signed list from a CDN, read by everybody all the time: as if the service were away."""
    interval = PERIOD_SECONDS - _JITTER / 2
    requests, size = validators / interval, load.live * costs.signed_bytes
    bill = _bill(
        load, requests=requests, size=size, cores=0.0, taken=load.live * costs.signed_us / interval, held=0,
        costs=costs, prices=prices,
    )  # fmt: skip
    bill.dollars = 3600 * (bill.megabytes / 1e3 * prices.gb_cdn + requests / 1e4 * prices.requests_cdn)
    bill.gibibytes, bill.replicas = 0.0, 0
    return bill


def _bill(
    load: Load, *, requests: float, size: float, cores: float, taken: float, held: int, costs: UnitCosts, prices: Prices
) -> Bill:
    megabytes = requests * (size + costs.head_bytes) / 1e6
    count = replicas(cores, held=held, costs=costs)
    gibibytes = (count * load.live * costs.entry_bytes + held * costs.held_kib * 1024) / 2**30
    dollars = count * prices.cpu_hour + gibibytes * prices.gib_hour + 3.6 * megabytes * prices.gb_region
    impossible = ""
    if load.live > MAX_ENTRIES:
        impossible = f"a validator takes at most {MAX_ENTRIES:,} entries"
    elif load.news > costs.batch_lines:
        impossible = f"a replica writes {costs.batch_lines:,.0f} a second"
    return Bill(
        requests=requests,
        megabytes=megabytes,
        cores=cores,
        replicas=count,
        gibibytes=gibibytes,
        validator_share=taken / 1e6,
        dollars=dollars,
        impossible=impossible,
    )


WAYS: Final = (("polling", polling), ("held requests", holding), ("signed list", signed))

# --- how long a revocation takes ---


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """
    Three regions, with what lies between them (assumed).

    Attributes:
        way: Seconds from a validator to the service of its region, and back: shortest and longest.
        between: Seconds from one region to another, and back: shortest and longest. A revocation is acknowledged
            when a quorum of each region has it.
        throughput: Megabytes a second that one validator reads.
    """

    way: tuple[float, float] = (0.0005, 0.003)
    between: tuple[float, float] = (0.03, 0.15)
    throughput: float = 50.0


@dataclass(slots=True)
class Spread:
    """Seconds from the acknowledgement of revocations until validators enforced them."""

    seconds: list[float] = field(default_factory=list)


def simulate(
    load: Load, *, validators: int, seed: int, costs: UnitCosts, world: World, count: int | None = None
) -> dict[str, Spread]:
    """
    Return how long a revocation took to reach each of *validators*, by the way in which they read.

    The replicas read their region's quorum twice a second; the one that took the revocation has it at once. Those who
    are held are woken together, at most every 50 ms, and answered one after the other by *count* replicas (default: as
    many as are needed).
    """
    numbers = random.Random(seed)  # noqa: S311 -- a simulation, the same in every run
    found = {name: Spread() for name, _ in WAYS}
    count = count or holding(load, validators=validators, costs=costs, prices=Prices()).replicas
    waiting = validators / count
    uniform = numbers.uniform
    transfer = load.news / 4 * costs.packed_bytes / world.throughput / 1e6
    size = load.live * costs.signed_bytes / world.throughput / 1e6
    handled = load.live * (costs.signed_written_us + costs.signed_us) / 1e6
    reads = [uniform(0, READ_INTERVAL_SECONDS) + uniform(*world.between) / 2 for _ in range(count)]
    reads[0] = 0.0
    for number in range(validators):
        seen, way = reads[number % count], uniform(*world.way)
        # Held: woken, then its turn; under a stream of news it may just be in its pause.
        pause = uniform(0, GAP_SECONDS) if load.news >= 1 / GAP_SECONDS else 0.0
        turn = uniform(0, waiting) * costs.answered_us / 1e6
        found["held requests"].seconds.append(seen + uniform(0, WAKE_SECONDS) + pause + turn + way / 2 + transfer)
        # Polling: the next poll comes at some moment of its interval.
        interval = POLL_SECONDS - uniform(0, _JITTER)
        found["polling"].seconds.append(seen + uniform(0, interval) + way)
        # Signed: the next issue is written, carried, and read in the next period of this validator.
        period = PERIOD_SECONDS - uniform(0, _JITTER)
        waited = uniform(0, PUBLISH_SECONDS) + uniform(0, period)
        found["signed list"].seconds.append(waited + way + size + handled)
    return found


# --- the tables ---

PROMISES: Final = {"polling": 31.0, "held requests": 1.0, "signed list": 61.0}


def tables(*, validators: int = VALIDATORS) -> str:
    """Return all tables of docs/scale.md, as Markdown."""
    costs, prices, world = UnitCosts(), Prices(), World()
    return "\n".join([
        *_costs_table(costs), "", *_loads_table(), "", *_bills_table(validators, costs, prices), "",
        *_spread_table(validators, costs, world),
    ])  # fmt: skip


def _costs_table(costs: UnitCosts) -> list[str]:
    rows = [
        ("a poll without news", f"{costs.poll_us:g} µs of the service's CPU"),
        ("a held request that is answered", f"{costs.answered_us:g} µs of the service's CPU"),
        ("a held request", f"{costs.held_kib:g} KiB of the service's memory"),
        ("an entry that is written and packed", f"{costs.written_us:g} µs of the service's CPU"),
        ("an entry in the service", f"{costs.entry_bytes:g} bytes of memory"),
        ("an entry in `changes`, packed", f"{costs.packed_bytes:g} bytes"),
        ("an entry in the snapshot", f"{costs.snapshot_bytes:g} bytes"),
        ("an entry in the signed list", f"{costs.signed_bytes:g} bytes"),
        ("an entry of `changes` in a validator", f"{costs.taken_us:g} µs of CPU, once"),
        ("an entry of the signed list in a validator", f"{costs.signed_us:g} µs of CPU, each time"),
        ("an entry in a validator", f"{costs.held_bytes:g} bytes of memory"),
    ]
    return _table(("unit", "cost"), rows)


def _loads_table() -> list[str]:
    rows = [
        (load.name, f"{load.live:,}", f"{load.lifetime:,} s", f"{load.news:,.2f}", _bytes(load.live * 21))
        for load in LOADS
    ]
    return _table(("load", "entries in force", "longest token", "new ones a second", "in each validator"), rows)


def _bills_table(validators: int, costs: UnitCosts, prices: Prices) -> list[str]:
    rows = []
    for load in LOADS:
        for name, reckon in WAYS:
            bill = reckon(load, validators=validators, costs=costs, prices=prices)
            rows.append((
                load.name, name, f"{bill.requests:,.0f}", _bytes(bill.megabytes * 1e6) + "/s", f"{bill.cores:,.1f}",
                f"{bill.replicas}", f"{bill.gibibytes:,.1f} GiB", f"{100 * bill.validator_share:,.2f} %",
                f"{bill.dollars:,.2f}", f"**no**: {bill.impossible}" if bill.impossible else "yes",
            ))  # fmt: skip
    names = (
        "load", "way", "requests/s", "to all validators", "busy cores", "replicas", "memory",
        "CPU of a validator", "$/h", "possible",
    )  # fmt: skip
    return _table(names, rows)


def _spread_table(validators: int, costs: UnitCosts, world: World) -> list[str]:
    rows = []
    few = simulate(LOADS[0], validators=validators, seed=7, costs=costs, world=world, count=2 * REGIONS)
    for load in LOADS[:4]:
        found = simulate(load, validators=validators, seed=7, costs=costs, world=world)
        rows += [_spread_row(load, name, found[name], PROMISES[name]) for name, _ in WAYS]
        if load is LOADS[0]:
            name = f"held requests, {2 * REGIONS} replicas"
            rows.append(_spread_row(load, name, few["held requests"], PROMISES["held requests"]))
    return _table(("load", "way", "p50", "p99", "slowest", "promised"), rows)


def _spread_row(load: Load, name: str, spread: Spread, promise: float) -> tuple[str, ...]:
    ranked = sorted(spread.seconds)
    kept = "kept" if ranked[-1] <= promise else "**not kept**"
    shares = (f"{ranked[math.ceil(len(ranked) * share) - 1]:.2f} s" for share in (0.5, 0.99, 1.0))
    return (load.name, name, *shares, f"{promise:g} s: {kept}")


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names), *(f"| {' | '.join(row)} |" for row in rows)]


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:,.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
        number /= 1000
    raise AssertionError("there is a last unit")


if __name__ == "__main__":
    sys.stdout.write(tables() + "\n")
