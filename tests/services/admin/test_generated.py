"""Requests that are drawn from the service's own OpenAPI document, right and wrong ones: nothing breaks or leaks."""

import random
import re

from yarl import URL

from tests.security.test_openapi_documents import Generator, documented, judge, operations
from tests.services.admin.support import NOW
from tests.services.admin.test_http import running
from tests.services.admin.test_keys_http import actions

REQUESTS = 900
SEED = 20270115


async def test_no_generated_request_breaks_an_operation_or_shows_a_hash():
    async with running(keys=actions, raw_sync=True, requests_per_minute=1_000_000) as service:
        document = (await service.ask("GET", "/openapi.json", scope=None)).json
        beginning = dict(service.world.store.objects)
        rng = random.Random(SEED)  # noqa: S311 -- to be repeated
        generator, everything, answered = Generator(document, rng), list(operations(document)), set()
        for number in range(REQUESTS):
            method, path, operation = everything[number % len(everything)]
            target, headers, body = generator.request(method, path, operation)
            if rng.random() < 0.5:  # of something that is there
                target = re.sub(r"/(clients|users)/[^/?]*/[^/?]*", _known, target)
            scope = rng.choice(["registry.admin"] * 4 + ["registry.read", "orders.read", None])
            fields = {**(service.headers(scope) if scope else {}), **headers}
            fields = {
                name: value for name, value in map(_text, fields.items()) if value.isascii() and value.isprintable()
            }
            url = URL(service.url + target, encoded=True)
            async with service.http.request(
                method, url, headers=fields, data=body, skip_auto_headers=["Content-Type"]
            ) as answer:
                content = await answer.read()
            problem = judge(method, path, operation, answer.status)
            assert problem is None, (problem, target[:300], body and body[:300], content[:300])
            assert answer.status != 500
            assert b"sha256:" not in content
            assert b"$2b$" not in content
            answered.add((method, path, answer.status // 100))
            if number % 40 == 0:  # what was deleted comes back
                service.world.clock.advance(700)
                for key, stored in beginning.items():
                    service.world.store.fill(key, stored[0])
        # every operation was refused to somebody, and most were done for somebody
        assert {(method, path) for method, path, kind in answered if kind == 4} >= {each[:2] for each in everything}
        assert sum(kind == 2 for _, _, kind in answered) > len(everything) / 2
        assert "sha256:" not in repr(service.world.lines)
        assert service.world.clock.now() > NOW


def _text(field):
    name, value = field
    return name, value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _known(match):
    return "/clients/services/orders" if match[1] == "clients" else "/users/services/robot"


def test_every_operation_documents_its_refusals():
    from tokenry_admin.openapi import openapi_document

    for method, path, operation in operations(openapi_document(raw_sync=True)):
        assert {"400", "401", "403", "429", "503"} <= documented(operation), (method, path)
        if method != "GET":
            assert {"404", "409", "412", "413", "422"} <= documented(operation), (method, path)
