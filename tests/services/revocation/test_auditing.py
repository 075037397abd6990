"""`GET /audit`: who may see it, what is in it, and heads that outlive the process."""

import json

import pytest

from tokenry.serving.audit_chain import BrokenChain, Head, verify
from tokenry_revocation import audit as audit_module
from tokenry_revocation.app import ANCHOR


async def audit(service, query="", *, scope="audit.read"):
    return await service.get(f"/audit{query}", token=service.world.caller(scope))


async def test_R13_the_log_shows_who_did_what_in_a_chain_that_can_be_verified(world, service):
    for subject in ("a", "b", "c"):
        await service.post("CLAIM", {"claims": {"sub": subject}}, reason="leak", ticket="SEC-1")
    answer = (await audit(service)).json
    records = answer["records"]
    assert [record["seq"] for record in records] == [3, 2, 1]
    assert {record["actor"]["sub"] for record in records} == {"operator"}
    (chain,) = verify(records, heads=[Head.read(answer["head"])])
    assert (chain.first, chain.last, chain.hash) == (1, 3, answer["head"]["hash"])
    records[1]["reason"] = "nothing"
    with pytest.raises(BrokenChain, match="record 2 "):
        verify(records)


async def test_the_log_is_shown_a_page_at_a_time(service):
    for number in range(5):
        await service.post("CLAIM", {"claims": {"sub": f"s{number}"}})
    first = (await audit(service, "?limit=2")).json["records"]
    second = (await audit(service, f"?limit=2&before={first[-1]['seq']}")).json["records"]
    rest = (await audit(service, f"?before={second[-1]['seq']}")).json["records"]
    assert [record["seq"] for record in [*first, *second, *rest]] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("query", ["?limit=0", "?limit=1001", "?limit=-1", "?limit=x", "?before=", "?before=1e3",
                                   "?before=%C2%B2", "?before=" + "9" * 17])  # fmt: skip
async def test_what_is_no_page_is_refused(service, query):
    answer = await audit(service, query)
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (400, "application/problem+json")


async def test_the_log_is_for_auditors_and_administrators(service):
    assert (await service.get("/audit")).status == 401
    for scope, status in (("audit.read", 200), ("revocation.admin", 200), ("revocation.write", 403), ("other", 403)):
        assert (await audit(service, scope=scope)).status == status


async def test_it_keeps_the_last_records_only(world, monkeypatch):
    monkeypatch.setattr(audit_module, "KEPT_RECORDS", 3)
    async with world.replica() as service:
        for number in range(5):
            await service.post("CLAIM", {"claims": {"sub": f"s{number}"}})
        answer = (await audit(service)).json
    assert [record["seq"] for record in answer["records"]] == [5, 4, 3]
    assert verify(answer["records"], from_the_first=False)


async def test_heads_are_kept_in_the_store_by_every_replica_and_outlive_it(world):
    async with world.replica(TOKENRY_INSTANCE="one") as one, world.replica(TOKENRY_INSTANCE="two") as two:
        await one.post("CLAIM", {"claims": {"sub": "a"}})
        await one.app[ANCHOR].keep()
        await one.post("CLAIM", {"claims": {"sub": "b"}})
        await two.post("CLAIM", {"claims": {"sub": "c"}})
        await two.app[ANCHOR].keep()
        seen = (await audit(two)).json["heads"]
        assert sorted((head["instance"].partition(".")[0], head["seq"]) for head in seen) == [("one", 1), ("two", 1)]
        last = one.app[ANCHOR]._audit.head
    async with world.replica() as later:  # both have ended, and kept their heads at the end
        heads = (await audit(later)).json["heads"]
    assert last.members() in heads


async def test_two_runs_of_one_replica_are_two_chains(world):
    names = set()
    for _ in range(2):
        async with world.replica(TOKENRY_INSTANCE="one") as service:
            names.add((await audit(service)).json["head"]["instance"])
    assert len(names) == 2


async def test_the_records_are_shown_while_the_store_is_away(world, service):
    await service.post("CLAIM", {"claims": {"sub": "a"}})

    async def away(group):
        raise audit_unavailable

    from tokenry_revocation.ports import StoreUnavailable

    audit_unavailable = StoreUnavailable("no quorum")
    world.store.recall_members = away
    answer = await audit(service)
    assert (answer.status, len(answer.json["records"]), answer.json["heads"]) == (200, 1, None)


async def test_no_token_and_no_value_is_in_the_log(world, service):
    token = world.token(sub="canary-subject")
    await service.post("TOKEN", {"token": token}, reason=f"found {token} in a repository")
    await service.post("CLAIM", {"claims": {"sub": "canary-subject"}})
    text = json.dumps((await audit(service)).json)
    assert "canary-subject" not in text
    assert token.split(".")[1] not in text
