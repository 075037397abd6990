"""
Settings of the last release are still accepted.

`tests/fixtures/settings-1.txt` has the names of the first release, as `role NAME`. A name that is given up stays
for one release as a further name of its replacement (`Env("NEW", "OLD")`), or is listed here with what to do.
"""

from pathlib import Path

import pytest

from tests.support.documentation import SETTINGS
from tokenry.errors import ConfigurationError
from tokenry.serving.settings import FILE_SUFFIX, describe

FILE = Path(__file__).parents[1] / "fixtures" / "settings-1.txt"
# Role and name, and what an operator does instead; docs/operations/upgrade.md says it as well.
GIVEN_UP: dict[tuple[str, str], str] = {}


def of_the_release():
    return [tuple(line.split()) for line in FILE.read_text().splitlines() if line and not line.startswith("#")]


def read_now(role):
    return {name for setting in describe(SETTINGS[role]) for name in (setting.name, *setting.other_names)}


@pytest.mark.parametrize("role", sorted({role for role, _ in of_the_release()}))
def test_every_setting_of_the_last_release_is_read_or_its_replacement_is_told(role):
    known = read_now(role)
    lost = [name for each, name in of_the_release() if each == role and name not in known]
    assert [name for name in lost if (role, name) not in GIVEN_UP] == []


def test_what_was_given_up_is_explained_to_operators():
    page = (FILE.parents[2] / "docs/operations/upgrade.md").read_text()
    for (_, name), replacement in GIVEN_UP.items():
        assert name in page
        assert replacement


@pytest.mark.parametrize("role", sorted(SETTINGS))
def test_a_setting_under_two_names_is_a_fault_that_is_named(role):
    """The rule of docs/operations/upgrade.md, for every setting that has more than one name."""
    several = [setting for setting in describe(SETTINGS[role]) if setting.other_names]
    assert several
    for setting in several:
        both = dict.fromkeys((setting.name, setting.other_names[0]), "x")
        with pytest.raises(ConfigurationError) as refused:
            SETTINGS[role].from_environment(both)
        assert f"{setting.name} and {setting.other_names[0]} set the same thing" in str(refused.value)


@pytest.mark.parametrize("role", sorted(SETTINGS))
def test_a_setting_is_not_read_by_accident(role):
    """A name of the list that nobody reads would be found missing."""
    assert "TOKENRY_OF_NO_RELEASE" not in read_now(role)
    assert not [name for name in read_now(role) if name.endswith(FILE_SUFFIX + FILE_SUFFIX)]
