"""
The simulation over many seeds: TOKENRY_TEST_SIMULATION_SEEDS (300) runs of the product from the seed
TOKENRY_TEST_SIMULATION_SEED (1000) on, a third of them with a slow writer, each two or three seconds of one core.
"""

import os
from collections.abc import Callable

import pytest

from tests.proof.runs import Verdict
from tests.proof.simulation import Plan

pytestmark = pytest.mark.soak

SEEDS = int(os.environ.get("TOKENRY_TEST_SIMULATION_SEEDS", "300"))
FIRST = int(os.environ.get("TOKENRY_TEST_SIMULATION_SEED", "1000"))


@pytest.mark.parametrize(
    "plan",
    [Plan(seed=seed, slow_writer=seed % 3 == 0) for seed in range(FIRST, FIRST + SEEDS)],
    ids=lambda plan: f"seed {plan.seed}",
)
def test_whatever_breaks_the_promise_is_kept(plan: Plan, judged: Callable[[Plan], Verdict]):
    verdict = judged(plan)
    assert not verdict.broken, verdict.text
