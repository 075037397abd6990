"""The library's public types under a second type checker, as its users may have it (mypy runs in `make types`)."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKER = Path(sys.executable).with_name("basedpyright")


def check(tmp_path, *files):
    config = {
        "include": [str(file) for file in files],
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT / "shared")],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [CHECKER, "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    report = json.loads(done.stdout)
    errors = [entry for entry in report["generalDiagnostics"] if entry["severity"] == "error"]
    return report["summary"]["filesAnalyzed"], [f"{Path(e['file']).name}: {e['message']}" for e in errors]


def test_the_public_types_hold_under_pyright(tmp_path):
    files = sorted((ROOT / "tests" / "typing").glob("*.py"))
    assert check(tmp_path, *files) == (len(files), [])


def test_the_checker_sees_a_mistake(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from tokenry import ClientCredentials\nnumber: int = ClientCredentials('a').get().value\n")
    analysed, errors = check(tmp_path, wrong)
    assert (analysed, len(errors)) == (1, 1)
    assert '"str"' in errors[0]
