"""`POST /revocations/batch` and `GET /jobs/{id}`: every line once, in bounded memory, and honest about what failed."""

import asyncio
import json

import aiohttp
import pytest

from tests.services.revocation.conftest import FOREIGN, ISSUER, NOW
from tokenry.revocation.fingerprints import jti_fingerprint
from tokenry_revocation import batches as batches_module
from tokenry_revocation.jobs import BLOCK_LINES, PAGE_FAILURES, Failure, Job, JobState, Progress
from tokenry_revocation.ports import StoreUnavailable
from tokenry_revocation.sheets import SHEET_NAME_CHARACTERS


def by_id(number, **more):
    return {"type": "TOKEN", "data": {"jti": f"id-{number}"}, **more}


def body_of(lines):
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


async def send(world, service, lines, *, key=None, scope="revocation.write", token=None, raw=None):
    headers = {"Content-Type": "application/x-ndjson"} | ({"Idempotency-Key": key} if key else {})
    return await service.call(
        "POST",
        "/revocations/batch",
        token=world.caller(scope) if token is None else token,
        raw=body_of(lines) if raw is None else raw,
        headers=headers,
    )


async def job_of(world, service, name, page=None):
    path = f"/jobs/{name}" + ("" if page is None else f"?page={page}")
    return await service.get(path, token=world.caller())


def is_hit(world, service, jti, iss=ISSUER):
    token = world.judged(world.token(jti=jti, iss=iss))
    return service.feed.revocations.hits(token, now=world.clock.now()) is not None


async def test_every_line_is_in_force_when_the_answer_comes_and_after_a_restart(world, service):
    count = 2 * BLOCK_LINES + 7
    answer = await send(world, service, map(by_id, range(count)))
    assert answer.status == 202
    job = answer.json
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["state"], job["lines"], job["accepted"], job["failed"]) == ("done", count, count, 0)
    assert (job["failures"], job["next_page"]) == ([], None)
    assert world.store.appended == 3, "a record for each block"
    async with world.replica() as other:
        for replica in (service, other):
            assert all(is_hit(world, replica, f"id-{number}") for number in range(count))
            assert not is_hit(world, replica, "id-x")
            assert len((await replica.snapshot()).entries) == count
            assert len((await replica.plan_b())["revocations"]) == count
            assert len((await replica.changes((await service.snapshot()).cursor)).list.entries) == 0
    assert (await job_of(world, service, job["id"])).json == job


async def test_a_line_can_be_asked_for_by_the_id_that_readers_have(world, service):
    lines = [by_id(n, reason="leak" if n % 2 else "audit", ticket="SEC-1") for n in range(6)]
    await send(world, service, lines)
    entries = (await service.snapshot()).entries
    assert len({entry.id for entry in entries}) == 6
    wanted = jti_fingerprint(ISSUER, "id-3", salt=next(iter(service.feed.salts.values())))
    (entry,) = [entry for entry in entries if entry.fingerprint == wanted]
    answer = await service.get(f"/revocations/{entry.id}", token=world.caller())
    assert answer.status == 200
    assert answer.json["id"] == entry.id
    assert (answer.json["reason"], answer.json["ticket"]) == ("leak", "SEC-1")
    assert answer.json["by"] == {"iss": ISSUER, "sub": "operator", "client_id": "ops"}
    assert answer.json["in_force_until"] == entry.in_force_until == NOW + 3720
    assert answer.json["propagated_by"] > NOW
    unknown = entry.id[:SHEET_NAME_CHARACTERS] + "aaaaab7x"
    assert (await service.get(f"/revocations/{unknown}", token=world.caller())).status in {404, 503}


async def test_all_kinds_of_lines_may_be_mixed(world, service):
    token = world.token(jti="whole")
    lines = [
        {"type": "TOKEN", "data": {"token": token}},
        by_id("own"),
        b"",
        {"type": "TOKEN", "data": {"jti": "theirs", "iss": FOREIGN}},
        {"type": "CLAIM", "data": {"claims": {"sub": "gone"}}},
        {"type": "TOKEN", "data": {"jti": "test"}, "reason": "test"},
        {"type": "TOKEN", "data": {"jti": "a|b"}},
        {"type": "KEY", "data": {"kid": "some-key"}},
    ]
    answer = await send(world, service, lines, scope="revocation.write revocation.admin")
    assert (answer.json["lines"], answer.json["accepted"], answer.json["failures"]) == (8, 7, [])
    for jti in ("whole", "id-own", "test", "a|b"):
        assert is_hit(world, service, jti)
    assert is_hit(world, service, "theirs", FOREIGN)
    assert not is_hit(world, service, "theirs", ISSUER)
    assert {entry.kind.value for entry in (await service.snapshot()).entries} == {"jti", "token", "claims", "key"}


async def test_each_line_is_allowed_or_not_by_itself_and_failures_are_named_by_their_lines(world, service):
    lines = [
        by_id(1),
        {"type": "CLAIM", "data": {"claims": {"sub": "gone"}}},
        b"{",
        b"\xff\xfe",
        {"type": "GLOBAL", "data": {}},
        {"type": "TOKEN", "data": {"jti": "x", "iss": "https://nobody.example.org"}},
        b"x" * 20_000,
        {"type": "TOKEN", "data": {"jti": "", "secret-value": 1}},
        by_id(2),
    ]
    answer = await send(world, service, lines)
    assert (answer.json["lines"], answer.json["accepted"], answer.json["failed"]) == (9, 2, 7)
    failures = {failure["line"]: failure["status"] for failure in answer.json["failures"]}
    assert failures == {2: 403, 3: 400, 4: 400, 5: 403, 6: 400, 7: 400, 8: 400}
    assert "secret-value" not in answer.body.decode()
    assert is_hit(world, service, "id-1")
    assert is_hit(world, service, "id-2")


async def test_who_may_revoke_nothing_makes_no_job_and_who_is_nobody_is_refused(world, service):
    answer = await send(world, service, [by_id(1), by_id(2)], scope="revocation.undo")
    assert answer.status == 403
    assert service.app_jobs() == []
    assert (await service.call("POST", "/revocations/batch", raw=body_of([by_id(1)]))).status == 401
    assert (await service.snapshot()).entries == ()


async def test_the_same_batch_again_changes_nothing(world, service):
    lines = [*map(by_id, range(300)), {"type": "CLAIM", "data": {"claims": {"sub": "gone"}}}, b"{"]
    scope = "revocation.write revocation.admin"
    first = await send(world, service, lines, key="k", scope=scope)
    before, appended = (await service.snapshot()).entries, world.store.appended
    world.clock.advance(100)
    again = await send(world, service, lines, key="k", scope=scope)
    assert (again.status, world.store.appended) == (202, appended)
    assert (await service.snapshot()).entries == before
    assert again.json == first.json | {"updated_at": again.json["updated_at"]}
    assert len(again.json["failures"]) == 1


async def test_two_callers_with_one_key_have_two_jobs(world, service):
    first = await send(world, service, [by_id(1)], key="k")
    other = world.token(sub="somebody", scope="revocation.write")
    second = await send(world, service, [by_id(2)], key="k", token=other)
    assert first.json["id"] != second.json["id"]
    assert second.json["accepted"] == 1


async def test_other_lines_under_the_same_key_are_refused(world, service):
    await send(world, service, map(by_id, range(5)), key="k")
    answer = await send(world, service, map(by_id, range(1, 6)), key="k")
    assert answer.status == 422
    assert not is_hit(world, service, "id-5")


async def test_more_lines_under_the_same_key_go_on_where_it_ended(world, service):
    await send(world, service, map(by_id, range(300)), key="k")
    answer = await send(world, service, map(by_id, range(900)), key="k")
    assert (answer.json["lines"], answer.json["accepted"]) == (900, 900)
    assert all(is_hit(world, service, f"id-{number}") for number in range(900))


async def test_a_batch_that_the_store_interrupts_goes_on_and_writes_nothing_twice(world, service, monkeypatch):
    monkeypatch.setattr(batches_module, "WRITE_PAUSE_SECONDS", 0.001)
    lines = list(map(by_id, range(20 * BLOCK_LINES)))
    append, left = world.store.append, [7]

    async def failing(record):
        if not left[0]:
            raise StoreUnavailable("no quorum")
        left[0] -= 1
        await append(record)

    world.store.append = failing
    answer = await send(world, service, lines, key="k")
    assert answer.status == 503
    assert "Retry-After" in answer.headers
    world.store.append = append
    (name,) = service.app_jobs()
    job = (await job_of(world, service, name)).json
    assert job["state"] == "interrupted"
    assert job["lines"] == job["accepted"] <= 7 * BLOCK_LINES
    stored = len(world.store._all.log)
    assert stored == 7
    answer = await send(world, service, lines, key="k")
    assert (answer.json["state"], answer.json["accepted"]) == ("done", len(lines))
    assert len(world.store._all.log) == 20, "what was written before is found by its name"
    assert len((await service.snapshot()).entries) == len(lines)


async def test_a_store_that_is_away_for_a_moment_is_waited_for(world, service, monkeypatch):
    monkeypatch.setattr(batches_module, "WRITE_PAUSE_SECONDS", 0.001)
    append, failures = world.store.append, [3]

    async def failing(record):
        if failures[0]:
            failures[0] -= 1
            raise StoreUnavailable("no quorum")
        await append(record)

    world.store.append = failing
    assert (await send(world, service, [by_id(1)])).json["accepted"] == 1


async def test_an_answer_of_the_store_that_was_lost_makes_no_second_record(world, service, monkeypatch):
    monkeypatch.setattr(batches_module, "WRITE_PAUSE_SECONDS", 0.001)
    world.store.loses_answers = True
    assert (await send(world, service, [by_id(1)], key="k")).status == 503
    world.store.loses_answers = False
    assert (await send(world, service, [by_id(1)], key="k")).json["accepted"] == 1
    assert len(world.store._all.log) == 1


async def test_a_body_that_breaks_off_leaves_a_job_to_go_on_with(world, service):
    lines = list(map(by_id, range(3 * BLOCK_LINES)))

    async def broken():
        yield body_of(lines[: 2 * BLOCK_LINES + 5])
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await send(world, service, (), key="k", raw=broken())
    name = await eventually(lambda: next(iter(service.app_jobs()), None))
    await eventually(lambda: job_state(world, name) is not JobState.RUNNING)
    job = (await job_of(world, service, name)).json
    assert (job["state"], job["lines"]) == ("interrupted", 2 * BLOCK_LINES)
    answer = await send(world, service, lines, key="k")
    assert answer.json["accepted"] == 3 * BLOCK_LINES


async def eventually(ask):
    for _ in range(200):
        if answer := ask():
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError


def job_state(world, name):
    return Job.from_bytes(world.store._all.keys[f"job-{name}"][0]).state


async def test_a_job_is_cancelled_from_another_replica_and_goes_on_when_it_is_sent_again(world, service, monkeypatch):
    monkeypatch.setattr(batches_module, "KEEP_EVERY_SECONDS", 0.0)
    lines, more = list(map(by_id, range(4 * BLOCK_LINES))), asyncio.Event()

    async def slow():
        yield body_of(lines[: 2 * BLOCK_LINES])
        await more.wait()
        for each in lines[2 * BLOCK_LINES :]:
            yield body_of([each])

    async with world.replica(TOKENRY_INSTANCE="other") as other:
        sending = asyncio.create_task(send(world, service, (), key="k", raw=slow()))
        name = await eventually(lambda: next(iter(service.app_jobs()), None))
        admin = world.caller(scope="revocation.admin")
        assert (await other.call("POST", f"/jobs/{name}/cancel", token=world.caller())).status == 403
        assert (await other.call("POST", f"/jobs/{'a' * 20}/cancel", token=admin)).status == 404
        assert (await other.call("POST", f"/jobs/{name}/cancel", token=admin)).status == 202
        more.set()
        assert (await sending).status == 409
        job = (await job_of(world, other, name)).json
        assert job["state"] == "interrupted"
        assert job["lines"] < len(lines)
        assert (await other.call("POST", f"/jobs/{name}/cancel", token=admin)).status == 409
        world.clock.advance(1)
        answer = await send(world, service, lines, key="k")
        assert (answer.json["state"], answer.json["accepted"]) == ("done", len(lines))


async def test_one_job_is_worked_on_once_at_a_time_also_by_two_replicas(world, service):
    released = asyncio.Event()

    async def slow():
        yield body_of(map(by_id, range(10)))
        await released.wait()

    async with world.replica(TOKENRY_INSTANCE="other") as other:
        first = asyncio.create_task(send(world, service, (), key="k", raw=slow()))
        await eventually(service.app_jobs)
        for replica in (service, other):
            answer = await send(world, replica, [by_id(1)], key="k")
            assert (answer.status, answer.headers["Retry-After"]) == (409, "2")
        world.clock.advance(20)
        taken_over = await send(world, other, map(by_id, range(10)), key="k")
        assert taken_over.json["state"] == "done", "the one that works on it has not been heard of for a while"
        released.set()
        assert (await first).json["accepted"] == 10


async def test_failures_are_told_a_page_at_a_time(world, service):
    count = PAGE_FAILURES + 3
    answer = await send(world, service, [b"{"] * count)
    assert (answer.json["failed"], len(answer.json["failures"]), answer.json["next_page"]) == (count, PAGE_FAILURES, 1)
    page = (await job_of(world, service, answer.json["id"], page=1)).json
    assert [failure["line"] for failure in page["failures"]] == list(range(PAGE_FAILURES + 1, count + 1))
    assert page["next_page"] is None
    for wrong in ("-1", "x", "1" * 9, "²"):
        assert (await job_of(world, service, answer.json["id"], page=wrong)).status == 400


async def test_a_batch_of_nothing_but_failures_is_given_up(world, service, monkeypatch):
    monkeypatch.setattr(batches_module, "MAX_FAILURES", 500)
    answer = await send(world, service, [b"{"] * 20_000)
    assert answer.status == 400
    assert "500" in answer.json["detail"]


async def test_jobs_are_for_those_who_may_look_at_revocations(world, service):
    job = (await send(world, service, [by_id(1)])).json
    assert (await service.get(f"/jobs/{job['id']}")).status == 401
    assert (await service.get(f"/jobs/{job['id']}", token=world.caller("other"))).status == 403
    assert (await job_of(world, service, "a" * 32)).status == 404
    world.store.down = True
    assert (await job_of(world, service, job["id"])).status == 503


async def test_an_empty_batch_is_a_job_that_is_done(world, service):
    job = (await send(world, service, (), raw=b"")).json
    assert (job["state"], job["lines"], job["accepted"]) == ("done", 0, 0)


async def test_lines_may_end_anyhow_and_the_last_one_needs_no_end(world, service):
    raw = b" " + json.dumps(by_id(1)).encode() + b" \r\n\r\n" + json.dumps(by_id(2)).encode()
    answer = await send(world, service, (), raw=raw)
    assert (answer.json["lines"], answer.json["accepted"], answer.json["failures"]) == (3, 2, [])


async def test_what_is_audited_names_the_record_and_no_id(world, service):
    await send(world, service, [by_id("canary", reason="leak")])
    (line,) = [line for line in world.audit if line["event"] == "revocations accepted"]
    assert (line["lines"], line["reason"], line["actor"]["sub"]) == (1, "leak", "operator")
    assert "canary" not in json.dumps(world.audit)


async def test_a_coded_body_is_refused(world, service):
    answer = await service.call(
        "POST", "/revocations/batch", token=world.caller(), raw=b"x", headers={"Content-Encoding": "gzip"}
    )
    assert answer.status in {400, 415}


def test_blocks_that_are_done_in_any_order_make_progress_without_gaps():
    progress = Progress(job=Job(id="j", replica="r", started_at=NOW, updated_at=NOW))
    progress.done(251, lines=250, accepted=249, failures=[Failure(line=300, status=400, detail="x")], digest="b")
    assert progress.job.lines == 0
    progress.done(1, lines=250, accepted=250, failures=[], digest="a")
    assert (progress.job.lines, progress.job.accepted, progress.job.failed, progress.job.digest) == (500, 499, 1, "b")
