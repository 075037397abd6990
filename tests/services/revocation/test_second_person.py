"""What hits too much is not in force before another person has approved it."""

import pytest

from tokenry.revocation.lists import RevocationList

NOW = 1_800_000_000


@pytest.fixture
async def service(world):
    async with world.replica(TOKENRY_SECOND_PERSON_SHARE="0.1") as replica:
        yield replica


def admin(world, sub="alice", scope="revocation.admin", **claims):
    return world.caller(scope, sub=sub, **claims)


async def ask(service, *, kind="GLOBAL", sub="alice", headers=None, **data):
    data = {"confirm": True, **data} if kind == "GLOBAL" else data
    return await service.call(
        "POST", "/revocations", token=admin(service.world, sub), body={"type": kind, "data": data}, headers=headers
    )


async def approve(service, name, *, sub="bob", **claims):
    return await service.call("POST", f"/revocations/{name}/approve", token=admin(service.world, sub, **claims))


async def later(service, seconds=10):
    """Let time pass, so that new tokens of callers are not hit by what is in force now."""
    service.world.clock.advance(seconds)
    await service.feed.read()


def hit(service, token):
    return service.feed.revocations.hits(service.world.judged(token), now=service.world.clock.now()) is not None


async def test_F57_a_global_is_pending_and_not_in_force(service, world):
    token = world.token()
    answer = await ask(service)
    assert answer.status == 202
    assert answer.json["status"] == "pending"
    assert answer.json["in_force"] is False
    assert answer.json["expires_at"] == NOW + 3600
    assert not hit(service, token)
    assert (await service.snapshot()).entries == ()
    assert (await service.plan_b())["revocations"] == []


async def test_another_person_puts_it_in_force(service, world):
    token = world.token()
    name = (await ask(service, reason="fire", ticket="S-1")).json["id"]
    answer = await approve(service, name)
    assert answer.status == 201
    assert answer.json["id"] == name
    assert hit(service, token)
    await later(service)
    shown = (await service.get(f"/revocations/{name}", token=admin(world))).json
    assert (shown["by"]["sub"], shown["approved_by"]["sub"]) == ("alice", "bob")
    assert (shown["in_force"], shown["reason"], shown["ticket"]) == (True, "fire", "S-1")


async def test_who_asked_cannot_approve_also_not_with_another_client(service):
    name = (await ask(service)).json["id"]
    assert (await approve(service, name, sub="alice")).status == 409
    assert (await approve(service, name, sub="alice", client_id="other", azp="other")).status == 409
    assert (await service.snapshot()).entries == ()


@pytest.mark.parametrize("scope", ["revocation.write", "revocation.undo", ""])
async def test_approving_needs_the_administrators_scope(service, scope):
    name = (await ask(service)).json["id"]
    assert (await approve(service, name, scope=scope)).status == 403
    answer = await service.call("POST", f"/revocations/{name}/approve")
    assert answer.status == 401


async def test_a_cut_off_that_the_service_chose_means_up_to_the_approval(service, world):
    first = (await ask(service)).json
    world.clock.advance(600)
    later = world.token()
    approved = (await approve(service, first["id"])).json
    assert hit(service, later)
    assert approved["revoked_at"] == NOW + 600
    entry = (await service.snapshot()).entries[0]
    assert entry.issued_before == first["issued_before"] + 600
    assert approved["in_force_until"] == entry.issued_before + 3600 + 120
    world.clock.advance(10)
    row = (await service.plan_b())["revocations"][0]
    assert row["data"]["issued_before"] == entry.issued_before
    assert row["revoked_at"] >= NOW + 600


async def test_a_cut_off_that_the_person_chose_stays(service, world):
    name = (await ask(service, issued_before=NOW - 100)).json["id"]
    world.clock.advance(600)
    await approve(service, name)
    assert (await service.snapshot()).entries[0].issued_before == NOW - 100
    assert not hit(service, world.token(iat=NOW))
    assert hit(service, world.token(iat=NOW - 101))


async def test_it_expires(service, world):
    name = (await ask(service)).json["id"]
    await later(service, 3600)
    assert (await approve(service, name)).status == 404
    assert (await service.get(f"/revocations/{name}", token=admin(world))).status == 404


async def test_what_was_never_asked_for_cannot_be_approved(service):
    assert (await approve(service, "abcdefgh")).status == 404


async def test_what_needed_no_approval_is_not_approved(service):
    posted = await service.post("TOKEN", {"jti": "stolen"})
    assert posted.status == 201
    assert (await approve(service, posted.json["id"])).status == 409


async def test_approving_twice_changes_nothing(service, world):
    name = (await ask(service)).json["id"]
    first = (await approve(service, name)).json
    world.clock.advance(60)
    again = await approve(service, name, sub="carol")
    assert (again.status, again.json) == (200, first)
    assert len((await service.snapshot()).entries) == 1


async def test_another_replica_can_approve(service, world):
    name = (await ask(service)).json["id"]
    async with world.replica(TOKENRY_SECOND_PERSON_SHARE="0.1") as other:
        assert (await approve(other, name)).status == 201


async def test_a_rule_whose_share_is_not_known_needs_one_and_a_token_does_not(service, world):
    answer = await ask(service, kind="CLAIM", claims={"sub": "jdoe"})
    assert answer.status == 202
    assert answer.json["names"] == ["sub"]
    assert (await approve(service, answer.json["id"])).status == 201
    assert hit(service, world.token())
    assert (await service.post("TOKEN", {"token": world.token()})).status == 201
    assert (await service.post("KEY", {"kid": world.standby.kid})).status == 201


async def test_a_block_that_was_approved_lasts_as_long_as_it_was_asked_for(service, world):
    answer = await ask(service, kind="CLAIM", claims={"sub": "jdoe"}, block_until=NOW + 20_000)
    await approve(service, answer.json["id"])
    entry = (await service.snapshot()).entries[0]
    assert entry.block_until == NOW + 20_000
    assert entry.in_force_until == NOW + 20_000 + 120


async def test_a_retry_with_an_idempotency_key_waits_once(service, world):
    headers = {"Idempotency-Key": "k1"}
    first = (await ask(service, headers=headers)).json
    world.clock.advance(30)
    assert (await ask(service, headers=headers)).json == first


async def test_a_dry_run_waits_for_nobody(service):
    answer = await service.post("GLOBAL", {"confirm": True}, path="?dry_run=true")
    assert answer.status == 200


async def test_F57_what_was_approved_can_be_undone(service, world):
    name = (await ask(service)).json["id"]
    await approve(service, name)
    token = world.token()
    await later(service)
    undo = await service.call("POST", f"/revocations/{name}/undo", token=admin(world, scope="revocation.undo"))
    assert undo.status == 201
    assert not hit(service, token)


async def test_while_the_store_is_away_nothing_waits_and_nothing_is_approved(service, world):
    name = (await ask(service)).json["id"]
    world.store.down = True
    assert (await approve(service, name)).status == 503
    world.store.down = False
    assert (await approve(service, name)).status == 201


async def test_while_our_clock_is_off_no_cut_off_is_chosen(service, world):
    name = (await ask(service)).json["id"]
    chosen = (await ask(service, issued_before=NOW - 5)).json["id"]
    world.store.clock_offset = 1.5
    assert (await approve(service, name)).status == 503
    assert (await approve(service, chosen)).status == 201


async def test_both_persons_are_in_the_audit_log(service, world):
    name = (await ask(service, reason="fire")).json["id"]
    await approve(service, name)
    waits, approved = world.audit[-2:]
    assert waits["event"] == "revocation waits for a second person"
    assert (waits["actor"]["sub"], waits["id"]) == ("alice", name)
    assert approved["event"] == "revocation approved"
    assert (approved["actor"]["sub"], approved["asked_by"]["sub"], approved["reason"]) == ("bob", "alice", "fire")


async def test_nothing_that_waits_has_a_claims_value_in_the_store(service, world):
    await ask(service, kind="CLAIM", claims={"sub": "a-very-secret-subject"})
    kept = await world.store.recall_members("pending")
    assert len(kept) == 1
    assert all(b"a-very-secret" not in body for body in kept.values())
    from base64 import b64decode
    from json import loads

    assert all(b"a-very-secret" not in b64decode(loads(body)["record"]) for body in kept.values())


async def test_by_default_one_person_is_enough(world):
    async with world.replica() as replica:
        assert (await ask(replica)).status == 201
        await later(replica)
        assert isinstance(replica.feed.revocations, RevocationList)
        assert (await ask(replica, kind="CLAIM", claims={"sub": "x"})).status == 201
