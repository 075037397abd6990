"""What is shipped: a bill of materials, an audit that finds what is there, and a wheel that anybody can make again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import supply_chain
from tests.support.supply_chain import AFFECTED, CLEAN, RUNTIME, UNUSABLE, bill, findings, is_affected, locked, main

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("shared", "services", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


def test_the_bill_names_every_locked_requirement_with_its_hashes():
    text = RUNTIME.read_text()
    requirements = locked(text)
    assert len(requirements) == sum("==" in line for line in text.splitlines() if not line.startswith((" ", "#")))
    assert sum(len(each.hashes) for each in requirements) == text.count("--hash=sha256:")
    document = bill(requirements, version="1.0")
    assert {"aiohttp", "cryptography", "pyjwt"} <= {component["name"] for component in document["components"]}
    for component in document["components"]:
        assert component["purl"] == f"pkg:pypi/{component['name']}@{component['version']}"
        assert component["hashes"]
    references = [component["bom-ref"] for component in document["components"]]
    assert len(set(references)) == len(references)
    assert document["dependencies"][0]["dependsOn"] == references


def test_the_bill_is_the_same_for_the_same_requirements_and_another_for_others(tmp_path):
    for name in ("a.json", "b.json"):
        assert main(["sbom", str(tmp_path / name)]) == CLEAN
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    requirements = locked(RUNTIME.read_text())
    serials = {bill(part, version="1.0")["serialNumber"] for part in (requirements, requirements[1:])}
    assert len(serials) == 2


def advisory(name="aiohttp", *, ecosystem="PyPI", **affected):
    return {
        "id": "OSV-2026-1",
        "summary": "it is broken",
        "affected": [{"package": {"ecosystem": ecosystem, "name": name}, **affected}],
    }


def ranges(*events):
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.mark.parametrize(
    ("affected", "expected"),
    [
        ({"versions": ["1.2.3"]}, True),
        ({"versions": ["1.2.4"]}, False),
        (ranges({"introduced": "0"}), True),
        (ranges({"introduced": "0"}, {"fixed": "1.2.3"}), False),
        (ranges({"introduced": "0"}, {"fixed": "1.2.4"}), True),
        (ranges({"introduced": "1.3"}), False),
        (ranges({"introduced": "1.0"}, {"last_affected": "1.2.3"}), True),
        (ranges({"introduced": "1.0"}, {"last_affected": "1.2.2"}), False),
        (ranges({"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "1.2"}, {"fixed": "1.3"}), True),
        (ranges({"introduced": "1.2"}, {"fixed": "1.3"}, {"introduced": "0"}, {"fixed": "1.0"}), True),
        (ranges({"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "1.2.3.post1"}), False),
        (ranges({"introduced": "not a version"}), True),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
        ({}, False),
    ],
)
def test_a_version_is_judged_by_what_the_advisory_says(affected, expected):
    assert is_affected("1.2.3", affected) is expected


def test_names_are_compared_as_the_index_does_and_other_ecosystems_are_not_ours():
    (each,) = [each for each in locked(RUNTIME.read_text()) if each.name == "prometheus-client"]
    everything = ranges({"introduced": "0"})
    assert list(findings([each], [advisory("Prometheus_Client", **everything)]))
    assert not list(findings([each], [advisory("prometheus-client", ecosystem="npm", **everything)]))


def test_the_audit_finds_passes_and_refuses_to_judge_by_nothing(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == UNUSABLE
    assert main(["audit", str(tmp_path / "nowhere")]) == UNUSABLE
    (tmp_path / "one.json").write_text(json.dumps(advisory(versions=["0.0.1"])))
    assert main(["audit", str(tmp_path)]) == CLEAN
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "two.json").write_text(json.dumps(advisory(**ranges({"introduced": "0"}))))
    assert main(["audit", str(tmp_path)]) == AFFECTED
    assert "OSV-2026-1" in capsys.readouterr().out
    (tmp_path / "deep" / "two.json").write_text(
        json.dumps(advisory(**ranges({"introduced": "0"})) | {"withdrawn": "2026-01-01T00:00:00Z"})
    )
    assert main(["audit", str(tmp_path)]) == CLEAN
    (tmp_path / "three.json").write_text("{}")
    assert main(["audit", str(tmp_path)]) == UNUSABLE


def test_the_commands_are_what_make_runs():
    makefile = (ROOT / "Makefile").read_text()
    for command in ("sbom", "audit"):
        assert f"tests.support.supply_chain {command}" in makefile
    assert supply_chain.main([]) == UNUSABLE


def built(tree: Path, *, mtime: int) -> str:
    """Return the digest of the wheel that is built from a copy of our sources, made at *mtime*."""
    tree.mkdir()
    for name in BUILT_FROM:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, tree / name)
    for path in tree.rglob("*"):
        os.utime(path, (mtime, mtime))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1800000000", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tree / "out")]
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, timeout=120)
    (wheel,) = (tree / "out").glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_two_builds_at_other_times_and_places_give_the_same_wheel(tmp_path):
    first = built(tmp_path / "a", mtime=1_600_000_000)
    second = built(tmp_path / "somewhere-else-altogether", mtime=1_700_000_000)
    assert first == second
