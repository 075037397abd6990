"""Runs of the simulation, in a process of their own: each takes two or three seconds of one core."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import structlog

from tests.proof.checker import check
from tests.proof.mutants import MUTANTS, Mutant
from tests.proof.simulation import BOUNDS, Plan, simulate

# One seed is mostly enough; a few mutants need a moment that comes in one run of ten. A change of the product changes
# the runs.
TRIES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What the checker said of one run; plain values, to cross from one process to another.

    Attributes:
        seed: Of the run.
        broken: The properties that it broke.
        text: The first violations.
        armed: How often each property could have been broken.
        counts: Validations by result, and requests by outcome.
    """

    seed: int
    broken: tuple[str, ...]
    text: str = ""
    armed: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def be_quiet() -> None:
    """A run has thousands of failures, all meant."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def judge(plan: Plan, mutant: Mutant | None = None) -> Verdict:
    """Simulate *plan*, of the product or of a mutant, and judge it."""
    history = simulate(plan) if mutant is None else simulate(plan, mutant.parts)
    report = check(history, BOUNDS)
    return Verdict(
        seed=plan.seed,
        broken=report.broken,
        text=report.text(),
        armed=dict(report.armed),
        counts=dict(report.counts),
    )


def plan_for(mutant: Mutant, seed: int) -> Plan:
    """Return a run in which *mutant* has the chance to show."""
    return Plan(seed=seed, focus=mutant.focus, slow_writer=mutant.slow_writer)


def find(name: str, tries: int = TRIES) -> list[Verdict]:
    """Return the runs of one mutant, up to the first in which what is expected of it was found."""
    mutant = next(each for each in MUTANTS if each.name == name)
    verdicts: list[Verdict] = []
    for seed in range(mutant.seed, mutant.seed + tries):
        verdicts.append(judge(plan_for(mutant, seed), mutant))
        if set(verdicts[-1].broken) & set(mutant.expected):
            break
    return verdicts
