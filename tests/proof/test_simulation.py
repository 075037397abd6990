"""The product in the simulation: over many seeds, nothing of the promise is broken."""

from collections.abc import Callable

import pytest

from tests.proof.checker import PROPERTIES
from tests.proof.history import line
from tests.proof.nemesis import FOCUSES
from tests.proof.runs import Verdict
from tests.proof.simulation import Plan, simulate

Judged = Callable[[Plan], Verdict]


@pytest.mark.parametrize(
    "plan", [Plan(seed=seed) for seed in range(len(FOCUSES))], ids=lambda plan: f"seed {plan.seed}"
)
def test_F15_F19_F20_whatever_breaks_the_promise_is_kept(plan: Plan, judged: Judged):
    """One seed for each group of faults; `make soak` tries many more."""
    verdict = judged(plan)
    assert not verdict.broken, verdict.text


@pytest.mark.parametrize("plan", [Plan(seed=100, faults=False)], ids=["seed 100"])
def test_while_nothing_is_broken_held_requests_carry_a_revocation_within_a_second(plan: Plan, judged: Judged):
    verdict = judged(plan)
    assert not verdict.broken, verdict.text
    assert "revoke unknown" not in verdict.counts


@pytest.mark.parametrize("plan", [Plan(seed=200, slow_writer=True)], ids=["seed 200"])
def test_F17_a_writer_whose_clock_is_ninety_seconds_slow_hides_nothing(plan: Plan, judged: Judged):
    verdict = judged(plan)
    assert not verdict.broken, verdict.text


@pytest.mark.parametrize("plan", [Plan(seed=0)], ids=["seed 0"])
def test_a_run_has_the_power_to_break_each_property(plan: Plan, judged: Judged):
    """Nothing is learnt from a property that nothing in a run could have broken."""
    verdict = judged(plan)
    # P3 is armed only by a violation: whatever is refused is refused again.
    assert {name for name in PROPERTIES if verdict.armed.get(name, 0) >= 20} >= set(PROPERTIES) - {"P3"}
    assert verdict.counts["revoke ok"] >= 50
    assert verdict.counts["revoke unknown"] >= 5
    assert verdict.counts["undo ok"] >= 1


def test_one_seed_is_one_run_event_by_event():
    first, second = (simulate(Plan(seed=3, seconds=130.0)) for _ in range(2))
    assert list(map(line, first.events)) == list(map(line, second.events))
