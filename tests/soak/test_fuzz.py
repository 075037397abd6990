"""
Every parser under the coverage-guided fuzzer: TOKENRY_TEST_FUZZ_SECONDS for each (default 60), as `make fuzz` runs it.

The fuzzer is no requirement of ours: `make fuzz` installs it, locked, for the interpreters that it has wheels for.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.parsers import PARSERS

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("TOKENRY_TEST_FUZZ_SECONDS", "60"))

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None, reason="atheris is not installed: run these with `make fuzz`"
    ),
]


@pytest.mark.parametrize("name", PARSERS)
def test_the_fuzzer_finds_nothing(name, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", name, str(SECONDS), str(tmp_path / "corpus")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 120, check=False)
    executed = [line for line in ended.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{name}: {' '.join(executed)}")  # noqa: T201 -- the figure is what a long run is for
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
    assert executed
