"""The promise of revocation on real parts, in its short form: a minute of faults, then the checker decides."""

from pathlib import Path

import pytest

from tests.support.cassandra import CassandraEndpoint
from tests.support.history_driver import Load
from tests.support.history_nemesis import Schedule
from tests.support.history_run import Run, perform

pytestmark = pytest.mark.processes

# The store's one node is shared with other tests, so nothing is done to it; the long form has three of its own.
FAULTS = (
    "delivery cut for one",
    "service killed",
    "store half open",
    "validator killed",
    "lists spoiled",
    "posts half open",
    "dark restart",
    "store slow",
    "services and validators killed",
)
SCHEDULE = Schedule(
    calm=6.0, phases=[(38.0, 4.0)], between=4.0, lasting=(4.0, 8.0, 12.0), beyond=36.0, names=FAULTS, once=True
)
LOAD = Load(mints=10.0, revocations=8.0, validations=50.0)


async def test_no_acknowledged_revocation_is_late_or_forgotten_whatever_breaks(
    cassandra: CassandraEndpoint, tmp_path: Path
) -> None:
    run = Run(name="short", seed=11, schedule=SCHEDULE, load=LOAD, refuse_age=31.0)
    summary, report = await perform(run, tmp_path, endpoint=cassandra)
    assert report.clean, f"{report.text()}\n{summary.markdown()}"
    assert {row.fault for row in summary.rows} >= set(FAULTS)
    # A clean run says nothing about what could not have been broken, nor one in which hardly anything happened.
    assert summary.total.acknowledged >= 100, summary.total
    for name in ("P0", "P1", "P4", "P5", "P6", "P7"):
        assert report.armed[name], summary.armed
