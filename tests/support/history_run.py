"""One history on real parts, from the first process to the verdict."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.history_driver import Driver, Load, bounds
from tests.support.history_nemesis import Nemesis, Schedule
from tests.support.history_platform import Changes, HistoryPlatform
from tests.support.history_report import Summary, summarize, write
from tests.support.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.proof.checker import Report
    from tests.support.cassandra import CassandraEndpoint, CassandraNode

BUILD: Final = Path(__file__).parents[2] / "build" / "proof"
"""Where histories and tables go; not under version control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    What is to be done.

    Attributes:
        name: Of the files that are left.
        seed: Of all that is random.
        schedule: What is broken when.
        refuse_age: S, seconds.
        load: How much is done.
        changes: What is wrong with the platform on purpose.
        held: The bound for validators that keep a request open, while nothing was ever broken; None: not judged.
    """

    name: str
    seed: int
    schedule: Schedule
    refuse_age: float = 40.0
    load: Load = field(default_factory=Load)
    changes: Changes = field(default_factory=Changes)
    held: float | None = None


async def perform(
    run: Run, folder: Path, *, endpoint: CassandraEndpoint, nodes: Sequence[CassandraNode] = ()
) -> tuple[Summary, Report]:
    """
    Perform *run* on the store at *endpoint*, leave history and table in `build/proof`, and return the verdict.

    *nodes* are those of the store, where the test may break them. Processes and proxies have ended afterwards.
    """
    chance = random.Random(run.seed)  # noqa: S311 -- reproducible on purpose
    processes = Processes(folder / "processes")
    platform = HistoryPlatform(
        folder / "platform",
        processes,
        endpoint=endpoint,
        replicas=max(1, len(nodes)),
        refuse_age=run.refuse_age,
        chance=chance,
        changes=run.changes,
    )
    try:
        await platform.start()
        driver = Driver(platform, seed=run.seed, chance=random.Random(run.seed + 1), load=run.load)  # noqa: S311
        nemesis = Nemesis(driver, run.schedule, random.Random(run.seed + 2), nodes)  # noqa: S311
        await driver.run(nemesis.run())
    finally:
        await platform.end()
        processes.end()
    summary, report = summarize(driver, bounds(platform, held=run.held))
    write(summary, driver.history, BUILD, run.name)
    return summary, report
