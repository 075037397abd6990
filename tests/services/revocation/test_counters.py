"""What a revocation would hit, as far as the issuers have counted it."""

import zlib

import pytest

from tokenry_revocation.counters import MAX_ROWS

NOW = 1_800_000_000
LIFE = 3600


def row(realm="/services", client="basket", sub="basket", *buckets):
    return [realm, client, sub, [list(each) for each in buckets or ((NOW + 600, 1),)]]


def body(*rows, **changes):
    return {
        "instance": "issuer-1", "boot": "b1", "started_at": NOW - LIFE, "as_of": NOW, "complete": True,
        "final": False, "rows": list(rows), **changes,
    }  # fmt: skip


async def push(service, *rows, scope="revocation.counters", **changes):
    return await service.call("POST", "/counters", token=service.world.caller(scope), body=body(*rows, **changes))


async def preview(service, kind="CLAIM", **data):
    answer = await service.post(kind, data, path="?dry_run=true")
    assert answer.status == 200
    return answer.json


async def usual(service):
    rows = (
        row("/services", "basket", "basket", (NOW + 600, 30), (NOW + 900, 10)),
        row("/services", "basket", "jdoe", (NOW + 600, 5)),
        row("/customers", "shop", "jdoe", (NOW + 600, 5)),
        row("/services", "old", "old", (NOW - 1, 1000)),
    )
    assert (await push(service, *rows)).status == 204


@pytest.mark.parametrize(
    ("claims", "live", "clients"),
    [
        ({"sub": "jdoe"}, 10, 2),
        ({"sub": "jdoe", "realm": "/services"}, 5, 1),
        ({"client_id": "basket"}, 45, 1),
        ({"azp": "basket"}, 45, 1),
        ({"realm": "services"}, 45, 1),
        ({"sub": "nobody"}, 0, 0),
        ({"sub": "jdoe", "team": "red"}, 10, 2),
    ],
)
async def test_a_rule_is_answered_with_the_live_tokens_that_it_hits(service, claims, live, clients):
    await usual(service)
    answer = await preview(service, claims=claims)
    assert (answer["live_tokens"], answer["clients"], answer["all_live_tokens"]) == (live, clients, 50)
    assert (answer["as_of"], answer["complete"]) == (NOW, True)


async def test_it_is_said_when_those_that_would_be_hit_expire_by_themselves(service):
    await usual(service)
    assert (await preview(service, claims={"client_id": "basket"}))["horizon"] == [[NOW + 600, 35], [NOW + 900, 10]]
    assert "horizon" not in await preview(service, claims={"team": "red"})  # not counted


async def test_a_global_hits_them_all_and_a_token_one(service, world):
    await usual(service)
    assert (await preview(service, "GLOBAL"))["live_tokens"] == 50
    assert (await preview(service, "TOKEN", token=world.token()))["live_tokens"] == 1


async def test_what_is_not_counted_is_null(service, world):
    assert (await preview(service, claims={"sub": "jdoe"}))["live_tokens"] is None
    await usual(service)
    assert (await preview(service, claims={"team": "red"}))["live_tokens"] is None
    assert (await preview(service, "KEY", kid=world.standby.kid))["live_tokens"] is None


async def test_the_counters_of_several_processes_are_added_also_of_those_that_have_ended(service):
    await push(service, row("/services", "a", "a", (NOW + 600, 1)), instance="one")
    await push(service, row("/services", "a", "a", (NOW + 600, 2)), instance="two")
    await push(
        service, row("/services", "a", "a", (NOW + 600, 4)), instance="two", boot="b0", final=True, as_of=NOW - 900
    )
    answer = await preview(service, claims={"sub": "a"})
    assert (answer["live_tokens"], answer["complete"], answer["as_of"]) == (7, True, NOW)


async def test_a_push_replaces_the_one_before_of_the_same_process(service):
    await push(service, row("/services", "a", "a", (NOW + 600, 1)))
    await push(service, row("/services", "a", "a", (NOW + 600, 3)))
    assert (await preview(service, claims={"sub": "a"}))["live_tokens"] == 3


@pytest.mark.parametrize(
    "changes",
    [{"complete": False}, {"as_of": NOW - 60}, {"started_at": NOW - LIFE + 60}],
    ids=["no room", "silent", "young"],
)
async def test_counters_that_may_lack_something_say_so(service, changes):
    await push(service, row(), **changes)
    answer = await preview(service, claims={"sub": "basket"})
    assert (answer["live_tokens"], answer["complete"]) == (1, False)


@pytest.mark.parametrize("scope", ["", "revocation.admin", "revocation.write"])
async def test_counting_needs_the_scope_of_its_own(service, scope):
    assert (await push(service, row(), scope=scope)).status == 403
    assert (await service.call("POST", "/counters", body=body())).status == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"instance": ""}, {"instance": "a b"}, {"boot": 5}, {"started_at": -1}, {"as_of": True}, {"complete": 1},
        {"final": None}, {"rows": {}}, {"rows": [[1, 2, 3, []]]}, {"rows": [["r", "c", "s"]]},
        {"rows": [["r", "c", "s", [[1]]]]}, {"rows": [["r", "c", "s", [[1, -1]]]]},
        {"rows": [["r", "c", "s", [[1, 2.5]]]]}, {"rows": [["r", "c", "s", [[1, 1]] * 401]]},
        {"rows": [["r", "c", "s", []]] * (MAX_ROWS + 1)},
    ],
)  # fmt: skip
async def test_what_is_no_push_is_refused(service, changes):
    assert (await push(service, **changes)).status == 400


async def test_names_are_kept_as_hashes_only(service, world):
    await push(service, row("/secret-realm", "secret-client", "secret-subject"))
    kept = await world.store.recall_members("counters")
    assert kept.keys() == {"issuer-1.b1"}
    assert all(b"secret" not in zlib.decompress(value) for value in kept.values())


async def test_counters_of_another_version_make_nothing_known(service, world):
    await usual(service)
    await world.store.remember_member("counters", "other", b"not packed", ttl_seconds=60)
    assert (await preview(service, claims={"sub": "jdoe"}))["live_tokens"] is None


@pytest.mark.parametrize(
    ("claims", "status"), [({"sub": "jdoe"}, 201), ({"client_id": "basket"}, 202), ({"team": "red"}, 202)]
)
async def test_a_share_that_is_known_and_small_needs_no_second_person(world, claims, status):
    async with world.replica(TOKENRY_SECOND_PERSON_SHARE="0.25") as service:
        await usual(service)
        told = await preview(service, claims=claims)
        assert told["needs_second_person"] is (status == 202)
        assert (await service.post("CLAIM", {"claims": claims})).status == status


async def test_a_share_of_incomplete_counters_is_not_known(world):
    async with world.replica(TOKENRY_SECOND_PERSON_SHARE="0.25") as service:
        await push(service, row(), row(sub="other"), complete=False)
        assert (await service.post("CLAIM", {"claims": {"sub": "nobody"}})).status == 202
