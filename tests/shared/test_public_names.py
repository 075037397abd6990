import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tokenry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "library" / "public-api.md"


def names_of(module):
    """The `__all__` of a module, read without importing its framework."""
    path = ROOT / "shared" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return sorted(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no __all__")


WRITTEN = {
    found[1]: sorted(re.findall(r"`([A-Za-z_]+)`", found[2]))
    for found in re.finditer(r"^\| `([a-z_.]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("module", WRITTEN)
def test_the_written_list_is_what_is_public(module):
    assert WRITTEN[module] == names_of(module)


def test_every_module_of_a_framework_is_in_the_written_list():
    modules = {
        f"tokenry.{path.stem}" for path in (ROOT / "shared" / "tokenry").glob("*.py") if "__all__" in path.read_text()
    }
    inside = {"tokenry.__init__", "tokenry.introspector", "tokenry.token_validator"}  # shown as names of `tokenry`
    assert modules - inside <= set(WRITTEN)


@pytest.mark.parametrize("name", tokenry.__all__)
def test_every_public_name_is_there(name):
    assert getattr(tokenry, name) is not None
    assert name in dir(tokenry)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute"):
        tokenry.nothing  # noqa: B018


def test_the_table_of_homes_is_the_list_of_public_names():
    assert sorted(tokenry._HOMES) == sorted(tokenry.__all__)


def imported_by(statement):
    code = f"import sys; {statement}; print(' '.join(sorted(m.partition('.')[0] for m in sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(run.stdout.split())


def test_importing_the_library_imports_next_to_nothing():
    assert imported_by("import tokenry").isdisjoint({"aiohttp", "cryptography", "jwt", "asyncio", "ssl", "http"})


def test_getting_and_judging_tokens_needs_no_framework():
    code = "from tokenry import TokenValidator, ClientCredentials, default_source"
    assert imported_by(code).isdisjoint({"aiohttp", "boto3", "prometheus_client", "pydantic", "structlog", "pytest"})
