"""Looking a revocation up, and taking one back."""

import pytest

from tests.services.revocation.conftest import ISSUER, LIFETIME, NOW

UNDO = "revocation.undo"


def hits(world, service, token):
    return service.feed.revocations.hits(world.judged(token), now=world.clock.now())


async def undo(world, service, name, *, scope=UNDO, **body):
    path = f"/revocations/{name}/undo"
    return await service.call("POST", path, token=world.caller(scope), body=body or None)


async def test_a_record_says_who_when_and_why_and_no_value(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "canary"}}, reason="why", ticket="SEC-1")
    answer = await service.get(f"/revocations/{posted.json['id']}", token=world.caller())
    assert answer.status == 200
    assert answer.json == {
        **posted.json,
        "in_force": True,
        "issued_before": NOW + 3,
        "names": ["sub"],
        "by": {"iss": ISSUER, "sub": "operator", "client_id": "ops"},
        "approved_by": None,
        "rule": None,
        "reason": "why",
        "ticket": "SEC-1",
        "undone": None,
        "denied": 0,
        "refused": {"count": 0, "last_seconds_ago": None, "validators": 0, "validators_are_more": False},
    }


@pytest.mark.parametrize("name", ["a" * 32, "changes2", "x"])
async def test_what_is_not_there_is_404(world, service, name):
    assert (await service.get(f"/revocations/{name}", token=world.caller())).status == 404
    assert (await undo(world, service, name)).status == 404


@pytest.mark.parametrize("name", ["..%2f..", "A", "%00", "a'--", "x" * 300])
async def test_ids_of_another_form_lead_nowhere(world, service, name):
    assert (await service.get(f"/revocations/{name}", token=world.caller())).status == 404


async def test_looking_up_needs_a_scope(world, service):
    posted = await service.post("TOKEN", {"jti": "a"})
    assert (await service.get(f"/revocations/{posted.json['id']}")).status == 401
    assert (await service.get(f"/revocations/{posted.json['id']}", token=world.caller("x"))).status == 403


async def test_R16_a_mistake_is_taken_back_by_a_record_of_its_own(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    assert hits(world, service, world.token())
    answer = await undo(world, service, posted.json["id"], reason="wrong person")
    assert answer.status == 201
    assert answer.json == {
        "id": answer.json["id"],
        "type": "UNDO",
        "revoked_at": NOW,
        "in_force_until": posted.json["in_force_until"],
        "propagated_by": NOW + 31,
        "plan_b_by": None,
        "undoes": posted.json["id"],
        "plan_b": "validators of Plan B keep the revocation until they restart",
    }
    assert not hits(world, service, world.token())
    assert (await service.plan_b())["revocations"] == []
    shown = (await service.get(f"/revocations/{posted.json['id']}", token=world.caller())).json
    assert shown["in_force"] is False
    assert shown["undone"]["reason"] == "wrong person"
    assert (world.audit[-1]["undoes"], world.audit[-1]["reason"]) == (posted.json["id"], "wrong person")


async def test_readers_hear_of_an_undo_through_changes(world, service):
    document = await service.snapshot()
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    first = (await service.changes(document.cursor)).list
    held = first.onto(None, now=NOW)
    assert held.hits(world.judged(world.token()), now=NOW)
    await undo(world, service, posted.json["id"])
    held = (await service.changes(first.cursor)).list.onto(held, now=NOW)
    assert not held.hits(world.judged(world.token()), now=NOW)


async def test_an_undo_lifts_one_record_and_no_other_cut_off(world, service):
    first = await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "issued_before": NOW - 100})
    second = await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "issued_before": NOW - 10})
    await undo(world, service, second.json["id"])
    assert hits(world, service, world.token(iat=NOW - 200))
    assert not hits(world, service, world.token(iat=NOW - 50))
    await undo(world, service, first.json["id"])
    assert not hits(world, service, world.token(iat=NOW - 200))


async def test_undoing_twice_is_one_undo(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    first = await undo(world, service, posted.json["id"])
    world.clock.advance(5)
    again = await undo(world, service, posted.json["id"])
    assert (first.status, again.status) == (201, 200)
    assert again.json == first.json


async def test_what_was_undone_can_be_revoked_again(world, service):
    data = {"claims": {"sub": "jdoe"}, "issued_before": NOW - 10}
    first = await service.post("CLAIM", data)
    await undo(world, service, first.json["id"])
    second = await service.post("CLAIM", data)
    assert second.status == 201
    assert second.json["id"] != first.json["id"]
    assert hits(world, service, world.token(iat=NOW - 50))
    assert (await service.post("CLAIM", data)).json == second.json


async def test_an_undo_lives_as_long_as_what_it_lifts(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    await undo(world, service, posted.json["id"])
    world.clock.advance(LIFETIME + 100)
    await service.feed.read()
    assert len((await service.snapshot()).entries) == 2
    world.clock.advance(100)
    await service.feed.read()
    assert (await service.snapshot()).entries == ()


async def test_everything_can_be_taken_back(world, service):
    posted = await service.post("GLOBAL", {"issued_before": NOW - 10}, confirm=True)
    assert hits(world, service, world.token(iat=NOW - 50))
    assert (await undo(world, service, posted.json["id"])).status == 201
    assert not hits(world, service, world.token(iat=NOW - 50))


async def test_a_key_is_never_taken_back(world, service):
    posted = await service.post("KEY", {"kid": world.standby.kid})
    assert (await undo(world, service, posted.json["id"])).status == 409
    assert hits(world, service, world.token(key=world.standby))


async def test_a_token_is_taken_back_only_when_it_was_a_test(world, service):
    token, other = world.token(), world.token()
    real = await service.post("TOKEN", {"token": token}, reason="testing")
    tried = await service.post("TOKEN", {"token": other}, reason="test")
    assert (await undo(world, service, real.json["id"])).status == 409
    assert (await undo(world, service, tried.json["id"])).status == 201
    assert hits(world, service, token)
    assert not hits(world, service, other)


async def test_taking_a_test_back_does_not_revive_a_token_that_was_revoked_in_earnest(world, service):
    token = world.token()
    tried = await service.post("TOKEN", {"token": token}, reason="test")
    assert (await service.post("TOKEN", {"token": token})).status == 201
    await undo(world, service, tried.json["id"])
    assert hits(world, service, token)


async def test_an_undo_is_not_undone(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    lifted = await undo(world, service, posted.json["id"])
    assert (await undo(world, service, lifted.json["id"])).status == 409


async def test_what_is_out_of_force_is_not_undone(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}, "issued_before": NOW - LIFETIME})
    world.clock.advance(121)
    await service.feed.read()
    assert (await undo(world, service, posted.json["id"])).status in {404, 409}


@pytest.mark.parametrize("scope", ["revocation.admin", "revocation.write", ""])
async def test_undoing_needs_a_scope_of_its_own(world, service, scope):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    answer = await undo(world, service, posted.json["id"], scope=scope)
    assert answer.status == 403
    assert 'scope="revocation.undo"' in answer.headers["WWW-Authenticate"]
    assert hits(world, service, world.token())


@pytest.mark.parametrize("raw", [b"[]", b"x", b'{"force":true}', b'{"reason":5}'])
async def test_an_undo_that_is_not_understood_is_refused(world, service, raw):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    path = f"/revocations/{posted.json['id']}/undo"
    assert (await service.call("POST", path, token=world.caller(UNDO), raw=raw)).status == 400


async def test_without_the_store_nothing_is_undone(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    world.store.down = True
    assert (await undo(world, service, posted.json["id"])).status == 503
    assert hits(world, service, world.token())


async def test_without_the_store_nothing_is_looked_up(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "x"}})
    world.store.down = True
    answer = await service.get(f"/revocations/{posted.json['id']}", token=world.caller())
    assert answer.status == 503
    assert answer.json["detail"] == "the store does not answer"


async def test_a_record_of_a_later_version_is_503_and_not_a_fault_of_ours(world, service):
    from tokenry_revocation.ports import StoredRecord

    await world.store.append(StoredRecord(id="later", body=b'{"format":2}', in_force_until=NOW + 600))
    assert (await service.get("/revocations/later", token=world.caller())).status == 503
