"""Which validators there are, and what they report."""

import json

import pytest

from tests.services.revocation.conftest import NOW
from tokenry.jose.encoding import b64url_encode
from tokenry_revocation.app import SERVICE_PARTS, resume_refusals, share_refusals, share_view
from tokenry_revocation.instances import (
    KEEP_SECONDS,
    MAX_ENFORCED,
    MAX_INSTANCES,
    MAX_SHARED_ENFORCED,
    Instance,
    Instances,
    Report,
    enforcing,
    merge,
)
from tokenry_revocation.ports import MAX_VALUE_BYTES, StoreUnavailable
from tokenry_revocation.refusals import KEPT_SECONDS, MAX_COUNTED, MAX_NAMED, Refusals


async def listed(world, service):
    answer = await service.get("/validators", token=world.caller())
    assert answer.status == 200
    return answer.json


async def test_a_validator_that_names_itself_is_listed_with_what_it_has_applied(world, service):
    named = {"Tokenry-Instance": "orders-1/1.2.0"}
    cursor = (await service.get("/revocations/snapshot", headers=named)).list.cursor
    assert (await listed(world, service))["validators"] == [
        {
            "name": "orders-1",
            "version": "1.2.0",
            "last_poll": NOW,
            "applied_as_of": None,
            "lag": None,
            "list_age": None,
            "reported_at": None,
            "verified": False,
        }
    ]
    world.clock.advance(10)
    await service.get(f"/revocations/changes?after={cursor}&wait=0", headers=named)
    (shown,) = (await listed(world, service))["validators"]
    assert (shown["last_poll"], shown["applied_as_of"], shown["lag"]) == (NOW + 10, NOW - 2, 12)


@pytest.mark.parametrize("name", ["", "x", "/1", "a/", "a b/1", "x" * 200 + "/1", "<script>/1", "a/1/2"])
async def test_names_of_another_form_are_not_listed(world, service, name):
    await service.get("/revocations/snapshot", headers={"Tokenry-Instance": name})
    assert (await listed(world, service))["validators"] == []


async def test_views_of_all_replicas_are_merged_through_the_store(world, service):
    async with world.replica(TOKENRY_INSTANCE="second") as other:
        await other.get("/revocations/snapshot", headers={"Tokenry-Instance": "orders-2/1"})
        await share_view(other.app[SERVICE_PARTS])
        await service.get("/revocations/snapshot", headers={"Tokenry-Instance": "orders-1/1"})
        body = await listed(world, service)
    assert [shown["name"] for shown in body["validators"]] == ["orders-1", "orders-2"]
    assert body["replicas"] == 2


async def test_without_the_store_a_replica_tells_what_it_has_heard_itself(world, service):
    await service.get("/revocations/snapshot", headers={"Tokenry-Instance": "orders-1/1"})
    world.store.down = True
    assert [shown["name"] for shown in (await listed(world, service))["validators"]] == ["orders-1"]


async def test_a_report_counts_refusals_by_fingerprint_and_a_record_shows_them(world, service):
    posted = await service.post("CLAIM", {"claims": {"sub": "jdoe"}})
    (entry,) = (await service.snapshot()).entries
    report = {
        "name": "orders-1",
        "version": "1",
        "as_of": NOW - 1,
        "list_age": 3.5,
        "refusals": {b64url_encode(entry.fingerprint): 5, "A" * 22: 7},
        "refused_ago": {b64url_encode(entry.fingerprint): 12.0},
        "something_new": {},
    }
    for name in ("orders-2", "orders-1"):
        report["name"] = name
        answer = await service.call("POST", "/validators/reports", token=world.caller("x"), body=report)
        assert (answer.status, answer.body) == (204, b"")
    shown = (await service.get(f"/revocations/{posted.json['id']}", token=world.caller(sub="x"))).json
    assert shown["denied"] == 10
    assert shown["refused"] == {
        "count": 10, "last_seconds_ago": 12.0, "validators": 2, "validators_are_more": False
    }  # fmt: skip
    validator, _ = (await listed(world, service))["validators"]
    assert (validator["applied_as_of"], validator["list_age"], validator["verified"]) == (NOW - 1, 3.5, True)


async def test_reports_need_a_bearer_unless_configured_and_are_marked_then(world, service):
    report = {"name": "a", "version": "1", "refusals": {"A" * 22: 7}}
    assert (await service.call("POST", "/validators/reports", body=report)).status == 401
    async with world.replica(TOKENRY_OPEN_REPORTS="true") as open_service:
        assert (await open_service.call("POST", "/validators/reports", body=report)).status == 204
        (shown,) = (await listed(world, open_service))["validators"]
        assert shown["verified"] is False
        bad = await open_service.call("POST", "/validators/reports", token="x", body=report)
        assert bad.status == 401, "who shows a token is judged by it"


@pytest.mark.parametrize(
    "report",
    [
        [],
        {},
        {"name": "a"},
        {"name": "a b", "version": "1"},
        {"name": "a", "version": "1", "as_of": "now"},
        {"name": "a", "version": "1", "as_of": True},
        {"name": "a", "version": "1", "list_age": -1},
        {"name": "a", "version": "1", "refusals": []},
        {"name": "a", "version": "1", "refusals": {"x": 1}},
        {"name": "a", "version": "1", "refusals": {"A" * 22: -1}},
        {"name": "a", "version": "1", "refusals": {"A" * 22: 1.5}},
    ],
)
async def test_reports_that_make_no_sense_are_refused(world, service, report):
    answer = await service.call("POST", "/validators/reports", token=world.caller(), body=report)
    assert answer.status == 400


def test_the_view_is_bounded_and_drops_who_was_silent_longest():
    instances = Instances("r")
    for number in range(MAX_INSTANCES + 10):
        instances.polled(Instance(f"v{number}", "1"), now=1000.0 + number / 1000, as_of=None)
    view = json.loads(instances.view(now=1000.0))
    assert len(view["instances"]) == MAX_INSTANCES
    assert "v0" not in view["instances"]


def test_who_was_silent_for_long_is_gone():
    instances = Instances("r")
    instances.polled(Instance("v", "1"), now=1000.0, as_of=None)
    validators = merge([instances.view(now=1000.0 + KEEP_SECONDS)], now=1000.0 + KEEP_SECONDS)
    assert validators == []


def test_of_two_views_the_later_poll_the_larger_position_and_the_later_report_count():
    first, second = Instances("a"), Instances("b")
    first.polled(Instance("v", "1"), now=1000.0, as_of=990.0)
    first.reported(Report(instance=Instance("v", "1"), as_of=None, list_age=7.0), now=1001.0, verified=True)
    second.polled(Instance("v", "2"), now=1002.0, as_of=980.0)
    for views in ([first, second], [second, first]):
        (shown,) = merge([view.view(now=1003.0) for view in views], now=1003.0)
        assert (shown["version"], shown["last_poll"], shown["applied_as_of"]) == ("2", 1002.0, 990.0)
        assert (shown["list_age"], shown["verified"]) == (7.0, True)


def test_views_that_cannot_be_read_are_left_out():
    good = Instances("r")
    good.polled(Instance("v", "1"), now=1000.0, as_of=None)
    bad = [b"", b"[]", b"{}", b'{"instances":[]}', b'{"instances":{"a":[1]}}']
    validators = merge([*bad, good.view(now=1000.0)], now=1000.0)
    assert [shown["name"] for shown in validators] == ["v"]


async def test_a_validator_says_since_when_it_enforces_a_revocation(world):
    async with world.replica(TOKENRY_OPEN_REPORTS="true") as replica:
        name = (await replica.post("CLAIM", {"claims": {"sub": "x"}})).json["id"]
        for validator, moment in (("orders-1", NOW + 0.5), ("orders-2", NOW + 2.5)):
            report = {"name": validator, "version": "1", "as_of": NOW - 2, "enforced": {name: moment}}
            assert (await replica.call("POST", "/validators/reports", body=report)).status == 204
        again = {"name": "orders-1", "version": "1", "enforced": {name: NOW + 99}}
        await replica.call("POST", "/validators/reports", body=again)
        await replica.call("POST", "/validators/reports", body={"name": "silent", "version": "1"})
        later = world.caller(iat=NOW + 3)
        world.clock.advance(3)
        await replica.feed.read()
        answer = await replica.get(f"/validators?revocation={name}", token=later)
        since = {each["name"]: each["enforced_at"] for each in answer.json["validators"]}
        assert since == {"orders-1": NOW + 0.5, "orders-2": NOW + 2.5, "silent": None}
        plain = (await replica.get("/validators", token=later)).json["validators"]
        assert all("enforced_at" not in each for each in plain)


async def test_other_replicas_know_who_enforces_a_revocation(world):
    async with world.replica(TOKENRY_OPEN_REPORTS="true", TOKENRY_INSTANCE="one") as one:
        await one.call("POST", "/validators/reports", body={"name": "v", "version": "1", "enforced": {"abc": NOW + 1}})
        await share_view(one.app[SERVICE_PARTS])
        async with world.replica(TOKENRY_INSTANCE="two") as two:
            answer = await two.get("/validators?revocation=abc", token=world.caller())
            assert [each["enforced_at"] for each in answer.json["validators"]] == [NOW + 1]


@pytest.mark.parametrize(
    "enforced", [[], "x", {"": 1}, {"a b": 1}, {"a": "1"}, {"a": True}, {"a": -1}, {f"r{n}": 1 for n in range(501)}]
)
async def test_a_report_with_another_idea_of_enforced_is_refused(world, enforced):
    async with world.replica(TOKENRY_OPEN_REPORTS="true") as replica:
        body = {"name": "v", "version": "1", "enforced": enforced}
        assert (await replica.call("POST", "/validators/reports", body=body)).status == 400


def test_what_is_remembered_of_enforcement_is_bounded():
    instances = Instances("replica")
    for number in range(MAX_ENFORCED + 50):
        report = Report(
            instance=Instance(f"v{number}", "1"), as_of=None, list_age=None, enforced={f"r{number}": float(NOW)}
        )
        instances.reported(report, now=NOW, verified=False)
    assert len(instances._enforced) == MAX_ENFORCED
    for number in range(MAX_SHARED_ENFORCED // 1000 + 3):
        for validator in range(1000):
            instances._note_enforced(f"s{number}", f"v{validator}", NOW)
    view = instances.view(now=NOW)
    assert len(view) < 600_000
    assert enforcing([view], "s0") == {}
    assert len(enforcing([view, b"garbage"], f"s{MAX_SHARED_ENFORCED // 1000 + 2}")) == 1000


# --- what was refused ---


async def test_refusals_without_a_bearer_are_not_counted(world):
    async with world.replica(TOKENRY_OPEN_REPORTS="true") as replica:
        posted = await replica.post("CLAIM", {"claims": {"sub": "jdoe"}})
        (entry,) = (await replica.snapshot()).entries
        report = {"name": "a", "version": "1", "refusals": {b64url_encode(entry.fingerprint): 7}}
        assert (await replica.call("POST", "/validators/reports", body=report)).status == 204
        shown = (await replica.get(f"/revocations/{posted.json['id']}", token=world.caller(sub="x"))).json
        assert (shown["denied"], shown["refused"]["last_seconds_ago"]) == (0, None)


async def test_refusals_are_added_up_over_replicas_and_outlive_a_restart(world):
    async def tell(replica, name, number):
        report = {"name": name, "version": "1", "refusals": {fingerprint: number}}
        await replica.call("POST", "/validators/reports", token=world.caller("x"), body=report)

    async with world.replica(TOKENRY_INSTANCE="one") as one, world.replica(TOKENRY_INSTANCE="two") as two:
        posted = await one.post("TOKEN", {"token": world.token()})
        fingerprint = b64url_encode((await one.snapshot()).entries[0].fingerprint)
        await tell(one, "v1", 3)
        await tell(two, "v1", 4)
        for replica in (one, two):
            await share_refusals(replica.app[SERVICE_PARTS])
    async with world.replica(TOKENRY_INSTANCE="one") as again:
        service = again.app[SERVICE_PARTS]
        await tell(again, "v2", 5)
        assert await resume_refusals(service)
        await share_refusals(service)
        world.clock.advance(9)
        await again.feed.read()
        shown = (await again.get(f"/revocations/{posted.json['id']}", token=world.caller(sub="x"))).json["refused"]
        assert (shown["count"], shown["last_seconds_ago"], shown["validators"]) == (12, 9.0, 2)
        world.store.recall_members = failing
        shown = (await again.get(f"/revocations/{posted.json['id']}", token=world.caller(sub="x"))).json
        assert (shown["denied"], shown["refused"]) == (None, None), "not known is not the same as none"


async def failing(_group):
    raise StoreUnavailable("no quorum")


def test_counted_refusals_are_bounded_and_forgotten_after_a_day():
    refusals = Refusals()
    for number in range(MAX_COUNTED + 50):
        refusals.count({f"{number:022}": 1}, ago={}, validator="v", now=NOW)
    for number in range(100):
        refusals.count({f"{0:022}": 1}, ago={}, validator=f"v{number}", now=NOW)
    kept = json.loads(refusals.to_bytes(now=NOW))
    assert len(kept) == MAX_COUNTED
    assert (kept[f"{0:022}"][0], len(kept[f"{0:022}"][2])) == (101, MAX_NAMED)
    assert len(refusals.to_bytes(now=NOW)) < MAX_VALUE_BYTES
    assert refusals.to_bytes(now=NOW + KEPT_SECONDS) == b"{}"


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"a":1}', b'{"a":[1,2]}', b'{"a":["x",1,[]]}', b'{"a":[1,2,["x"]]}'])
def test_counts_that_cannot_be_read_are_begun_anew(kept):
    refusals = Refusals()
    refusals.resume(kept)
    assert refusals.to_bytes(now=NOW) == b"{}"


@pytest.mark.parametrize("ago", [[], {"x": -1}, {"x": "1"}, {"x": True}])
async def test_a_report_with_another_idea_of_time_is_refused(world, service, ago):
    body = {"name": "v", "version": "1", "refused_ago": ago}
    assert (await service.call("POST", "/validators/reports", token=world.caller(), body=body)).status == 400
