"""Every drill is on the page for operators, has a report that was measured, and a page that it practises."""

from pathlib import Path

import pytest

from tokenry_cli.drill_scenarios import PLANS, Scenario

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations" / "drills.md").read_text()


@pytest.mark.parametrize("scenario", list(Scenario))
def test_every_drill_is_explained_and_linked_from_the_page_that_it_practises(scenario):
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{scenario}` |")]
    assert len(rows) == 1
    runbook = DOCS / PLANS[scenario].runbook
    assert runbook.name in rows[0]
    assert f"tokenry drill {scenario}`" in runbook.read_text()


@pytest.mark.parametrize("scenario", list(Scenario))
def test_every_drill_has_a_report_that_the_page_quotes(scenario):
    report = (DOCS / "operations" / "drill-reports" / f"{scenario}.md").read_text()
    assert report.startswith(f"# Drill: {scenario}\n")
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| [{scenario}](drill-reports/{scenario}.md) |")]
    _, _, contained, recovered, _ = row.split("|", 4)
    for value in (contained, recovered):
        assert f"| {value.strip()} |" in report


def test_no_report_is_of_a_scenario_that_is_gone():
    assert {path.stem for path in (DOCS / "operations" / "drill-reports").glob("*.md")} == set(Scenario)
