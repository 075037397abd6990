"""Signing keys over HTTP: who may, what is answered, what is in the audit log."""

import json

import pytest

from tests.services.admin.support import NOW
from tests.services.admin.test_http import running
from tokenry.jose.sealing import EnvelopeKey
from tokenry_admin.key_actions import KeyActions
from tokenry_admin.key_custody import SealedCustody
from tokenry_admin.key_rotation import RotationPolicy
from tokenry_admin.key_store import KeyStore
from tokenry_registry.signing_keys import KeyUse, open_key, read_stored_key

DAY = 86_400
POLICY = RotationPolicy(period=30 * DAY, overlap=7 * DAY, lifetime=3600, announce=660)
ENVELOPE = EnvelopeKey.generate()


def actions(made):
    store = KeyStore(made.store, {KeyUse.TOKEN: SealedCustody(ENVELOPE)})
    return KeyActions(store, {KeyUse.TOKEN: POLICY}, clock=made.clock)


@pytest.fixture
async def service():
    async with running(keys=actions) as service:
        yield service


@pytest.mark.parametrize("path", ["/keys/rotate", "/keys/some-kid/retire"])
async def test_keys_are_changed_by_administrators_alone(service, path):
    assert (await service.ask("POST", path, scope=None)).status == 401
    assert (await service.ask("POST", path, scope="registry.read")).status == 403
    assert (await service.ask("GET", "/keys", scope="orders.read")).status == 403
    assert not [key for key in service.world.store.objects if key.startswith("keys/")]


async def test_rotating_answers_the_new_key_and_no_private_half_is_shown(service):
    answer = await service.ask("POST", "/keys/rotate", body={"reason": "SEC-12"})
    assert answer.status == 201
    assert answer.json["state"] in {"published", "scheduled", "active"}
    listed = await service.ask("GET", "/keys", scope="registry.read")
    assert {answer.json["kid"]} <= {key["kid"] for key in listed.json["keys"]} == set(answer.json["written"])
    assert "sealed" not in listed.body.decode() + answer.body.decode()
    body = service.world.store.objects[f"keys/{answer.json['kid']}.json"][0]
    open_key(read_stored_key(body, kid=answer.json["kid"]), envelope=ENVELOPE)
    ((event, fields),) = service.world.lines
    assert (event, fields["reason"], fields["use"]) == ("keys rotated", "SEC-12", "token")
    assert sorted(fields["kids"]) == sorted(answer.json["written"])


async def test_a_key_whose_tokens_may_live_is_not_retired_and_one_that_signed_nothing_may_be(service):
    await service.ask("POST", "/keys/rotate")
    service.world.clock.advance(POLICY.announce)
    keys = (await service.ask("GET", "/keys")).json["keys"]
    active = next(key["kid"] for key in keys if key["state"] == "active")
    refused = await service.ask("POST", f"/keys/{active}/retire")
    assert refused.status == 409
    assert refused.json["detail"]
    assert (await service.ask("POST", "/keys/nobody/retire")).status == 404
    assert json.loads(service.world.store.objects[f"keys/{active}.json"][0])["retire_at"] > NOW


async def test_a_second_rotation_at_once_is_told_that_one_is_under_way(service):
    assert (await service.ask("POST", "/keys/rotate")).status == 201
    again = [await service.ask("POST", "/keys/rotate") for _ in range(2)]
    assert again[-1].status == 409
    assert "under way" in again[-1].json["detail"]


@pytest.mark.parametrize("body", [{"use": "everything"}, {"kid": "x"}, {"reason": 7}, []])
async def test_a_body_that_is_misspelt_makes_no_key(service, body):
    assert (await service.ask("POST", "/keys/rotate", body=body)).status == 400
    assert not [key for key in service.world.store.objects if key.startswith("keys/")]


async def test_without_a_custody_no_key_is_made():
    def none(made):
        return KeyActions(KeyStore(made.store, {}), {KeyUse.TOKEN: POLICY}, clock=made.clock)

    async with running(keys=none) as service:
        assert (await service.ask("POST", "/keys/rotate")).status == 422
        assert (await service.ask("POST", "/keys/rotate", body={"use": "list"})).status == 404
