"""docs/scale.md says what the model says, and the model follows what the code promises."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scale import (
    LOADS,
    PROMISES,
    VALIDATORS,
    WAYS,
    Prices,
    UnitCosts,
    World,
    holding,
    polling,
    signed,
    simulate,
    tables,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
COSTS, PRICES, WORLD = UnitCosts(), Prices(), World()
LEAKS, SOME, ALL, MOST, TOO_MANY = LOADS[:5]


def test_the_page_has_the_tables_that_the_model_makes():
    page = PAGE.read_text(encoding="utf-8")
    for table in tables().split("\n\n"):
        assert table in page, "run python -m tests.support.scale, and put its tables into docs/scale.md"


@pytest.mark.parametrize("way", [way for _, way in WAYS])
def test_twice_the_validators_take_twice_the_requests_and_bytes(way):
    one, two = (way(ALL, validators=number, costs=COSTS, prices=PRICES) for number in (VALIDATORS, 2 * VALIDATORS))
    assert two.requests == pytest.approx(2 * one.requests)
    assert two.megabytes == pytest.approx(2 * one.megabytes)


def test_held_requests_cost_more_than_polling_under_a_stream_and_bring_the_same_entries():
    held, polled = (way(SOME, validators=VALIDATORS, costs=COSTS, prices=PRICES) for way in (holding, polling))
    assert held.cores > 10 * polled.cores
    assert held.validator_share == pytest.approx(polled.validator_share)


def test_nothing_above_what_a_validator_takes_is_called_possible():
    for way in (polling, holding, signed):
        assert way(TOO_MANY, validators=1, costs=COSTS, prices=PRICES).impossible
        assert not way(MOST, validators=1, costs=COSTS, prices=PRICES).impossible


def spread(load, way, **more):
    found = simulate(load, validators=3000, seed=3, costs=COSTS, world=WORLD, **more)[way]
    return sorted(found.seconds)


def test_the_simulation_is_the_same_in_every_run():
    assert spread(SOME, "polling") == spread(SOME, "polling")


@pytest.mark.parametrize("way", list(PROMISES))
def test_with_enough_replicas_the_promises_are_kept(way):
    assert spread(SOME, way)[-1] <= PROMISES[way]


def test_with_too_few_replicas_or_too_long_a_list_they_are_not():
    crowded = simulate(LEAKS, validators=30_000, seed=3, costs=COSTS, world=WORLD, count=1)["held requests"]
    assert max(crowded.seconds) > PROMISES["held requests"]
    assert spread(MOST, "signed list")[-1] > PROMISES["signed list"]
    slow = simulate(ALL, validators=500, seed=3, costs=replace(COSTS, signed_us=20.0), world=WORLD)["signed list"]
    assert max(slow.seconds) > PROMISES["signed list"]
