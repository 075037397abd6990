"""The units: read by systemd itself, and scored by it. No system manager runs here, so none was started."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.documentation import SETTINGS
from tokenry.serving.settings import describe

pytestmark = pytest.mark.system_packages

UNITS = sorted((Path(__file__).parents[2] / "deploy/systemd").glob("*.service"))
MOST_EXPOSURE = 20  # tenths; 96 is a unit without a sandbox, 20 "OK"


def analyze(*arguments):
    program = shutil.which("systemd-analyze")
    assert program, "install Debian's package systemd"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def installed(tmp_path):
    """The units, with a program that is there."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/tokenry/bin/tokenry", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_understands_every_line(unit, installed):
    done = analyze("verify", "--man=no", str(installed / unit.name))
    complaints = [line for line in done.stderr.splitlines() if unit.name in line or str(installed) in line]
    assert complaints == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_calls_the_sandbox_tight(unit):
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(unit))
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_every_setting_in_a_unit_is_one_of_that_service(unit):
    role = unit.stem.removeprefix("tokenry-")
    known = {setting.name for setting in describe(SETTINGS[role])}
    named = set(re.findall(r"\bTOKENRY_[A-Z_]+\b", unit.read_text()))
    assert named
    assert {name.removesuffix("_FILE") if name not in known else name for name in named} <= known
