"""Alerts, recording rules and dashboards say what they mean: names that exist, pages that exist."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.promql import metric_names
from tests.support.registries import registries, sample_names

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy/monitoring"
RUNBOOKS = ROOT / "docs/runbooks"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
# What Prometheus makes by itself.
FOREIGN = {"up", "scrape_duration_seconds"}


def rules():
    for path in sorted((MONITORING / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}


def panels(path):
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def expressions():
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every name that a scrape of any of the services can bring."""
    made = registries(tmp_path_factory.mktemp("registries"))
    assert set(made) == {"issuer", "tokeninfo", "revocation", "admin"}
    return set().union(*map(sample_names, made.values()))


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_that_is_asked_for_exists(where, expression, exported):
    asked = metric_names(expression)
    assert asked
    assert asked - exported - set(RECORDED) - FOREIGN == set()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('rate(a_total{job="b",c!~"d|e"}[5m]) / 1e9', {"a_total"}),
        ("histogram_quantile(0.99, sum by (le, x) (rate(a_bucket[$__rate_interval])))", {"a_bucket"}),
        ("a:b:rate5m > 14.4 * 0.001 and on (job) b offset 1h unless vector(0)", {"a:b:rate5m", "b"}),
        ("absent(a) or a != a", {"a"}),
    ],
)
def test_the_reader_of_expressions_finds_exactly_the_metrics(expression, names):
    assert metric_names(expression) == names


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_says_how_bad_it_is_and_where_its_page_is(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"https://tokenry.example/docs/runbooks/{name}.md"


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_has_a_page_with_all_that_is_needed_at_three_in_the_morning(name):
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings == ["Likely causes", "What to look at", "What to do", "How long recovery takes"]
    assert "```console\n" in page


def test_every_page_belongs_to_an_alert_and_the_index_names_them_all():
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", index, re.MULTILINE))
    assert rows == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_metrics_that_pages_speak_of_exist(exported):
    told = set(re.findall(r"\btokenry_[a-z0-9_]+\b", "\n".join(p.read_text() for p in RUNBOOKS.glob("*.md"))))
    known = exported | set(RECORDED)
    # A grep for a beginning is fine as well.
    unknown = {name for name in told if not any(other.startswith(name) for other in known)}
    assert unknown == set()


def test_settings_that_pages_speak_of_exist():
    from tests.support.documentation import SETTINGS
    from tokenry.serving.settings import describe

    known = {setting.name for settings in SETTINGS.values() for setting in describe(settings)}
    texts = [path.read_text() for path in [*RUNBOOKS.glob("*.md"), MONITORING / "rules/alerts.yaml"]]
    assert set(re.findall(r"\bTOKENRY_[A-Z_]+\b", "\n".join(texts))) - known == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_is_explained_has_a_unit_and_asks_the_chosen_prometheus(path):
    document = json.loads(path.read_text())
    assert document["uid"] == f"tokenry-{path.stem}"
    assert [variable["name"] for variable in document["templating"]["list"]] == ["datasource"]
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(path):
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path):
    taken = set()
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_is_made_to_fire_in_the_rules_tests():
    tests = (MONITORING / "rules-tests/alerts.test.yaml").read_text()
    fired = set(re.findall(r'labels: \'\{alertname="(\w+)"', tests))
    assert fired == set(ALERTS)


def test_only_whoever_has_seen_the_alerts_of_a_page_is_woken():
    """Pages are few: what cannot wait until the morning."""
    assert sum(rule["labels"]["severity"] == "page" for rule in ALERTS.values()) <= 14
