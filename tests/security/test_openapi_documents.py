"""
Every operation of every OpenAPI document, called with generated parameters and bodies.

The oracle: a documented status, or another 4xx; never a 5xx but 503 and those that the document itself names; an answer
of a documented content type; and what `unharmed` (conftest.py) sees after each test. For TOKENRY_TEST_OPENAPI_SECONDS
in all (default 20), with TOKENRY_TEST_SEED for another run than the usual one.
"""

import json
import os
import random
import re
import time
from urllib.parse import quote, urlencode

import pytest

from tests.support.attacked import SENDER, AttackedPlatform, Talker
from tests.support.http import call

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

SERVICES = ("issuer", "tokeninfo", "revocation")
SECONDS = float(os.environ.get("TOKENRY_TEST_OPENAPI_SECONDS", "20"))
SEED = int(os.environ.get("TOKENRY_TEST_SEED", "20270115"))
METHODS = ("get", "post", "put", "delete", "patch", "head", "options")
FORM = "application/x-www-form-urlencoded"
CONTENT_TYPES = (
    "application/json",
    FORM,
    "text/plain",
    "application/x-ndjson",
    "multipart/form-data; boundary=b",
    "x",
    "",
)
ODD = (
    "", " ", "\x00", "a", "0", "-1", "1e400", "9" * 300, "NaN", "null", "true", "[]", "{}", "../..", "%00", "é" * 40,
    "\ud800",
    "a" * 2000, "'\"<>", "a b", "a\r\nX-A: b", "https://evil.example/", "=", "&", ";", "eyJhbGciOiJub25lIn0.e30.",
)  # fmt: skip
HARMFUL = {("POST", "/revocations"): re.compile(rb'"type"\s*:\s*"(GLOBAL|KEY)"')}  # would end the run for all


class Generator:
    """Draws parameters and bodies, right and wrong ones, from an OpenAPI document."""

    def __init__(self, document: dict, rng: random.Random) -> None:
        self.document = document
        self.rng = rng

    def resolved(self, schema):
        while isinstance(schema, dict) and "$ref" in schema:
            target = self.document
            for name in schema["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            schema = target
        return schema if isinstance(schema, dict) else {}

    def value(self, schema, *, depth: int = 0):
        """Return a value that fits *schema*, more or less."""
        schema, rng = self.resolved(schema), self.rng
        if rng.random() < 0.12 or depth > 4:
            return self.odd()
        for choice in ("oneOf", "anyOf", "allOf"):
            if schema.get(choice):
                return self.value(rng.choice(schema[choice]), depth=depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return rng.choice(schema["enum"])
        kinds = schema.get("type", "object" if "properties" in schema else "string")
        kind = rng.choice(kinds) if isinstance(kinds, list) else kinds
        if kind == "object":
            members = {
                name: self.value(inner, depth=depth + 1)
                for name, inner in schema.get("properties", {}).items()
                if name in schema.get("required", ()) or rng.random() < 0.6
            }
            if isinstance(schema.get("additionalProperties"), dict) or rng.random() < 0.1:
                members[rng.choice(("sub", "realm", "iss", "odd", ""))] = self.value({}, depth=depth + 1)
            return members
        if kind == "array":
            return [self.value(schema.get("items", {}), depth=depth + 1) for _ in range(rng.randrange(3))]
        plain = {
            "integer": lambda: rng.choice([0, 1, -1, int(time.time()), 2**31, 2**63, 10**30]),
            "number": lambda: rng.choice([0, 0.5, -1.5, time.time(), 1e300]),
            "boolean": lambda: rng.random() < 0.5,
            "null": lambda: None,
        }
        return plain.get(kind, lambda: rng.choice(["a", "sub", "/nobody", "x y", *ODD]))()

    def odd(self):
        return self.rng.choice([None, True, 0, -1, 1.5, [], {}, [[]], {"a": {"b": []}}, *ODD])

    def text(self, schema) -> str:
        value = self.value(schema)
        return value if isinstance(value, str) else json.dumps(value)

    def request(self, method: str, path: str, operation: dict):
        """Return target, header fields and body of one call."""
        rng = self.rng
        query, headers = [], {}
        for parameter in map(
            self.resolved, [*self.document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        ):
            if not parameter.get("required") and parameter["in"] != "path" and rng.random() < 0.5:
                continue
            text = self.text(parameter.get("schema", {}))
            if parameter["in"] == "query":
                query += [(parameter["name"], text)] * rng.choice([1, 1, 1, 2])
            elif parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(text, safe="", errors="surrogatepass") or "x")
            elif parameter["in"] == "header":
                headers[parameter["name"]] = re.sub(r"[\r\n\0]", " ", text).encode("utf-8", "surrogatepass")
        path = re.sub(r"\{[^}]*\}", "x", path)
        target = path + (f"?{urlencode(query, errors='surrogatepass')}" if query else "")
        contents = self.resolved(operation.get("requestBody", {})).get("content", {})
        if method in {"GET", "HEAD"} or (not contents and rng.random() < 0.7):
            return target, headers, None
        kind = rng.choice([*contents] * 6 + list(CONTENT_TYPES))
        headers["Content-Type"] = kind
        return target, headers, self.body(kind, contents.get(kind, {}).get("schema", {}))

    def body(self, kind: str, schema) -> bytes:
        rng, value = self.rng, self.value(schema)
        if kind == FORM and isinstance(value, dict):
            pairs = [
                (str(name), inner if isinstance(inner, str) else json.dumps(inner)) for name, inner in value.items()
            ]
            return urlencode(pairs, errors="surrogatepass").encode()
        body = json.dumps(value).encode()
        if rng.random() < 0.1:
            body = body[: rng.randrange(len(body) + 1)] + rng.choice([b"\xff", b"\0", b"{", b""])
        return body


def operations(document: dict):
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def identities(platform: AttackedPlatform, rng: random.Random) -> dict[str, str]:
    """Return the header of some caller, or of none."""
    from base64 import b64encode

    basic = "Basic " + b64encode(":".join(platform.basic(SENDER)).encode()).decode()
    forge = platform.forge()
    return rng.choice([
        {},
        {"Authorization": f"Bearer {platform.admin_bearer()}"},
        {"Authorization": f"Bearer {platform.admin_bearer()}"},
        {"Authorization": f"Bearer {forge.token()}"},
        {"Authorization": f"Bearer {forge.token(scope='revocation.write token.introspect')}"},
        {"Authorization": basic},
        {"Authorization": "Bearer garbage"},
    ])  # fmt: skip


def documented(operation: dict) -> set[str]:
    return {str(status) for status in operation.get("responses", {})}


def judge(method: str, path: str, operation: dict, status: int) -> str | None:
    """Return what is wrong with *status*, or None."""
    if str(status) in documented(operation) or 400 <= status < 500 or status == 503:
        return None
    return f"{method} {path} answered {status}, which is not documented ({sorted(documented(operation))})"


@pytest.mark.parametrize("service", SERVICES)
def test_no_generated_request_breaks_an_operation(platform: AttackedPlatform, service: str) -> None:
    document = call("GET", platform.url(service, "/openapi.json")).json
    rng = random.Random(f"{SEED} {service}")  # noqa: S311 -- to be repeated
    generator, talker = Generator(document, rng), Talker(platform.address(service))
    all_operations = list(operations(document))
    assert all_operations
    end, calls, answered = time.monotonic() + SECONDS / len(SERVICES), 0, set()
    while time.monotonic() < end or calls < 3 * len(all_operations):
        method, path, operation = all_operations[calls % len(all_operations)]
        calls += 1
        target, headers, body = generator.request(method, path, operation)
        if body is not None and (pattern := HARMFUL.get((method, path))) and pattern.search(body):
            continue
        if "wait=" in target or "force=" in target or "REFRESH_FROM" in path:
            continue  # held on purpose; tells every validator of the folder's platform to begin anew
        answer = talker.ask(method, target, headers={**headers, **identities(platform, rng)}, body=body)
        problem = judge(method, path, operation, answer.status)
        assert problem is None, (problem, target[:300], body and body[:300], f"TOKENRY_TEST_SEED={SEED}")
        answered.add((method, path, answer.status // 100))
    talker.close()
    assert {4} <= {kind for _, _, kind in answered}
    assert len({(method, path) for method, path, _ in answered}) > len(all_operations) / 2


@pytest.mark.parametrize("service", SERVICES)
def test_the_document_can_be_generated_from(platform: AttackedPlatform, service: str) -> None:
    document = call("GET", platform.url(service, "/openapi.json")).json
    for method, path, operation in operations(document):
        assert documented(operation), (method, path)
        assert not [status for status in documented(operation) if status == "500"] or path.startswith("/auth"), path
        for name in re.findall(r"\{(\w+)\}", path):
            parameters = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
            known = [Generator(document, random.Random(0)).resolved(each)["name"] for each in parameters]  # noqa: S311
            assert name in known, (path, name)
