"""What docs/threat-model.md and docs/limits.md promise is tested by tests that are there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support import documentation
from tokenry.serving.settings import describe

ROOT = Path(__file__).parents[2]
PAGES = ("docs/threat-model.md", "docs/limits.md")
REFERENCE = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")
SETTINGS = {
    name
    for role in documentation.SETTINGS.values()
    for setting in describe(role)
    for name in (setting.name, *setting.other_names)
}


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    references = REFERENCE.findall((ROOT / page).read_text())
    assert len(references) > 20
    missing = [
        f"{path}::{name}" for path, name in references if not (ROOT / path).exists() or name not in names_in(path)
    ]
    assert not missing, missing


def rows(page: str, section: str) -> list[list[str]]:
    """Return the cells of the tables below the headings that begin with *section*."""
    found, inside = [], False
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("## "):
            inside = line.startswith(section)
        elif inside and line.startswith("| ") and not line.startswith(("| limit ", "| threat ")):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def test_every_threat_names_a_mitigation_and_a_test() -> None:
    threats = rows("docs/threat-model.md", "## Threats")
    assert len(threats) > 30
    for threat, mitigation, *shown in threats:
        assert mitigation, threat
        assert REFERENCE.search(shown[-1]), threat


@pytest.mark.parametrize("section", ["## What callers send", "## How often", "## What we fetch"])
def test_every_limit_names_its_setting_and_the_test_that_crosses_it(section: str) -> None:
    limits = rows("docs/limits.md", section)
    assert len(limits) > 5
    for limit, beyond, setting, default, crossed in limits:
        assert beyond, limit
        assert default, limit
        assert REFERENCE.search(crossed), limit
        assert setting == "constant" or set(re.findall(r"`(\w+)`", setting)) <= SETTINGS, limit


def test_it_is_said_plainly_that_guesses_can_be_tested_against_the_list() -> None:
    page = (ROOT / "docs/threat-model.md").read_text()
    assert "Whoever can read the list can test guesses of low-entropy claim values." in page
