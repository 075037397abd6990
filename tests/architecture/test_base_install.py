"""
A client that installs the base distribution gets the library without its extras, and nothing of ours minds.

Every module of the library is imported in a fresh interpreter in which the packages of the extras cannot be
imported.
"""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "shared" / "tokenry"

# Everything that comes with an extra, and the frameworks for which there are thin modules of their own.
EXTRAS = (
    *("aiohttp", "argon2", "bcrypt", "boto3", "botocore", "cassandra", "fastapi", "flask", "grpc"),
    *("httpx", "moto", "prometheus_client", "pydantic", "pydantic_settings", "pytest", "requests", "rich"),
    *("starlette", "structlog", "typer", "uvloop"),
)

# What an extra is for: module prefixes that may need it.
NEED_AN_EXTRA = ("tokenry.serving", "tokenry.aiohttp", "tokenry.testing")


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(LIBRARY)], prefix="tokenry.")
    return sorted(module.name for module in found if not module.name.startswith(NEED_AN_EXTRA))


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("module", ["tokenry", *modules()])
def test_the_library_imports_without_its_extras(module: str) -> None:
    run(
        f"""
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the base distribution", name=name)

sys.meta_path.insert(0, Blocked())
importlib.import_module({module!r})
"""
    )


def test_importing_the_library_loads_no_driver_and_no_framework() -> None:
    loaded = run(
        f"""
import sys
import tokenry
print(*sorted({set(EXTRAS)!r} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    )
    assert loaded.split() == []


def test_the_pure_core_runs_without_asyncio() -> None:
    # A library for any server must not decide which event loop its callers use by being imported.
    assert run("import sys, tokenry.jose; print('asyncio' in sys.modules)").strip() == "False"
