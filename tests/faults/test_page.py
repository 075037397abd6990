"""docs/operations/faults.md says what the tests show: every fault, with tests, metric and alert that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.support.faults_page import ROOT, faults
from tests.support.promql import metric_names
from tests.support.registries import registries, sample_names

NEVER_AWAY = "\N{EN DASH}"
NUMBERS = [f"F{number}" for number in range(1, 59)]
RULES = sorted((ROOT / "deploy/monitoring/rules").glob("*.yaml"))


def rules():
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule["expr"] for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def asked_for(expression: str) -> set[str]:
    """Return the metrics that *expression* asks for, also through recorded rules."""
    names = metric_names(expression)
    return names.union(*(asked_for(RECORDED[name]) for name in names & RECORDED.keys()))


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def numbers_of(test: str) -> set[str]:
    """Return the faults that the name of a test carries."""
    return {f"F{int(number)}" for number in re.findall(r"(?<=_)F(\d+)(?=_)", test)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every name that a scrape of any of the services can bring."""
    return set().union(*map(sample_names, registries(tmp_path_factory.mktemp("registries")).values()))


def test_every_fault_has_its_row_in_order() -> None:
    assert list(faults()) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_the_tests_of_a_row_exist_and_carry_its_number(number: str) -> None:
    fault = faults()[number]
    assert bool(fault.tests) is fault.applies, number
    for path, name in fault.tests:
        assert (ROOT / path).exists(), path
        assert name in names_in(path), (path, name)
        assert number in numbers_of(name), (number, name)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_metric_of_a_row_exists_and_its_alert_asks_for_it(number: str, exported: set[str]) -> None:
    fault = faults()[number]
    if not fault.applies:
        assert (fault.metrics, fault.alert) == ((), None)
        return
    assert fault.metrics, number
    assert set(fault.metrics) <= exported, (number, fault.metrics)
    cell = fault.cells[4]
    if fault.alert is None:
        assert cell.startswith("none"), f"{number}: name an alert, or say why there is none"
        return
    assert fault.alert in ALERTS, (number, fault.alert)
    assert (ROOT / f"docs/runbooks/{fault.alert}.md").exists()
    assert asked_for(ALERTS[fault.alert]) & set(fault.metrics), (number, fault.metrics, fault.alert)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_says_what_goes_on_what_stops_and_how_long_it_takes(number: str) -> None:
    fault = faults()[number]
    assert all(fault.cells), fault.cells
    if fault.applies:
        assert fault.back_seconds is not None or fault.cells[5] == NEVER_AWAY, number


def test_no_test_of_a_fault_is_missing_in_the_page() -> None:
    """What breaks the running platform is the heart of this; every such test stands in the row of its number."""
    listed = {(path, name) for fault in faults().values() for path, name in fault.tests}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        place = path.relative_to(ROOT).as_posix()
        for name in names_in(place):
            for number in numbers_of(name):
                assert (place, name) in listed, (number, place, name)
                assert (place, name) in faults()[number].tests, (number, name)
