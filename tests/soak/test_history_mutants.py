"""
The harness itself, on real parts: a platform with one defect, and the checker has to find it.

Each mutant is a copy of the sources with one line changed, or a setting that nobody may choose. All 27 mutants of the
simulation run with it (tests/proof); these show that the real harness sees what the simulation sees.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cassandra import CassandraCluster
from tests.support.history_nemesis import Schedule
from tests.support.history_platform import Changes
from tests.support.history_run import Run, perform

pytestmark = [pytest.mark.cassandra, pytest.mark.cluster, pytest.mark.soak]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """
    One defect.

    Attributes:
        name: What is wrong.
        expected: Properties, one of which at least it must break.
        schedule: What is broken while it is looked for.
        file: Which file is changed; None: none.
        old: The text that stands there once.
        new: What stands there instead.
        refuse_age: The limit that validators are told.
    """

    name: str
    expected: frozenset[str]
    schedule: Schedule
    file: str = ""
    old: str = ""
    new: str = ""
    refuse_age: float | None = None

    def __str__(self) -> str:
        return self.name


def _when(
    *names: str,
    calm: float = 10.0,
    breaking: float = 75.0,
    after: float = 12.0,
    between: float = 14.0,
    at_once: int = 5,
) -> Schedule:
    return Schedule(
        calm=calm, phases=[(breaking, after)], between=between, at_once=at_once, lasting=(10.0,), names=names, once=True
    )


SESSION = "services/tokenry_revocation/adapters/cassandra_session.py"
MUTANTS = (
    Mutant(
        name="read ONE",
        expected=frozenset({"P4"}),
        # Who was there has read everything: it shows where all memory is lost after a node has missed something.
        schedule=_when(*["node killed", "services and validators killed"] * 4, breaking=115.0, between=0.1, at_once=1),
        file=SESSION,
        old="read = _profile(options, ConsistencyLevel.LOCAL_QUORUM)",
        new="read = _profile(options, ConsistencyLevel.ONE)",
    ),
    Mutant(
        name="write ONE",
        expected=frozenset({"P4"}),
        schedule=_when("quorums swapped", "quorums swapped", breaking=90.0, between=0.1, at_once=1),
        file=SESSION,
        old="write = _profile(options, ConsistencyLevel.name_to_value[options.write_consistency])",
        new="write = _profile(options, ConsistencyLevel.ONE)",
    ),
    Mutant(
        name="201 on an unknown outcome",
        expected=frozenset({"P4"}),
        schedule=_when("store cut off", "store cut off", breaking=45.0),
        file="services/tokenry_revocation/acceptance.py",
        old="            await self._store.append(stored)\n",
        new="            with contextlib.suppress(Exception):\n                await self._store.append(stored)\n",
    ),
    Mutant(
        name="no age limit",
        expected=frozenset({"P1"}),
        schedule=_when("delivery cut", "delivery cut", breaking=60.0),
        refuse_age=1e6,
    ),
    Mutant(
        name="ready before the first list",
        expected=frozenset({"P1", "P2"}),
        schedule=_when(*["dark restart"] * 5, calm=35.0, between=6.0),
        file="shared/tokenry/token_validator.py",
        old="        held, age = None, 0.0\n",
        new="        held, age = RevocationList.empty(), 0.0\n",
    ),
    Mutant(
        name="rows live for half a token's life",
        expected=frozenset({"P1", "P4"}),
        schedule=_when("services and validators killed", calm=85.0, breaking=20.0, after=20.0),
        file="services/tokenry_revocation/adapters/cassandra_schema.py",
        old="return self.retention_seconds + TTL_MARGIN_SECONDS",
        new="return 60",
    ),
    Mutant(
        name="cut-off <= in place of <",
        expected=frozenset({"P5"}),
        schedule=Schedule(calm=40.0, phases=[]),
        file="shared/tokenry/revocation/rules.py",
        old="if token.issued_at < cut.issued_before:",
        new="if token.issued_at <= cut.issued_before:",
    ),
)
IMPORTS = {
    "services/tokenry_revocation/acceptance.py": "import contextlib\n",
    "shared/tokenry/token_validator.py": "from tokenry.revocation.lists import RevocationList\n",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraCluster]:
    nodes = CassandraCluster(tmp_path_factory.mktemp("cassandra"), nodes=3, settings={"hinted_handoff_enabled": False})
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.kill()


def changed(mutant: Mutant, folder: Path) -> Path | None:
    """Return a copy of the sources that has the defect."""
    if not mutant.file:
        return None
    for name in ("services", "shared"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} has changed: the mutant has to be written anew"
    text = text.replace(mutant.old, mutant.new)
    if mutant.file in IMPORTS:
        marker = "from __future__ import annotations\n"
        text = text.replace(marker, f"{marker}\n{IMPORTS[mutant.file]}", 1)
    path.write_text(text)
    return folder


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
async def test_the_harness_finds(mutant: Mutant, cluster: CassandraCluster, tmp_path: Path) -> None:
    run = Run(
        name=f"mutant-{mutant.name.replace(' ', '-').replace('<', 'less')}",
        seed=7,
        schedule=mutant.schedule,
        refuse_age=31.0,
        changes=Changes(tree=changed(mutant, tmp_path / "tree"), refuse_age=mutant.refuse_age),
    )
    summary, report = await perform(run, tmp_path, endpoint=cluster.endpoint, nodes=cluster.nodes)
    print(f"\n{mutant.name}: {summary.violations}, {summary.total.acknowledged} acknowledged")  # noqa: T201
    assert set(report.broken) & mutant.expected, f"{report.broken}\n{summary.markdown()}"
