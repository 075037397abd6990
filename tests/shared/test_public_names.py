import subprocess
import sys

import pytest

import tokenry


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
