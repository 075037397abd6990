"""The wheel with one extra at a time, each in an environment of its own: a framework's module needs no other one."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak
ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

# What is imported where one extra is installed; the base has none.
EXTRAS = {
    "": "from tokenry import ClientCredentials, TokenValidator, Introspector, default_source",
    "aiohttp": "from tokenry.aiohttp import BearerAuth, auth_middleware",
    "django": "from tokenry.django import AuthMiddleware, require",
    "fastapi": "from tokenry.fastapi import Bearer",
    "flask": "from tokenry.flask import init_app",
    "grpc": "from tokenry.grpc import call_credentials, ServerInterceptor",
    "httpx": "from tokenry.httpx import BearerAuth",
    "requests": "from tokenry.requests import BearerAuth",
    "starlette": "from tokenry.starlette import AuthMiddleware, BearerBackend",
}
# A whole way through the installed wheel: a token is issued by the fake and judged.
STORY = """
from tokenry.testing.issuer import FakeIssuer
from tokenry import ClientCredentials
issuer = FakeIssuer()
source = ClientCredentials("a", environ=issuer.environment(), fetcher=issuer)
assert issuer.validator().validate(source.get().value, scope="a").sub == "test-client"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    [built] = folder.glob("tokenry-*.whl")
    return built


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_wheel_works_with_one_extra(extra, wheel, tmp_path):
    subprocess.run([UV, "-q", "venv", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    constraints = ROOT / "requirements" / "dev.txt"
    subprocess.run([UV, "-q", "pip", "install", "--python", python, "-c", constraints, wanted], check=True)
    subprocess.run([python, "-I", "-c", f"{EXTRAS[extra]}\n{STORY}"], cwd=tmp_path, check=True)
    if not extra:
        listed = subprocess.run([UV, "pip", "list", "--python", python], capture_output=True, text=True, check=True)
        assert len(listed.stdout.splitlines()) - 2 <= 6, listed.stdout
