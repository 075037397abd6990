"""
A client that installs the base distribution gets the library without its extras, and nothing of ours minds.

Every module of the library is imported in a fresh interpreter in which the packages of the extras cannot be
imported.
"""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

LIBRARY = Path(__file__).parents[2] / "shared" / "tokenry"

# Everything that comes with an extra, and the frameworks for which there are thin modules of their own.
EXTRAS = (
    *(
        "aiohttp",
        "anyio",
        "argon2",
        "asgiref",
        "awscrt",
        "bcrypt",
        "boto3",
        "botocore",
        "cassandra",
        "django",
        "fastapi",
        "flask",
    ),
    *("grpc", "httpx", "httpx2", "moto", "prometheus_client", "pydantic", "pydantic_settings", "pytest", "requests"),
    *("rest_framework", "rich", "starlette", "structlog", "typer", "uvloop", "werkzeug", "yarl"),
)

# What an extra is for: module prefixes that may need it.
NEED_AN_EXTRA = ("tokenry.serving", "tokenry.testing")

# A framework's module, and the packages that are there when that framework, and no other, is installed.
FRAMEWORKS = {
    "aiohttp": ("aiohttp", "yarl"),
    "django": ("django", "asgiref"),
    "fastapi": ("fastapi", "starlette", "pydantic", "anyio"),
    "flask": ("flask", "werkzeug"),
    "grpc": ("grpc",),
    "httpx": ("httpx2", "anyio"),
    "metrics": ("prometheus_client",),
    "requests": ("requests",),
    "rest_framework": ("rest_framework", "django", "asgiref"),
    "starlette": ("starlette", "anyio"),
}
# Before a module of Django's can be imported there must be settings.
PREPARE = {
    "rest_framework": "from django.conf import settings; settings.configure(); import django; django.setup()",
}


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(LIBRARY)], prefix="tokenry.")
    names = (module.name for module in found)
    skipped = (*NEED_AN_EXTRA, *(f"tokenry.{name}" for name in FRAMEWORKS))
    return sorted(name for name in names if not name.startswith(skipped))


def run(code: str) -> str:
    root = LIBRARY.parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def blocking(packages: tuple[str, ...]) -> str:
    """Code after which *packages* cannot be imported."""
    return f"""
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize("module", ["tokenry", *modules()])
def test_the_library_imports_without_its_extras(module: str) -> None:
    run(f"{blocking(EXTRAS)}\nimportlib.import_module({module!r})")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_frameworks_module_needs_only_its_framework(name: str) -> None:
    others = tuple(package for package in EXTRAS if package not in FRAMEWORKS[name])
    run(f"{PREPARE.get(name, '')}\n{blocking(others)}\nimportlib.import_module('tokenry.{name}')")


@pytest.mark.parametrize("name", ["aiohttp", "asgi", "django", "django-async", "fastapi", "flask", "starlette", "wsgi"])
def test_a_framework_alone_is_enough_to_protect_a_service(name: str) -> None:
    others = tuple(package for package in EXTRAS if package not in FRAMEWORKS.get(name.partition("-")[0], ()))
    code = f"""{blocking(others)}
from tests.support.frameworks import APPLICATIONS
from tokenry.testing import FakeIssuer

issuer = FakeIssuer()
app = APPLICATIONS[{name!r}](issuer.validator())
good, lacking = ([("Authorization", "Bearer " + issuer.token(scope=scope))] for scope in ("orders.read", "other"))
print(*(app.call("GET", "/orders", fields).status for fields in (good, lacking, [])))
"""
    assert run(code).split() == ["200", "403", "401"]


CALLS = {
    "aiohttp": """
async def call():
    auth = tokenry.aiohttp.BearerAuth(source, origins=[url])
    async with aiohttp.ClientSession(middlewares=[auth]) as session, session.get(url) as response:
        return response.status
import asyncio
print(asyncio.run(call()))
""",
    "grpc": "tokenry.grpc.call_credentials(source, origins=[url]); print(200)",  # calling: test_grpc.py
    "httpx2": "print(httpx2.Client(auth=tokenry.httpx.BearerAuth(source), trust_env=False).get(url).status_code)",
    "requests": "print(requests.get(url, auth=tokenry.requests.BearerAuth(source), timeout=5).status_code)",
}


@pytest.mark.parametrize("client", CALLS)
def test_a_client_alone_is_enough_to_call_one(client: str) -> None:
    name = client.removesuffix("2")
    others = tuple(package for package in EXTRAS if package not in FRAMEWORKS[name])
    code = f"""{blocking(others)}
import {client}, tokenry.{name}
from tokenry import StaticTokenSource
from tokenry.http.fetch import Response
from tokenry.testing.server import LoopbackServer

def answer(request):
    fields = {{name.lower(): value for name, value in request.headers.items()}}
    return Response(status=200 if fields.get("authorization") == "Bearer fixed" else 401)

url, source = LoopbackServer(answer).url, StaticTokenSource("fixed")
{CALLS[client]}
"""
    assert run(code).split() == ["200"]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_without_its_framework_the_error_names_what_is_missing(name: str) -> None:
    code = f"""{blocking(EXTRAS)}
try:
    importlib.import_module('tokenry.{name}')
except ModuleNotFoundError as missing:
    print(missing.name)
"""
    assert run(code).strip().partition(".")[0] in FRAMEWORKS[name]


def test_httpx_is_enough_where_there_is_no_httpx2() -> None:
    others = tuple(package for package in EXTRAS if package not in {"httpx", "anyio"})
    used = "import httpx, tokenry.httpx\nassert issubclass(tokenry.httpx.BearerAuth, httpx.Auth)"
    run(f"{blocking(others)}\n{used}")


def test_every_framework_has_an_extra_of_its_name() -> None:
    project = tomllib.loads((LIBRARY.parents[1] / "pyproject.toml").read_text())["project"]
    assert set(FRAMEWORKS) - {"rest_framework"} <= set(project["optional-dependencies"])
    assert [Requirement(text).name for text in project["dependencies"]] == ["pyjwt"]


def test_importing_the_library_loads_no_driver_and_no_framework() -> None:
    loaded = run(
        f"""
import sys
import tokenry
print(*sorted({set(EXTRAS)!r} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    )
    assert loaded.split() == []


def test_importing_the_library_loads_few_modules() -> None:
    # What takes the time of an import are modules; their number does not depend on how busy a machine is.
    counted = run("import sys; before = len(sys.modules); import tokenry; print(len(sys.modules) - before)")
    assert int(counted) <= 40
    names = "TokenValidator, ClientCredentials, default_source, Introspector"
    loaded = run(f"import sys; from tokenry import {names}; print(len(sys.modules))")
    assert int(loaded) <= 450


def test_importing_the_library_costs_less_than_what_it_stands_on() -> None:
    # In CPU time, and against imports that its users have anyway: neither depends on how busy a machine is.
    def least(statement: str) -> float:
        code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
        return min(float(run(code)) for _ in range(3))

    asyncio = least("import asyncio")
    stands_on = least("import asyncio, http.client, ssl, jwt, cryptography.hazmat.primitives.asymmetric.ec")
    assert least("import tokenry") < 0.5 * asyncio
    assert least("from tokenry import ClientCredentials, TokenValidator") < 2.5 * stands_on


def test_the_pure_core_runs_without_asyncio() -> None:
    # A library for any server must not decide which event loop its callers use by being imported.
    assert run("import sys, tokenry.jose; print('asyncio' in sys.modules)").strip() == "False"
