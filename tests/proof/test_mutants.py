"""The checker is believed because it finds each of these defects where it finds the product clean."""

from collections.abc import Callable

import pytest

from tests.proof.mutants import MUTANTS, Mutant
from tests.proof.runs import Verdict

pytestmark = pytest.mark.soak  # minutes of virtual time on two processors; not yet short enough for every run


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_checker_finds(mutant: Mutant, found: Callable[[str], list[Verdict]]):
    verdicts = found(mutant.name)
    seen = {each for verdict in verdicts for each in verdict.broken}
    assert seen & set(mutant.expected), f"in {len(verdicts)} runs: the proof does not see this defect"
