"""Administration over HTTP, with tokens of an issuer and a revocation service that are not there."""

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from yarl import URL

from tests.services.admin.support import FIRST_SECRET, NOW, ORDERS, MemoryFiles, NoFiles, Reader, world
from tests.support.odd_names import ODD_NAMES
from tests.support.registry_store import Interrupted
from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.oauth.errors import bearer_challenge
from tokenry.serving.server import serve
from tokenry.testing.issuer import FakeIssuer
from tokenry_admin.app import SERVICE_PARTS, Sweeper, create_app
from tokenry_admin.issuers import NotSettled
from tokenry_admin.settings import Settings
from tokenry_registry.realms import check_name

ISSUER = "https://issuer.example.org"
PATH = "realms/services/clients/orders.json"
USER_PATH = "realms/services/users/robot.json"
BCRYPT = "$2b$04$abcdefghijklmnopqrstuuYxS3n0xxMJxN9l9J2iKPqX1i5nLUT3W"
OTHER_BCRYPT = "$2a$04$abcdefghijklmnopqrstuuYxS3n0xxMJxN9l9J2iKPqX1i5nLUT3X"


class Revocations:
    """The revocation service as far as it is asked."""

    def __init__(self):
        self.asked = []
        self.status = 201
        self.down = False

    def fetch(self, request):
        if self.down:
            raise FetchFailed(Failure.CONNECT, "down")
        self.asked.append((request, json.loads(request.body)))
        return Response(status=self.status, body=b'{"id": "r1", "status": "stored"}')


@dataclass
class Running:
    world: Any
    files: list
    revocations: Revocations
    issuer: FakeIssuer
    http: ClientSession
    url: str
    app: Any
    settled: list

    def headers(self, scope="registry.admin", **more):
        return {"Authorization": f"Bearer {self.issuer.token('alice', scope=scope)}", **more}

    async def ask(self, method, path, *, scope="registry.admin", headers=None, body=None, raw=None):
        data = raw if body is None else json.dumps(body).encode()
        fields = {**(self.headers(scope) if scope is not None else {}), **(headers or {})}
        # As it is written: a client that spells it anew would hide what the service makes of it.
        url = URL(self.url + path, encoded=True)
        async with self.http.request(method, url, headers=fields, data=data) as answer:
            content = await answer.read()
            return Answer(answer.status, answer.headers.copy(), content)


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@asynccontextmanager
async def running(*, files=None, settled=None, keys=None, **changes):
    made, revocations, waits = world(), Revocations(), []
    places = [MemoryFiles()] if files is None else files
    issuer = FakeIssuer(clock=made.clock, issuer=ISSUER, audience=ISSUER)

    async def wait(written_at):
        if PATH in made.store.objects:
            waits.append(made.members(PATH).get("enabled", True))
        if settled is not None:
            raise settled

    app = create_app(
        Settings(**{
            "issuer": ISSUER, "credentials_url": "file:///nowhere/", "environment": "test",
            "revocation_url": "https://revocation.example.org", **changes,
        }),
        clock=made.clock,
        store=made.store,
        files=places,
        judge=issuer.validator(),
        settled=wait,
        fetcher=revocations,
        keys=None if keys is None else keys(made),
        audit=lambda event, fields: made.lines.append((event, dict(fields))),
        background=False,
    )  # fmt: skip
    async with serve(app, ["127.0.0.1:0"], finish_seconds=1.0) as served, ClientSession() as http:
        yield Running(made, places, revocations, issuer, http, served.url, app, waits)


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_every_name_that_the_registry_allows_is_one_segment_of_an_address(name):
    check_name(name)
    async with running(raw_sync=True) as service:
        service.world.put(f"realms/services/clients/{name}.json", client_id=name, scopes=["orders.read"])
        segment = quote(name, safe="")
        for realm in ("services", "%2Fservices"):
            place = f"/clients/{realm}/{segment}"
            shown = await service.ask("GET", place)
            assert (shown.status, shown.json["client_id"]) == (200, name)
        assert (await service.ask("POST", f"{place}/disable")).status == 200
        assert (await service.ask("GET", place)).json["enabled"] is False
        body = {"secret_hash": BCRYPT, "scopes": ["orders.read"], "is_confidential": True}
        assert (await service.ask("PUT", f"/raw-sync{place}", body=body)).status == 200
        assert (await service.ask("DELETE", f"/raw-sync{place}")).status == 200
        assert (await service.ask("GET", place)).status == 404


# --- who may -------------------------------------------------------------------------------------------------------

WRITES = [
    ("POST", "/clients/services/orders/disable"),
    ("POST", "/clients/services/orders/enable"),
    ("POST", "/clients/services/orders/rotate-secret"),
    ("PUT", "/raw-sync/clients/services/orders"),
    ("PATCH", "/raw-sync/clients/services/orders"),
    ("DELETE", "/raw-sync/clients/services/orders"),
    ("POST", "/raw-sync/users/services/robot/password"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_nothing_is_written_without_the_scope(method, path):
    async with running(raw_sync=True) as service:
        before = dict(service.world.store.objects)
        nobody = await service.ask(method, path, scope=None)
        reader = await service.ask(method, path, scope="registry.read orders.read")
        stranger = await service.ask(
            method, path, scope=None, headers={"Authorization": f"Bearer {service.issuer.token(wrong_key=True)}"}
        )
        assert [nobody.status, reader.status, stranger.status] == [401, 403, 401]
        assert nobody.headers["WWW-Authenticate"] == bearer_challenge()
        assert "registry.admin" in reader.headers["WWW-Authenticate"]
        assert service.world.store.objects == before
        assert service.world.audited() == ["refused"]


@pytest.mark.parametrize("path", ["/clients", "/clients/services/orders", "/users"])
async def test_reading_needs_a_scope_of_its_own_or_the_administrators(path):
    async with running() as service:
        assert (await service.ask("GET", path, scope="orders.read")).status == 403
        assert (await service.ask("GET", path, scope="registry.read")).status == 200
        assert (await service.ask("GET", path, scope="registry.admin")).status == 200


async def test_a_caller_that_asks_too_often_waits_and_others_do_not():
    async with running(requests_per_minute=60) as service:
        answers = [await service.ask("GET", "/clients/services/orders") for _ in range(62)]
        assert {answer.status for answer in answers[:60]} == {200}
        assert answers[-1].status == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1
        other = {"Authorization": f"Bearer {service.issuer.token('bob', scope='registry.read')}"}
        assert (await service.ask("GET", "/clients", scope=None, headers=other)).status == 200


async def test_a_body_above_the_bound_is_refused():
    async with running(raw_sync=True) as service:
        answer = await service.ask("PUT", "/raw-sync/clients/services/orders", raw=b" " * 70_000)
        assert answer.status == 413


# --- reading -------------------------------------------------------------------------------------------------------


async def test_what_is_shown_has_no_hash():
    async with running() as service:
        one = await service.ask("GET", "/clients/services/orders")
        page = await service.ask("GET", "/clients?realm=services")
        assert one.json["client_id"] == "orders"
        assert one.json["secrets"] == [{"kind": "sha256", "created_at": NOW - 86_400, "expires_at": None}]
        assert one.json["rotation"] is None
        assert [each["client_id"] for each in page.json["clients"]] == ["orders"]
        assert b"sha256:" not in one.body + page.body
        assert (await service.ask("GET", "/clients/services/nobody")).status == 404
        assert (await service.ask("GET", "/clients/services/..%2Frealm")).status in {404, 422}


async def test_many_clients_come_in_pages_and_are_read_once():
    async with running() as service:
        for number in range(25):
            service.world.put(f"realms/services/clients/c{number:02}.json", client_id=f"c{number:02}")
        reads = []
        service.world.store.before = lambda operation, key: reads.append(key) if operation == "get" else None
        names, after = [], ""
        while after is not None:
            page = (await service.ask("GET", f"/clients?realm=services&limit=10&after={after}")).json
            names += [each["client_id"] for each in page["clients"]]
            after = page.get("next")
        assert names == sorted(names)
        assert len(set(names)) == 26
        before = len(reads)
        await service.ask("GET", "/clients?realm=services&limit=1000")
        assert len(reads) == before
        assert (await service.ask("GET", "/clients?limit=0")).status == 400


async def test_an_object_that_nobody_can_read_is_named_and_hides_no_other():
    async with running() as service:
        service.world.store.fill("realms/services/clients/broken.json", b"{")
        page = (await service.ask("GET", "/clients?realm=services")).json
        assert list(page["unreadable"]) == ["/services/broken"]
        assert [each["client_id"] for each in page["clients"]] == ["orders"]


# --- disabling -----------------------------------------------------------------------------------------------------


async def test_a_client_is_disabled_and_enabled_again_and_both_are_in_the_audit_log():
    async with running() as service:
        off = await service.ask("POST", "/clients/services/orders/disable")
        assert (off.status, off.json["enabled"]) == (200, False)
        assert service.world.members(PATH)["enabled"] is False
        again = await service.ask("POST", "/clients/services/orders/disable")
        assert again.json["changed"] is False
        assert (await service.ask("POST", "/clients/services/orders/enable")).status == 200
        assert service.world.members(PATH)["enabled"] is True
        (first, fields), (second, _) = service.world.lines
        assert (first, second) == ("disabled", "enabled")
        assert fields["actor"] == {"iss": ISSUER, "sub": "alice", "client_id": "alice"}
        assert fields["changed"] == {"enabled": {"before": None, "after": False}}
        assert FIRST_SECRET not in repr(service.world.lines)
        assert "sha256:" not in repr(service.world.lines)


async def test_a_write_that_is_meant_for_another_version_is_not_done():
    async with running() as service:
        etag = (await service.ask("GET", "/clients/services/orders")).headers["ETag"]
        assert (await service.ask("POST", "/clients/services/orders/disable", headers={"If-Match": etag})).status == 200
        late = await service.ask("POST", "/clients/services/orders/enable", headers={"If-Match": etag})
        assert late.status == 412
        assert service.world.members(PATH)["enabled"] is False


async def test_a_write_that_somebody_else_overtakes_is_a_conflict():
    async with running() as service:

        def overtake(operation, key):
            service.world.store.before = lambda _operation, _key: None
            service.world.put(PATH, **service.world.members(PATH), description="theirs")

        service.world.store.before = lambda operation, key: overtake(operation, key) if operation == "put" else None
        assert (await service.ask("POST", "/clients/services/orders/disable")).status == 409
        assert service.world.members(PATH)["description"] == "theirs"


async def test_nothing_is_written_into_a_realm_of_another_environment():
    async with running(raw_sync=True) as service:
        service.world.put("realms/elsewhere/clients/orders.json", client_id="orders")
        answer = await service.ask("POST", "/clients/elsewhere/orders/disable")
        assert answer.status == 422
        assert "another environment" in answer.json["detail"]
        new = await service.ask("PUT", "/raw-sync/clients/elsewhere/new", body={"secret_hash": BCRYPT})
        assert new.status == 422
        none = await service.ask("PUT", "/raw-sync/clients/nowhere/new", body={"secret_hash": BCRYPT})
        assert none.status == 422
        assert "no realm" in none.json["detail"]


async def test_a_store_that_is_away_is_said_so_and_nothing_is_claimed():
    async with running() as service:

        def away(_operation, _key):
            raise Interrupted

        service.world.store.before = away
        answer = await service.ask("POST", "/clients/services/orders/disable")
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        sweeper = Sweeper(service.app[SERVICE_PARTS], sleep=None)
        await sweeper.sweep()
        assert sweeper.finding().status == "failed"


async def test_disabling_with_revocation_blocks_writes_waits_and_revokes_in_this_order():
    async with running() as service:
        answer = await service.ask(
            "POST", "/clients/services/orders/disable", body={"revoke": True, "reason": "SEC-481"}
        )
        assert answer.status == 200
        assert service.settled == [False]  # it was disabled when the waiting began
        (first, block), (second, final) = service.revocations.asked
        claims = {"client_id": "orders", "realm": "/services"}
        assert block == {"type": "CLAIM", "data": {"claims": claims, "block_until": NOW + 900, "reason": "SEC-481"}}
        assert final == {"type": "CLAIM", "data": {"claims": claims, "reason": "SEC-481"}}
        # in the name of the caller, whose token decides
        assert first.headers["Authorization"].startswith("Bearer ey")
        assert first.url == second.url == "https://revocation.example.org/revocations"
        assert len(answer.json["revocations"]) == 2


@pytest.mark.parametrize(("status", "answered"), [(403, 403), (500, 502)])
async def test_without_the_block_nothing_is_disabled(status, answered):
    async with running() as service:
        service.revocations.status = status
        answer = await service.ask("POST", "/clients/services/orders/disable", body={"revoke": True})
        assert answer.status == answered
        assert "enabled" not in service.world.members(PATH)


async def test_nothing_is_revoked_for_a_client_that_is_not_there_or_while_the_service_is_away():
    async with running() as service:
        assert (await service.ask("POST", "/clients/services/nobody/disable", body={"revoke": True})).status == 404
        assert service.revocations.asked == []
        service.revocations.down = True
        assert (await service.ask("POST", "/clients/services/orders/disable", body={"revoke": True})).status == 503
    async with running(revocation_url=None) as service:
        assert (await service.ask("POST", "/clients/services/orders/disable", body={"revoke": True})).status == 422


async def test_an_issuer_that_does_not_hear_of_it_keeps_the_block_and_no_success_is_claimed():
    async with running(settled=NotSettled("these issuers have not read it: b")) as service:
        answer = await service.ask("POST", "/clients/services/orders/disable", body={"revoke": True})
        assert answer.status == 503
        assert "issuers" in answer.json["detail"]
        assert len(service.revocations.asked) == 1
        assert service.world.members(PATH)["enabled"] is False


@pytest.mark.parametrize("body", [{"revoke": "yes"}, {"revok": True}, {"reason": ""}, {"reason": "x" * 501}])
async def test_a_body_that_is_misspelt_does_nothing(body):
    async with running() as service:
        assert (await service.ask("POST", "/clients/services/orders/disable", body=body)).status == 400
        assert "enabled" not in service.world.members(PATH)


# --- rotation ------------------------------------------------------------------------------------------------------


async def test_a_secret_is_rotated_into_the_applications_file_and_never_answered():
    async with running() as service:
        answer = await service.ask("POST", "/clients/services/orders/rotate-secret?show=once")
        secret = json.loads(service.files[0].files["orders", "client.json"])["client_secret"]
        assert answer.status == 200
        assert answer.json == {
            "step": "overlap", "application": "orders", "old_until": NOW + 3600, "resumed": False,
        }  # fmt: skip
        assert secret.encode() not in answer.body
        reader = Reader(service.world)
        await reader.refresh()
        assert await reader.takes(ORDERS, secret)
        assert (await service.ask("GET", "/clients/services/orders")).json["rotation"]["step"] == "overlap"


async def test_without_a_place_for_files_the_secret_is_answered_once_to_who_asks_for_it():
    async with running(files=[]) as service:
        assert (await service.ask("POST", "/clients/services/orders/rotate-secret")).status == 422
        answer = await service.ask("POST", "/clients/services/orders/rotate-secret?show=once")
        assert len(answer.json["secret"]) == 43
        assert answer.headers["Cache-Control"] == "no-store"
        done = await service.ask("POST", "/clients/services/orders/rotate-secret", body={"finish": True})
        assert (done.status, done.json["step"]) == (200, "overlap")
        assert answer.json["secret"] not in repr(service.world.lines)


async def test_a_rotation_that_cannot_be_done_is_refused_in_words():
    async with running(files=[NoFiles()]) as service:
        answer = await service.ask("POST", "/clients/services/orders/rotate-secret")
        assert answer.status == 503
        assert "AccessDenied" in answer.json["detail"]


async def test_the_sweeper_ends_old_secrets_and_counts_what_nobody_has_finished():
    async with running() as service:
        parts = service.app[SERVICE_PARTS]
        sweeper = Sweeper(parts, sleep=None)
        await service.ask("POST", "/clients/services/orders/rotate-secret")
        service.world.clock.advance(3601)
        await sweeper.sweep()
        assert sweeper.finding().status == "ok"
        assert len(service.world.members(PATH)["secrets"]) == 1

        def broken(operation, key):
            if operation == "put file" and key.endswith("client.json"):
                raise Interrupted

        service.files[0].before = broken
        assert (await service.ask("POST", "/clients/services/orders/rotate-secret")).status == 503
        service.world.clock.advance(601)
        await sweeper.sweep()
        assert sweeper.finding().status == "degraded"
        metrics = (await service.ask("GET", "/metrics", scope=None)).body
        assert b"tokenry_secret_rotations_unfinished 1.0" in metrics
        assert b'tokenry_registry_writes_total{action="rotate_secret",result="503"} 1.0' in metrics
