"""
The administration under attack: who may nothing, names that are paths, and generated requests for every operation.

It writes into a copy of the platform's registry, so that what it is made to do hurts nobody else.
"""

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.security.test_openapi_documents import SECONDS, SEED, Generator, judge, operations
from tests.support.attacked import AttackedPlatform, Talker, raw_exchange
from tests.support.http import Answer, call
from tests.support.processes import free_port

pytestmark = pytest.mark.processes

READ, ADMIN = "registry.read", "registry.admin"
ROTATE = ("POST", "/keys/rotate")  # each makes a key; hundreds of them would only be that
NAMES = (
    "..", ".", "../../realms", "..%2f..%2fkeys", "%2e%2e", "a/../../b", "a%00b", "a\x00b", "/etc/passwd", "a\\..\\b",
    "-", "a" * 300, "\u202e", "é", "a b", "*", "con", "~root", "$(id)", "a;b", "a\r\nb", " ", "",
)  # fmt: skip


@dataclass
class Administration:
    """The running service, and the registry that it writes into."""

    url: str
    address: tuple[str, int]
    registry: Path
    folder: Path

    def files(self) -> dict[str, bytes]:
        """Return everything below the test's folder that is not the registry's."""
        return {
            str(path): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and self.registry not in path.parents and "processes" not in path.parts
        }


@pytest.fixture(scope="module")
def administration(platform: AttackedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administration]:
    folder = tmp_path_factory.mktemp("administration")
    registry, port = folder / "deep" / "registry", free_port()
    shutil.copytree(platform.credentials, registry)
    (folder / "deep" / "not-yours.json").write_text("{}")
    environment = platform._environment("issuer")
    started = platform._processes.start(
        "admin",
        [platform.python, "-m", "tokenry_admin"],
        env={
            "TOKENRY_ISSUER": environment["TOKENRY_ISSUER"],
            "TOKENRY_REVOCATION_URL": platform.url("revocation", ""),
            "TOKENRY_ENVELOPE_KEY_FILE": environment["TOKENRY_ENVELOPE_KEY_FILE"],
            "TOKENRY_CREDENTIALS_URL": registry.as_uri() + "/",
            "TOKENRY_LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "TOKENRY_ENVIRONMENT": "dev",
            "TOKENRY_RAW_SYNC": "on",
            "TOKENRY_REQUESTS_PER_MINUTE": "1000000",
        },
    )
    started.wait_until_http(f"http://127.0.0.1:{port}/readyz", seconds=60)
    platform._running["admin"] = started  # so that its output and its memory are watched as the others' are
    yield Administration(f"http://127.0.0.1:{port}", ("127.0.0.1", port), registry, folder)
    del platform._running["admin"]
    started.kill()


def document(administration: Administration) -> dict:
    return call("GET", f"{administration.url}/openapi.json").json


def guarded(administration: Administration) -> list[tuple[str, str, dict]]:
    """Return the operations that need a caller."""
    found = [
        each
        for each in operations(document(administration))
        if each[1].startswith(("/clients", "/users", "/keys", "/raw-sync"))
    ]
    assert len(found) > 12
    return found


def ask(administration: Administration, method: str, path: str, *, token: str | None = None, body=None) -> Answer:
    return call(method, f"{administration.url}{path}", bearer=token, document=body)


def filled(path: str, **names: str) -> str:
    """Return *path* with a name of the demo client's in each place."""
    names = {"realm": "services", "name": "demo", "kid": "none"} | names
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def test_nobody_administers_without_being_known_and_allowed(platform: AttackedPlatform, administration) -> None:
    forge = platform.forge()
    reader, other = forge.token(scope=READ), forge.token(scope="registry.administrator orders.read")
    expired = forge.token(scope=f"{READ} {ADMIN}", exp=forge.now - 1)
    before = {path: path.read_bytes() for path in administration.registry.rglob("*.json")}
    for method, path, operation in guarded(administration):
        place, body = filled(path), {"use": "token"} if method in {"POST", "PUT", "PATCH"} else None
        for token, expected in (
            (None, {401}),
            ("garbage", {401}),
            (expired, {401}),
            (other, {403}),
            *(() if method == "GET" else ((reader, {403}),)),
        ):
            answer = ask(administration, method, place, token=token, body=body)
            assert answer.status in expected, (method, path, answer.status, sorted(operation["responses"]))
            assert "www-authenticate" in answer.headers
    assert {path: path.read_bytes() for path in administration.registry.rglob("*.json")} == before


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_no_path(platform: AttackedPlatform, administration, name: str) -> None:
    token = platform.forge().token(scope=f"{READ} {ADMIN}")
    outside = administration.files()
    body = {"client_id": name, "secrets": [], "scopes": []}
    for method, path, _ in guarded(administration):
        if (method, path) == ROTATE:
            continue
        for place in ({"name": name, "kid": name}, {"realm": name}):
            target = filled(path, **place)
            answer = ask(administration, method, target, token=token, body=None if method == "GET" else body)
            assert answer.status < 500, (method, path, answer)
    assert administration.files() == outside
    below = [path.relative_to(administration.registry).parts for path in administration.registry.rglob("*")]
    assert not [parts for parts in below if ".." in parts or any("\x00" in part for part in parts)]


@pytest.mark.parametrize("target", ["/clients/services/../../keys", "/clients//demo", "/clients/services/demo/../x"])
def test_a_path_with_dots_is_not_resolved(platform: AttackedPlatform, administration, target: str) -> None:
    token = platform.forge().token(scope=f"{READ} {ADMIN}")
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    answer, _ = raw_exchange(administration.address, request.encode())
    assert answer.split(b" ")[1] in {b"400", b"404", b"405"}, answer[:200]


def test_no_generated_request_breaks_an_operation_of_the_administration(
    platform: AttackedPlatform, administration
) -> None:
    rng = random.Random(f"{SEED} admin")  # noqa: S311 -- to be repeated
    generator, talker = Generator(document(administration), rng), Talker(administration.address)
    forge, all_operations = platform.forge(), list(operations(generator.document))
    tokens = [forge.token(scope=f"{READ} {ADMIN}"), forge.token(scope=f"{READ} {ADMIN}"), forge.token(scope=READ)]
    platform.sent.update(tokens)
    end, calls, answered = time.monotonic() + SECONDS / 3, 0, set()
    outside = administration.files()
    while time.monotonic() < end or calls < 5 * len(all_operations):
        method, path, operation = all_operations[calls % len(all_operations)]
        calls += 1
        target, headers, body = generator.request(method, path, operation)
        if rng.random() < 0.6:
            target = target.replace(path.partition("{")[0] + "x/", path.partition("{")[0] + "services/")
        token = rng.choice([*tokens, None, "garbage"])
        if (method, path) == ROTATE and token in tokens[:2]:
            continue
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = talker.ask(method, target, headers=headers, body=body)
        problem = judge(method, path, operation, answer.status)
        assert problem is None, (problem, target[:300], body and body[:300], f"TOKENRY_TEST_SEED={SEED}")
        answered.add((method, path, answer.status // 100))
    talker.close()
    assert len({(method, path) for method, path, _ in answered}) >= len(all_operations) - 2
    assert administration.files() == outside
    assert (administration.folder / "deep" / "not-yours.json").stat().st_size == 2
