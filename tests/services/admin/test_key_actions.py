"""Keys in a store: made, changed and read again, with others writing at the same time and cut off anywhere."""

import asyncio
import contextlib
import json

import pytest

from tests.services.admin.key_support import ANNOUNCE, DAY, HOUR, NOW, POLICY, Around
from tests.support.key_management import MemoryKeyManagement
from tests.support.registry_store import Interrupted
from tokenry.jose.sealing import EnvelopeKey
from tokenry_admin.key_custody import ManagedCustody, SealedCustody
from tokenry_admin.key_rotation import KeyNeeded, NoSuchKey
from tokenry_admin.key_store import NoCustody
from tokenry_registry.key_management import KeyManagementUnavailable
from tokenry_registry.ports import StoreUnavailable, WriteConflict, WriteRefused
from tokenry_registry.signing_keys import KeyUse, open_key, read_stored_key


@pytest.fixture
def around():
    return Around()


async def test_the_first_keys_work_and_are_what_the_issuer_reads(around):
    made = await around.actions.rotate_due(KeyUse.TOKEN)
    assert len(made) == 2
    for path, (body, _) in around.store.objects.items():
        stored = read_stored_key(body, kid=path.removeprefix("keys/").removesuffix(".json"))
        assert stored.use is KeyUse.TOKEN
        open_key(stored, envelope=around.envelope)
    assert await around.actions.rotate_due(KeyUse.TOKEN) == ()


async def test_keys_of_each_use_are_sealed_for_their_own_role_and_kept_apart(around):
    for use in around.actions.uses:
        await around.actions.rotate_due(use)
    views, _ = await around.actions.views()
    assert [view.use for view in views] == ["token"] * 2 + ["list"] * 2
    (stored, _), *_ = [pair for pair in around.listed().values() if pair[0].use is KeyUse.LIST]
    open_key(stored, envelope=around.list_envelope)
    with pytest.raises(Exception, match="does not open"):
        open_key(stored, envelope=around.envelope)


async def test_views_say_what_the_table_shows(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    standby, active = (await around.actions.views(KeyUse.TOKEN))[0]
    assert (active.state, active.custody, active.alg) == ("active", "file", "ES256")
    assert (active.activate_at, active.signs_until) == (NOW, NOW + 90 * DAY)
    assert active.removable_at == NOW + 90 * DAY + 60 + HOUR + 60
    assert (standby.state, standby.signs_until, standby.removable_at) == ("published", None, None)
    assert await around.actions.next_rotation_at() == NOW + 90 * DAY
    assert (await around.actions.view(active.kid)).to_dict()["publish_at"] == NOW - ANNOUNCE
    with pytest.raises(NoSuchKey):
        await around.actions.view("nope")


async def test_a_rotation_and_the_retirement_of_the_old_key(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    standby, active = (await around.actions.views())[0]
    around.clock.advance(DAY)
    await around.actions.rotate(KeyUse.TOKEN)
    assert around.signer() == standby.kid
    assert (await around.actions.view(active.kid)).state == "retiring"
    with pytest.raises(KeyNeeded):
        await around.actions.retire(active.kid)
    around.clock.advance(2 * HOUR)
    await around.actions.retire(active.kid)
    assert (await around.actions.view(active.kid)).state == "retired"


async def test_a_leaked_key_is_ended_and_a_standby_is_there_again(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    standby, active = (await around.actions.views())[0]
    around.clock.advance(DAY)
    await around.actions.leaked(active.kid)
    assert around.signer() == standby.kid
    states = {view.kid: view.state for view in (await around.actions.views())[0]}
    assert states.pop(active.kid) == "retired"
    assert states.pop(standby.kid) == "active"
    assert list(states.values()) == ["published"]


async def test_a_revoked_key_is_followed_without_anybody_touching_its_object(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    standby, active = (await around.actions.views())[0]
    around.revoked.add(active.kid)
    around.clock.advance(DAY)
    assert len(await around.actions.rotate_due(KeyUse.TOKEN)) == 2
    assert (await around.actions.view(active.kid)).state == "revoked"
    assert (await around.actions.view(standby.kid)).state == "active"


# --- others, and interruptions ----------------------------------------------------------------------------------


async def test_two_rotators_at_the_same_moment_make_one_standby_too_many_and_nothing_worse(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    around.clock.advance(80 * DAY)
    other = around.another()
    await asyncio.gather(around.actions.rotate_due(KeyUse.TOKEN), other.rotate_due(KeyUse.TOKEN))
    assert len(around.listed()) in {3, 4}
    assert await around.actions.rotate_due(KeyUse.TOKEN) == ()
    assert around.faults() == ()


async def test_a_change_that_meets_another_ones_is_planned_again(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    standby = (await around.actions.views())[0][0].kid
    around.clock.advance(DAY)
    meddled = []

    def meddle(operation, key):
        if operation == "put" and standby in key and not meddled:
            meddled.append(key)
            body = json.loads(around.store.objects[key][0])
            around.store.fill(key, json.dumps({**body, "retire_at": body["retire_at"] + 1}).encode())

    around.store.before = meddle
    await around.actions.rotate(KeyUse.TOKEN)
    assert meddled
    assert around.signer() == standby
    kept = around.listed()[standby][0].times
    assert kept.retire_at == NOW + 90 * DAY + POLICY.life + 1  # the other one's change stays


async def test_who_is_always_too_late_is_told_and_nothing_is_lost(around):
    await around.actions.rotate_due(KeyUse.TOKEN)
    standby = (await around.actions.views())[0][0].kid
    around.clock.advance(DAY)
    around.store.before = lambda operation, key: (
        around.store.fill(key, around.store.objects[key][0]) if operation == "put" and standby in key else None
    )
    with pytest.raises(WriteConflict):
        await around.actions.rotate(KeyUse.TOKEN)
    around.store.before = lambda *_: None
    await around.actions.rotate(KeyUse.TOKEN)
    assert around.signer() == standby


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("action", ["rotate", "leaked", "rotate_due"])
async def test_cut_off_at_any_write_there_is_no_gap_and_the_next_run_completes_it(action, count, when):
    around = Around()
    await around.actions.rotate_due(KeyUse.TOKEN)
    active = around.signer()
    around.clock.advance(80 * DAY)
    writes = 0

    def interrupt(operation, _key):
        nonlocal writes
        if operation == "put":
            writes += 1
            if writes == count:
                raise Interrupted

    async def act():
        await getattr(around.actions, action)(active if action == "leaked" else KeyUse.TOKEN)

    setattr(around.store, when, interrupt)
    with contextlib.suppress(StoreUnavailable):
        await act()
    assert around.signer() is not None
    around.store.before = around.store.after = lambda *_: None
    try:
        await act()
    except NoSuchKey:
        assert action == "leaked"  # it was gone already: its answer was lost
    await around.actions.rotate_due(KeyUse.TOKEN)
    assert around.faults() == ()
    assert await around.actions.rotate_due(KeyUse.TOKEN) == ()
    assert len(around.listed()) <= 6
    if action != "rotate_due":
        assert around.signer() != active


async def test_while_the_store_is_away_nothing_is_made(around):
    around.store.before = lambda *_: (_ for _ in ()).throw(Interrupted())
    with pytest.raises(StoreUnavailable):
        await around.actions.rotate_due(KeyUse.TOKEN)
    assert around.store.objects == {}


async def test_an_object_that_is_no_key_is_named_and_hinders_nothing(around):
    around.store.fill("keys/odd.json", b"{")
    await around.actions.rotate_due(KeyUse.TOKEN)
    views, refused = await around.actions.views()
    assert len(views) == 2
    assert list(refused) == ["keys/odd.json"]


async def test_a_use_without_its_envelope_key_is_not_kept(around):
    with pytest.raises(NoSuchKey, match="envelope key"):
        await around.actions.rotate(KeyUse.INTROSPECTION)
    around.custodies.clear()
    with pytest.raises(NoCustody):
        await around.actions.rotate_due(KeyUse.TOKEN)


# --- custody ----------------------------------------------------------------------------------------------------


async def test_a_key_of_the_key_management_service_has_no_private_half_in_its_object():
    management = MemoryKeyManagement()
    around = Around(token=ManagedCustody(management))
    await around.actions.rotate_due(KeyUse.TOKEN)
    for body, _ in around.store.objects.values():
        members = json.loads(body)
        assert "sealed" not in members
        assert members["kms_key_id"] in management.keys
    assert [view.custody for view in (await around.actions.views())[0]] == ["kms", "kms"]


async def test_custody_changes_with_a_rotation_and_old_keys_stay_where_they_are():
    around = Around()
    await around.actions.rotate_due(KeyUse.TOKEN)
    around.custodies[KeyUse.TOKEN] = ManagedCustody(MemoryKeyManagement())
    around.clock.advance(DAY)
    await around.actions.rotate(KeyUse.TOKEN)
    assert sorted(view.custody for view in (await around.actions.views())[0]) == ["file", "file", "kms"]


async def test_while_the_key_management_service_is_away_nothing_is_written():
    management = MemoryKeyManagement()
    management.outage = "timeout"
    around = Around(token=ManagedCustody(management))
    with pytest.raises(KeyManagementUnavailable):
        await around.actions.rotate_due(KeyUse.TOKEN)
    assert around.store.objects == {}


async def test_a_key_that_could_not_be_stored_is_discarded_unless_it_may_have_been():
    management = MemoryKeyManagement()
    around = Around(token=ManagedCustody(management))
    around.store.before = lambda operation, _key: (
        (_ for _ in ()).throw(WriteRefused("AccessDenied")) if operation == "put" else None
    )
    with pytest.raises(WriteRefused):
        await around.actions.rotate_due(KeyUse.TOKEN)
    assert management.discarded == list(management.keys)
    around.store.before = lambda operation, _key: (_ for _ in ()).throw(Interrupted()) if operation == "put" else None
    with pytest.raises(StoreUnavailable):
        await around.actions.rotate_due(KeyUse.TOKEN)
    assert len(management.discarded) == len(management.keys) - 1


async def test_no_log_line_holds_a_secret(around, capsys):
    await around.actions.rotate_due(KeyUse.TOKEN)
    said = "".join(capsys.readouterr())
    (body, _), *_ = around.store.objects.values()
    assert json.loads(body)["kid"] in said
    assert json.loads(body)["sealed"]["ciphertext"] not in said
    assert "EnvelopeKey" not in repr(SealedCustody(EnvelopeKey.generate()))
