"""`changes` and `snapshot`: complete, held until there is news, cheap to repeat, and honest about their age."""

import asyncio
import gzip
import re
from dataclasses import replace

import pytest

from tests.services.revocation.conftest import ISSUER, LIFETIME, NOW
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.lists import RevocationList
from tokenry.revocation.wire import BINARY_TYPE, changes_location, is_located, parse_binary_list, parse_list
from tokenry_revocation.ports import StoredRecord
from tokenry_revocation.records import Actor, Record, RecordType

NEWS_SECONDS = 1.0  # within which a held request is answered; promised for the way there and back


async def test_a_snapshot_names_its_store_its_salt_and_the_longest_life_of_a_token(service):
    answer = await service.get("/revocations/snapshot")
    document = answer.list
    assert answer.status == 200
    assert document.epoch == 1
    assert document.max_token_lifetime == LIFETIME
    assert set(document.kinds) == set(Kind)
    assert len(document.salts) == 1
    assert answer.headers["Cache-Control"] == "no-store"


async def test_both_forms_of_the_snapshot_say_the_same(world, service):
    tokens = [world.token() for _ in range(3)]
    for token in tokens:
        await service.post("TOKEN", {"token": token})
    await service.post("CLAIM", {"claims": {"sub": "gone"}})
    await service.post("KEY", {"kid": "gone"})
    as_json = parse_list((await service.get("/revocations/snapshot")).body)
    binary = await service.get("/revocations/snapshot", headers={"Accept": BINARY_TYPE})
    assert binary.headers["Content-Type"] == BINARY_TYPE
    as_binary = parse_binary_list(binary.body)
    for document in (as_json, as_binary):
        held = document.onto(None, now=world.clock.now())
        assert all(held.hits(world.judged(token), now=NOW) for token in tokens)
        assert held.hits(world.judged(world.token(sub="gone")), now=NOW)
        assert not held.hits(world.judged(world.token()), now=NOW)


async def test_a_snapshot_that_is_held_already_is_304_with_the_lists_age(world, service):
    first = await service.get("/revocations/snapshot")
    world.clock.advance(5)
    await service.feed.read()
    second = await service.get("/revocations/snapshot", headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status, second.body) == (304, b"")
    assert second.stamp.as_of == NOW + 5 - 2
    await service.post("TOKEN", {"token": world.token()})
    third = await service.get("/revocations/snapshot", headers={"If-None-Match": first.headers["ETag"]})
    assert third.status == 200


@pytest.mark.parametrize("form", ["W/{}", '"x", {}', "*"])
async def test_if_none_match_is_read_as_http_says(service, form):
    etag = (await service.get("/revocations/snapshot")).headers["ETag"]
    answer = await service.get("/revocations/snapshot", headers={"If-None-Match": form.format(etag)})
    assert answer.status == 304


async def test_each_form_has_an_etag_of_its_own(service):
    first = await service.get("/revocations/snapshot")
    headers = {"Accept": BINARY_TYPE, "If-None-Match": first.headers["ETag"]}
    assert (await service.get("/revocations/snapshot", headers=headers)).status == 200


async def test_a_long_snapshot_is_packed_for_those_who_take_that(world, service):
    for _ in range(10):
        await service.post("TOKEN", {"token": world.token()})
    raw = service.session._auto_decompress
    service.session._auto_decompress = False
    try:
        packed = await service.get("/revocations/snapshot", headers={"Accept-Encoding": "br, gzip;q=0.5"})
        plain = await service.get("/revocations/snapshot", headers={"Accept-Encoding": "gzip;q=0"})
    finally:
        service.session._auto_decompress = raw
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body


async def test_R17_the_list_gets_younger_although_nothing_changes(world, service):
    before = (await service.get("/revocations/snapshot")).stamp
    world.clock.advance(1)
    assert (await service.get("/revocations/snapshot")).stamp.age >= before.age + 1
    await service.feed.read()
    after = (await service.get("/revocations/snapshot")).stamp
    assert after.as_of == before.as_of + 1
    assert after.age == before.age


async def test_as_of_is_the_start_of_the_read_less_the_skew_and_never_later(world, service):
    stamp = (await service.get("/revocations/snapshot")).stamp
    assert stamp.as_of == NOW - 2
    assert stamp.age == 2.0
    world.clock.advance(30)
    stamp = (await service.get("/revocations/snapshot")).stamp
    assert (stamp.as_of, stamp.age) == (NOW - 2, 32.0)


async def test_the_age_is_measured_on_one_clock_that_nobody_sets(world, service):
    world.clock.advance(10)
    world.clock.set_wall_clock(NOW - 100_000)
    assert (await service.get("/revocations/snapshot")).stamp.age == 12.0


# --- changes ----------------------------------------------------------------------------------------------


async def test_changes_bring_what_is_new_since_the_cursor_and_a_new_cursor(world, service):
    cursor = (await service.snapshot()).cursor
    quiet = await service.changes(cursor)
    assert (quiet.status, quiet.list.entries) == (200, ())
    token = world.token()
    await service.post("TOKEN", {"token": token})
    news = await service.changes(cursor)
    assert {entry.kind for entry in news.list.entries} == {Kind.JTI, Kind.TOKEN}
    assert news.headers["Cache-Control"] == "no-store"
    assert (await service.changes(news.list.cursor)).list.entries == ()


async def test_an_answer_says_to_which_request_it_is(service):
    snapshot = await service.get("/revocations/snapshot")
    assert snapshot.headers["Content-Location"] == "snapshot"
    cursor = (await service.snapshot()).cursor
    assert is_located((await service.changes(cursor)).headers["Content-Location"], at=changes_location(cursor))


async def test_a_held_request_is_answered_as_soon_as_there_is_news(world, service):
    cursor = (await service.snapshot()).cursor
    held = asyncio.create_task(service.changes(cursor, wait=50))
    await asyncio.sleep(0.1)
    assert not held.done()
    await service.post("TOKEN", {"token": world.token()})
    answer = await asyncio.wait_for(held, NEWS_SECONDS)
    assert len(answer.list.entries) == 2


async def test_many_held_requests_get_the_same_news(world, service):
    cursor = (await service.snapshot()).cursor
    held = [asyncio.create_task(service.changes(cursor, wait=50)) for _ in range(50)]
    await asyncio.sleep(0.3)
    assert b"tokenry_held_requests 50.0" in (await service.get("/metrics")).body
    await service.post("TOKEN", {"token": world.token()})
    answers = await asyncio.wait_for(asyncio.gather(*held), 5)
    assert len({answer.body for answer in answers}) == 1
    assert b"tokenry_held_requests 0.0" in (await service.get("/metrics")).body


async def test_a_held_request_ends_without_news_when_its_wait_is_over(service):
    cursor = (await service.snapshot()).cursor
    answer = await service.changes(cursor, wait=0.2)
    assert (answer.status, answer.list.entries) == (200, ())
    assert answer.stamp.age >= 2


async def test_a_request_that_got_its_news_is_held_again_and_not_answered_in_a_circle(world, service):
    await service.post("TOKEN", {"token": world.token()})
    cursor = (await service.snapshot()).cursor
    for _ in range(3):
        held = asyncio.create_task(service.changes(cursor, wait=0.2))
        await asyncio.sleep(0.1)
        assert not held.done()
        cursor = (await held).list.cursor
        await service.feed.read()


async def test_news_of_another_replica_arrives_with_the_next_read(world, service):
    async with world.replica() as other:
        cursor = (await service.snapshot()).cursor
        held = asyncio.create_task(service.changes(cursor, wait=50))
        await asyncio.sleep(0.1)
        await other.post("TOKEN", {"token": world.token()})
        assert len((await asyncio.wait_for(held, 2)).list.entries) == 2


async def test_a_cursor_of_one_replica_loses_nothing_at_another(world, service):
    async with world.replica() as other:
        held, cursor, tokens = RevocationList(epoch=1), (await service.snapshot()).cursor, []
        for number in range(12):
            poster, reader = ((service, other), (other, service))[number % 2]
            tokens.append(world.token())
            await poster.post("TOKEN", {"token": tokens[-1]})
            if number % 3:
                await reader.feed.read()
            document = (await reader.changes(cursor)).list
            held, cursor = document.onto(held, now=NOW), document.cursor
        await service.feed.read()
        held = (await service.changes(cursor)).list.onto(held, now=NOW)
        assert all(held.hits(world.judged(token), now=NOW) for token in tokens)


async def test_a_reader_that_knows_more_than_a_replica_is_held_and_not_told_nothing_at_once(world, service):
    """An empty answer that comes at once looks like a service that does not hold: its reader would begin to poll."""
    before = (await service.snapshot()).cursor
    async with world.replica() as other:
        world.store.reading_fails = True  # so that the other one does not hear of what this one takes
        await service.post("TOKEN", {"token": world.token()})
        cursor = (await service.changes(before)).list.cursor
        held = asyncio.create_task(other.changes(cursor, wait=50))
        await asyncio.sleep(0.1)
        assert not held.done()
        await other.post("TOKEN", {"token": (later := world.token())})
        answer = (await asyncio.wait_for(held, 2)).list
        assert answer.onto(None, now=NOW).hits(world.judged(later), now=NOW)
        world.store.reading_fails = False


async def test_a_reader_that_is_ahead_of_a_replica_waits_for_its_next_read(world, service):
    async with world.replica() as other:
        await other.post("TOKEN", {"token": world.token()})
        await other.feed.read()
        cursor = (await other.snapshot()).cursor
        held = asyncio.create_task(service.changes(cursor, wait=1))
        await asyncio.sleep(0.1)
        assert not held.done(), "it has nothing that the reader lacks"
        assert (await held).list.entries == ()


@pytest.mark.parametrize("cursor", ["", "x", "0", "1.2.3", "1.99.0.0000000000000000.0", "1.1.0.zz.0", "9" * 400])
async def test_a_cursor_that_is_of_no_use_is_gone_and_the_snapshot_is_there(service, cursor):
    answer = await service.changes(cursor)
    assert answer.status == 410
    assert "snapshot" in answer.json["detail"]


async def test_changes_without_a_cursor_are_gone(service):
    assert (await service.get("/revocations/changes")).status == 410


@pytest.mark.parametrize("wait", ["x", "", "nan", "inf", "1e3"])
async def test_a_wait_that_is_no_number_is_refused(service, wait):
    cursor = (await service.snapshot()).cursor
    assert (await service.changes(cursor, wait=wait)).status == 400


async def test_beyond_the_bound_requests_are_answered_at_once(world):
    async with world.replica(TOKENRY_MAX_HELD_REQUESTS="1") as service:
        cursor = (await service.snapshot()).cursor
        held = asyncio.create_task(service.changes(cursor, wait=50))
        await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(service.changes(cursor, wait=50), 1)).status == 200
        assert b"tokenry_requests_not_held_total 1.0" in (await service.get("/metrics")).body
        held.cancel()


async def test_a_reader_that_has_gone_gives_its_place_away(world, service, monkeypatch):
    monkeypatch.setattr("tokenry_revocation.reading.LOOK_SECONDS", 0.05)
    cursor = (await service.snapshot()).cursor
    held = asyncio.create_task(service.changes(cursor, wait=50))
    await asyncio.sleep(0.1)
    held.cancel()
    await asyncio.sleep(0.3)
    assert b"tokenry_held_requests 0.0" in (await service.get("/metrics")).body


async def test_a_draining_service_answers_what_it_holds_and_holds_nothing_more(world, service):
    from tokenry.serving.keys import HEALTH

    cursor = (await service.snapshot()).cursor
    held = asyncio.create_task(service.changes(cursor, wait=50))
    await asyncio.sleep(0.1)
    service.app[HEALTH].drain()
    assert (await asyncio.wait_for(held, 1)).status == 200
    assert (await asyncio.wait_for(service.changes(cursor, wait=50), 1)).status == 200


async def test_what_is_out_of_force_leaves_the_list_by_itself(world, service):
    await service.post("TOKEN", {"token": world.token(exp=NOW + 60)})
    world.clock.advance(180)
    await service.feed.read()
    assert (await service.snapshot()).entries == ()


async def test_R16_deleting_rows_of_the_store_takes_nothing_back(world, service):
    token = world.token()
    await service.post("TOKEN", {"token": token})
    await service.feed.read()
    world.store._all.log.clear()
    world.store._all.latest.clear()
    world.clock.advance(120)
    await service.feed.read()
    assert service.feed.revocations.hits(world.judged(token), now=NOW)
    assert len((await service.snapshot()).entries) == 2


async def test_R14_a_restarted_service_is_not_ready_and_has_no_list_before_it_has_read_everything(world):
    async with world.replica() as service:
        token = world.token()
        await service.post("TOKEN", {"token": token})
    world.store.down = True
    async with world.replica(ready=False) as service:
        for path in ("/revocations/snapshot", "/revocations/changes?after=x", "/revocations?from=0"):
            answer = await service.get(path)
            assert answer.status == 503
            assert "Retry-After" in answer.headers
        assert (await service.get("/readyz")).status == 503
        assert (await service.get("/healthz")).status == 200
        assert (await service.get("/validators", token=world.caller())).status == 503
        world.store.down = False
        assert await service.feed.read()
        assert (await service.get("/readyz")).status == 200
        assert service.feed.revocations.hits(world.judged(token), now=NOW)


async def test_a_snapshot_that_is_asked_for_before_the_first_read_waits_a_moment_for_it(world):
    world.store.down = True
    async with world.replica(ready=False) as service:
        asked = asyncio.ensure_future(service.get("/revocations/snapshot"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        world.store.down = False
        answer = await asked  # the reader tries again after a moment, not after half a second
        assert answer.status == 200


async def test_while_the_store_is_away_the_list_stays_and_grows_old(world, service):
    await service.post("TOKEN", {"token": world.token()})
    world.store.down = True
    for _ in range(3):
        world.clock.advance(10)
        assert not await service.feed.read()
    answer = await service.get("/revocations/snapshot")
    assert len(answer.list.entries) == 2
    assert answer.stamp.age == 32.0
    ready = await service.get("/readyz?verbose")
    assert (ready.status, ready.json["checks"]["list"]["status"]) == (200, "degraded")
    world.clock.advance(40)
    assert (await service.get("/readyz")).status == 503
    world.store.down = False
    await service.feed.read()
    assert (await service.get("/readyz")).status == 200


async def test_a_record_that_this_version_cannot_read_stops_the_clock_of_the_list(world, service):
    from tokenry_revocation.ports import StoredRecord

    await world.store.append(StoredRecord(id="later", body=b'{"format":2}', in_force_until=NOW + 600))
    world.clock.advance(5)
    assert not await service.feed.read()
    assert (await service.get("/revocations/snapshot")).stamp.as_of == NOW - 2


async def test_an_answer_claims_to_be_complete_up_to_its_content_and_not_up_to_its_end(world, service):
    """While a long list is being written, other replicas take revocations, and this one reads of them."""
    for number in range(600):
        await world.store.append(stored_rule(number))
    async with world.replica() as other:
        await service.feed.read()
        acknowledged, snapshots = {}, []

        async def ask():
            for accept in ["application/json", BINARY_TYPE] * 6:  # one after the other
                answer = await service.get("/revocations/snapshot", headers={"Accept": accept})
                snapshots.append(answer)

        async def take():
            while len(snapshots) < 12:
                answer = await other.post("CLAIM", {"claims": {"sub": f"s{len(acknowledged)}"}})
                acknowledged[answer.json["id"]] = world.clock.now()
                world.clock.advance(5)
                await service.feed.read()

        await asyncio.gather(ask(), take())
    assert len(acknowledged) > 5
    for answer in snapshots:
        binary = answer.headers["Content-Type"] == BINARY_TYPE
        listed = parse_binary_list(answer.body) if binary else answer.list
        promised = {name for name, at in acknowledged.items() if at < answer.stamp.as_of}
        assert promised <= {entry.id for entry in listed.entries}


def stored_rule(number):
    entry = Entry(id=f"rule{number}", kind=Kind.ALL, issued_before=NOW - 100, in_force_until=NOW + 6000)
    record = Record(
        id=entry.id,
        type=RecordType.GLOBAL,
        revoked_at=NOW - 50,
        in_force_until=NOW + 6000,
        propagated_by=NOW,
        plan_b_by=None,
        actor=Actor(iss="i", sub="s"),
        entries=(entry,),
    )
    return StoredRecord(id=record.id, body=record.to_bytes(), in_force_until=record.in_force_until)


async def test_F21_a_large_store_is_swept_beside_the_reads(world, service, monkeypatch):
    monkeypatch.setattr("tokenry_revocation.feed._IN_BACKGROUND", 10)
    for number in range(30):
        await world.store.append(stored_rule(number))
    await service.feed.read()
    world.clock.advance(61)
    world.store.hold = asyncio.Event()
    assert await service.feed.read(), "the sweep hangs, and the list stays fresh"
    assert (await service.get("/revocations/snapshot")).stamp.age == 2.0
    await world.store.append(stored_rule(99))
    world.clock.advance(1)
    assert await service.feed.read()
    assert len(service.feed.publication) == 31
    world.store.hold.set()
    await service.feed._sweeping
    assert await service.feed.read()


async def test_what_a_sweep_beside_the_reads_cannot_read_stops_the_clock_of_the_list(world, service, monkeypatch):
    monkeypatch.setattr("tokenry_revocation.feed._IN_BACKGROUND", -1)
    log = world.store._all.log
    await world.store.append(stored_rule(0))
    await service.feed.read()
    log[0] = replace(log[0], id="odd", body=b'{"format":9}')
    world.clock.advance(61)
    assert await service.feed.read()
    await service.feed._sweeping
    assert not await service.feed.read()
    log[0] = replace(stored_rule(0), position=1)
    world.clock.advance(61)
    await service.feed.read()
    await service.feed._sweeping
    assert await service.feed.read()


async def test_a_list_too_long_for_json_is_offered_in_the_binary_form(world, service, monkeypatch):
    monkeypatch.setattr("tokenry_revocation.reading.MAX_JSON_RECORDS", 1)
    for _ in range(2):
        await service.post("TOKEN", {"token": world.token()})
    answer = await service.get("/revocations/snapshot", headers={"Accept": "application/json"})
    assert answer.status == 406
    assert BINARY_TYPE in answer.json["detail"]
    assert (await service.get("/revocations/snapshot", headers={"Accept": BINARY_TYPE})).status == 200


@pytest.mark.parametrize("coding", ["gzip", "identity"])
async def test_a_long_list_for_plan_b_is_sent_as_it_is_written(world, service, monkeypatch, coding):
    monkeypatch.setattr("tokenry_revocation.reading._PIECES_AT_ONCE", 1)
    for _ in range(3):
        await service.post("TOKEN", {"token": world.token(iat=NOW - 60)})
    answer = await service.get("/revocations?from=0", headers={"Accept-Encoding": coding})
    assert len(answer.json["revocations"]) == 6
    assert answer.stamp.as_of == NOW - 2
    assert answer.headers.get("Content-Encoding") == (coding if coding == "gzip" else None)


async def until(is_so, *, seconds):
    """Return once *is_so*, which another thread brings about; fail after *seconds*."""
    end = asyncio.get_running_loop().time() + seconds
    while not is_so():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)


async def test_the_librarys_reader_hears_of_a_revocation_within_a_second(world, service):
    """The two ends of the wire, as they are: `RevocationSource` in its thread, this service behind sockets."""
    from tokenry.sources.revocations import RevocationSource

    source = RevocationSource(service.url, name="orders-1", version="1.2", clock=world.clock)
    source.start()
    try:
        await until(lambda: source.snapshot() is not None, seconds=5)
        token = world.token()
        await asyncio.sleep(0.2)
        await service.post("TOKEN", {"token": token})
        await until(lambda: source.snapshot().value.hits(world.judged(token), now=NOW), seconds=NEWS_SECONDS)
        shown = (await service.get("/validators", token=world.caller())).json["validators"]
        assert [(each["name"], each["version"]) for each in shown] == [("orders-1", "1.2")]
    finally:
        await asyncio.to_thread(source.stop)


async def test_lists_ask_for_a_bearer_where_that_is_configured(world):
    async with world.replica(TOKENRY_LIST_READ_SCOPE="lists.read") as service:
        for path in ("/revocations/snapshot", "/revocations/changes?after=x", "/revocations?from=0"):
            none = await service.get(path)
            assert none.status == 401
            assert none.headers["WWW-Authenticate"] == "Bearer"
            other = await service.get(path, token=world.caller("other"))
            assert other.status == 403
            assert 'scope="lists.read"' in other.headers["WWW-Authenticate"]
            assert (await service.get(path, token=world.caller("lists.read"))).status in {200, 410}


async def test_without_keys_the_service_is_not_ready_and_its_lists_are_there(world):
    world.keys.held = []
    async with world.replica() as service:
        assert (await service.get("/readyz")).status == 503
        assert (await service.get("/revocations/snapshot")).status == 200
        assert (await service.post("TOKEN", {"jti": "a"})).status == 503


async def test_other_methods_are_refused_with_what_is_allowed(service):
    answer = await service.call("DELETE", "/revocations")
    assert answer.status == 405
    assert set(re.split(", ?", answer.headers["Allow"])) >= {"GET", "POST"}


async def test_metrics_show_age_rules_and_the_stores_time(world, service):
    await service.post("TOKEN", {"token": world.token()})
    metrics = (await service.get("/metrics")).body.decode()
    assert 'tokenry_revocations_created_total{type="TOKEN"} 1.0' in metrics
    assert 'tokenry_revocation_rules{type="TOKEN"} 1.0' in metrics
    assert "tokenry_revocation_list_age_seconds 2.0" in metrics
    assert 'tokenry_store_operation_duration_seconds_count{operation="append",store="sqlite"} 1.0' in metrics
    assert ISSUER not in metrics


async def test_metrics_show_by_how_much_our_clock_is_ahead_of_the_stores(world, service):
    assert b"tokenry_store_clock_offset_seconds NaN" in (await service.get("/metrics")).body
    world.store.clock_offset = 1.5
    assert b"tokenry_store_clock_offset_seconds 1.5" in (await service.get("/metrics")).body


# --- when a revocation was made -------------------------------------------------------------------------------------


async def test_readers_who_ask_are_told_when_a_revocation_was_accepted_and_by_no_other_clock(world):
    async with world.replica() as one, world.replica() as other:
        cursor = (await one.snapshot()).cursor
        world.clock.advance(10.123)
        await one.post("TOKEN", {"token": world.token()})
        await one.post("CLAIM", {"claims": {"sub": "gone"}})
        made = NOW + 10.123
        world.clock.advance(5)
        await other.feed.read()
        for replica in (one, other):
            told = parse_list((await replica.get(f"/revocations/changes?after={cursor}&wait=0&created_at=true")).body)
            assert [(entry.kind, entry.created_at) for entry in told.entries] == [
                (Kind.JTI, made), (Kind.TOKEN, made), (Kind.CLAIMS, made)
            ]  # fmt: skip
            whole = await replica.get("/revocations/snapshot?created_at=true")
            assert {entry.created_at for entry in parse_list(whole.body).entries} == {made}


async def test_readers_of_the_first_version_are_not_told(world, service):
    cursor = (await service.snapshot()).cursor
    await service.post("TOKEN", {"token": world.token()})
    for path in (f"changes?after={cursor}&wait=0", f"changes?after={cursor}&wait=0&created_at=false", "snapshot"):
        body = (await service.get(f"/revocations/{path}")).body
        assert parse_list(body).entries
        assert b"created_at" not in body


async def test_both_answers_are_remembered_apart(world, service):
    cursor = (await service.snapshot()).cursor
    await service.post("TOKEN", {"token": world.token()})
    asked = [f"/revocations/changes?after={cursor}&wait=0&created_at={flag}" for flag in ("true", "false") * 2]
    answers = [(await service.get(path)).body for path in asked]
    assert answers[0] == answers[2] != answers[1] == answers[3]


async def test_a_flag_that_is_none_is_refused(service):
    cursor = (await service.snapshot()).cursor
    for path in (f"changes?after={cursor}&wait=0", "snapshot?"):
        assert (await service.get(f"/revocations/{path}&created_at=yes")).status == 400


async def test_an_undo_and_an_approved_revocation_say_when_they_came_into_force(world):
    async with world.replica(TOKENRY_SECOND_PERSON_SHARE="0") as service:
        asked = (await service.post("CLAIM", {"claims": {"sub": "gone"}})).json["id"]
        world.clock.advance(60)
        second = world.caller("revocation.admin", sub="another")
        assert (await service.call("POST", f"/revocations/{asked}/approve", token=second, body={})).status == 201
        world.clock.advance(30)
        undoer = world.caller("revocation.undo")
        assert (await service.call("POST", f"/revocations/{asked}/undo", token=undoer, body={})).status == 201
        told = parse_list((await service.get("/revocations/snapshot?created_at=true")).body)
        assert {entry.kind: entry.created_at for entry in told.entries} == {
            Kind.CLAIMS: NOW + 60, Kind.UNDO: NOW + 90
        }  # fmt: skip


async def test_a_clock_that_is_ahead_for_a_moment_ends_nothing_that_is_in_force(world, service):
    """The list would be complete again with the next sweep only, and call itself complete before."""
    await service.post("TOKEN", {"jti": "a"})
    world.clock.advance(hours=2)
    world.store.clock_offset = 7200.0  # which the store does not share
    await service.feed.read()
    assert len(service.feed.publication) == 1
    await service.post("TOKEN", {"jti": "b"})
    assert len(service.feed.publication) == 2
    world.store.clock_offset = 0.0
    world.clock.advance(seconds=61)
    await service.feed.read()
    assert len(service.feed.publication) == 1  # what was made two hours ago is over by both clocks
