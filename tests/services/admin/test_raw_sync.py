"""Plan B's administration: paths, bodies and status codes as its documents describe them, over our registry."""

import json

import pytest

from tests.services.admin.support import FIRST_SECRET, NOW, ORDERS, ROBOT, Reader
from tests.services.admin.test_http import PATH, USER_PATH, running
from tests.services.issuer.support import weak_bcrypt

CLIENT = {
    "scopes": ["orders.read", "uid"],
    "default_scopes": ["uid"],
    "is_confidential": True,
    "name": "Orders",
    "description": "takes orders",
    "redirect_uris": ["https://orders.example.org/back"],
    "image_uri": "https://orders.example.org/logo.png",
    "homepage_url": "https://orders.example.org",
}


@pytest.fixture
async def service():
    async with running(raw_sync=True) as service:
        yield service


async def takes(service, key, secret):
    reader = Reader(service.world)
    await reader.refresh()
    return await reader.takes(key, secret)


def hashes(service, path):
    members = service.world.members(path)
    return [each["hash"] for each in members.get("secrets") or members.get("password_hashes", [])]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_it_is_off_unless_it_is_asked_for(method):
    async with running() as service:
        for path in ("/raw-sync/clients/services/orders", "/raw-sync/users/services/robot"):
            assert (await service.ask(method, path, body={})).status == 404
        documented = (await service.ask("GET", "/openapi.json", scope=None)).json["paths"]
        assert not [path for path in documented if path.startswith("/raw-sync")]


async def test_a_client_is_created_and_the_issuer_takes_its_secret(service):
    body = {"secret_hash": weak_bcrypt("basket-secret"), **CLIENT}
    answer = await service.ask("PUT", "/raw-sync/clients/services/basket", body=body)
    assert (answer.status, answer.body) == (200, b"")
    stored = service.world.members("realms/services/clients/basket.json")
    assert stored["scopes"] == ["orders.read", "uid"]
    assert stored["default_scopes"] == ["uid"]
    assert stored["grant_types"] == ["password"]
    assert stored["description"] == "takes orders"
    from tokenry_admin.clients import client_key

    assert await takes(service, client_key("services", "basket"), "basket-secret")


async def test_put_replaces_everything_of_plan_b_and_nothing_else(service):
    before = service.world.members(PATH)
    service.world.put(PATH, **before, audiences=["stock"], enabled=False, default_scopes=["orders.read"])
    answer = await service.ask(
        "PUT", "/raw-sync/clients/services/orders", body={"secret_hash": weak_bcrypt("new"), "is_confidential": True}
    )
    assert answer.status == 200
    stored = service.world.members(PATH)
    assert (stored["scopes"], stored["audiences"], stored["enabled"]) == ([], ["stock"], False)
    assert "default_scopes" not in stored  # the realm's count, as there
    assert len(stored["secrets"]) == 1


@pytest.mark.parametrize("kept", [{}, {"scopes": None}, {"scopes": []}, {"secret_hash": None}])
async def test_patch_keeps_what_is_absent_null_or_an_empty_list(service, kept):
    before = service.world.members(PATH)
    answer = await service.ask("PATCH", "/raw-sync/clients/services/orders", body={"description": "new", **kept})
    assert (answer.status, answer.body) == (200, b"")
    assert service.world.members(PATH) == {**before, "description": "new"}


async def test_patch_changes_what_is_given(service):
    await service.ask("PATCH", "/raw-sync/clients/services/orders", body={"secret_hash": weak_bcrypt("next")})
    assert await takes(service, ORDERS, "next")
    assert not await takes(service, ORDERS, FIRST_SECRET)
    assert service.world.members(PATH)["scopes"] == ["orders.read"]


@pytest.mark.parametrize("kind", ["clients", "users"])
async def test_what_is_not_there_is_404_but_for_put(service, kind):
    place = f"/raw-sync/{kind}/services/nobody"
    assert (await service.ask("PATCH", place, body={})).status == 404
    assert (await service.ask("DELETE", place)).status == 404
    assert (await service.ask("PUT", place, body={})).status == 200
    if kind == "users":
        missing = await service.ask(
            "POST", "/raw-sync/users/services/none/password", body={"password_hash": weak_bcrypt("x")}
        )
        assert missing.status == 404


async def test_delete_deletes(service):
    assert (await service.ask("DELETE", "/raw-sync/clients/services/orders")).status == 200
    assert PATH not in service.world.store.objects
    assert (await service.ask("DELETE", "/raw-sync/clients/services/orders")).status == 404
    assert service.world.audited()[0] == "deleted by raw-sync"


async def test_the_rotation_of_plan_bs_documents_works_at_every_step(service):
    new = weak_bcrypt("new-password")
    added = await service.ask("POST", "/raw-sync/users/services/robot/password", body={"password_hash": new})
    assert (added.status, added.body) == (201, b"")
    assert await takes(service, ROBOT, "new-password")
    assert await takes(service, ROBOT, FIRST_SECRET)
    ended = await service.ask("PATCH", "/raw-sync/users/services/robot", body={"password_hashes": [new]})
    assert ended.status == 200
    assert await takes(service, ROBOT, "new-password")
    assert not await takes(service, ROBOT, FIRST_SECRET)


async def test_a_users_scopes_are_the_names_and_values_of_any_type_are_taken(service):
    answer = await service.ask(
        "PUT", "/raw-sync/users/services/robot",
        body={"password_hashes": [weak_bcrypt("x")], "scopes": {"uid": "robot", "cn": True, "orders.read": 1}},
    )  # fmt: skip
    assert answer.status == 200
    assert service.world.members(USER_PATH)["scopes"] == ["cn", "orders.read", "uid"]


async def test_the_same_password_twice_is_one_and_the_ninth_is_a_conflict_nobody_loses_one_by(service):
    place = "/raw-sync/users/services/robot/password"
    one = weak_bcrypt("one")
    for _ in range(2):
        assert (await service.ask("POST", place, body={"password_hash": one})).status == 201
    assert len(hashes(service, USER_PATH)) == 2
    for number in range(6):
        await service.ask("POST", place, body={"password_hash": "sha256:" + f"{number:064x}"})
    ninth = await service.ask("POST", place, body={"password_hash": weak_bcrypt("nine")})
    assert ninth.status == 422
    assert len(hashes(service, USER_PATH)) == 8
    assert await takes(service, ROBOT, FIRST_SECRET)


@pytest.mark.parametrize(
    "body",
    [
        {"secret_hash": "plain-text"},
        {"secret_hash": "$2b$31$" + "a" * 53},  # hours of work for each guess
        {"secret_hashes": []},  # misspelt: a credential that would not work
        {"scopes": "orders.read"},
        {"scopes": ["a b"]},
        {"is_confidential": "yes"},
        {"is_confidential": False, "secret_hash": "$2b$04$" + "a" * 53},
        {"default_scopes": ["not-among-the-scopes"]},
        [],
    ],
)
async def test_what_no_issuer_would_take_is_not_written(service, body):
    before = service.world.store.objects[PATH]
    answer = await service.ask("PUT", "/raw-sync/clients/services/orders", body=body)
    assert answer.status in {400, 422}
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert service.world.store.objects[PATH] == before


@pytest.mark.parametrize("name", ["\ud800", "a b", "", "\x00", "é", 'a"b', "x" * 2000])
async def test_a_users_scope_that_is_none_is_not_written(service, name):
    body = {"password_hashes": [], "scopes": {name: 1}}
    answer = await service.ask("PUT", "/raw-sync/users/services/robot", raw=json.dumps(body).encode())
    assert answer.status in {400, 422}, answer.body
    assert service.world.members(USER_PATH)["scopes"] == ["orders.read"]


async def test_a_name_is_a_clients_or_a_users(service):
    answer = await service.ask("PUT", "/raw-sync/users/services/orders", body={"password_hashes": []})
    assert answer.status == 409


async def test_what_others_write_meanwhile_is_not_lost(service):
    once = iter([True])

    def meddle(operation, key):
        if operation == "put" and next(once, False):
            service.world.put(PATH, **service.world.members(PATH), audiences=["theirs"])

    service.world.store.before = meddle
    answer = await service.ask("PATCH", "/raw-sync/clients/services/orders", body={"description": "ours"})
    assert answer.status == 200
    stored = service.world.members(PATH)
    assert (stored["audiences"], stored["description"]) == (["theirs"], "ours")


async def test_no_hash_is_in_the_audit_log(service):
    text = weak_bcrypt("x")
    await service.ask("PUT", "/raw-sync/clients/services/new", body={"secret_hash": text})
    ((event, fields),) = service.world.lines
    assert event == "created by raw-sync"
    assert fields["changed"]["secrets"]["after"] == [{"kind": "bcrypt", "created_at": NOW, "expires_at": None}]
    assert text not in json.dumps(fields)
