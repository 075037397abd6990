"""A replica's first read of a long store: complete before anything is published, and nobody waits for it long."""

import asyncio
import gc
import threading

import pytest

from tests.services.revocation.conftest import NOW, SALT
from tests.services.revocation.test_batches import eventually
from tokenry.revocation.entries import Entry, Kind
from tokenry.secret import Secret
from tokenry_revocation import feed as feed_module
from tokenry_revocation.ports import StoredRecord, StoreUnavailable
from tokenry_revocation.records import Actor, Record, RecordType
from tokenry_revocation.revoking import Fingerprints

UNTIL = NOW + 600


def a_rule(number, *, claim=None, salt=None, until=UNTIL):
    name = f"rule-{number}"
    entry = Entry(
        id=name, kind=Kind.ALL if claim is None else Kind.CLAIMS, issued_before=NOW - 10_000 + number,
        in_force_until=until, fingerprint=claim, salt=salt, names=() if claim is None else ("sub",),
    )  # fmt: skip
    record = Record(
        id=name, type=RecordType.GLOBAL, revoked_at=NOW, in_force_until=until, propagated_by=NOW, plan_b_by=NOW,
        actor=Actor(iss="i", sub="s"), entries=(entry,),
    )  # fmt: skip
    return StoredRecord(id=name, body=record.to_bytes(), in_force_until=until)


async def fill(world, rules, tokens):
    """Put *rules* rules and *tokens* tokens into the store, as another replica did before."""
    for number in range(rules):
        await world.store.append(a_rule(number))
    async with world.replica() as other:
        for _ in range(tokens):
            await other.post("TOKEN", {"token": world.token()})


def in_list(replica):
    held = replica.feed.revocations
    return len(held.rules), len(held.block)


async def test_the_first_read_puts_rules_and_tokens_into_the_list(world):
    await fill(world, rules=1200, tokens=3)
    async with world.replica(ready=False) as replica:
        assert await replica.feed.read()
        assert in_list(replica) == (1200, 6)  # a token is there by its id and by itself
        assert len(replica.feed.publication) == 1203


async def test_rules_of_a_first_read_that_broke_off_are_in_the_list_after_the_next(world):
    await fill(world, rules=1200, tokens=0)
    pages = world.store.pages

    async def broken():
        async for batch in pages():
            yield batch
            raise StoreUnavailable("a page is missing")

    async with world.replica(ready=False) as replica:
        world.store.pages = broken
        assert not await replica.feed.read()
        assert replica.feed.publication is None, "nothing is published before all was read"
        world.store.pages = pages
        assert await replica.feed.read()
        assert in_list(replica) == (1200, 0)


async def test_a_list_that_could_not_be_made_is_made_by_the_next_read(world):
    for number in range(30):
        await world.store.append(a_rule(number, until=NOW + 60 if number < 15 else UNTIL))
    async with world.replica(ready=False, TOKENRY_LIST_MAX_ENTRIES="20") as replica:
        assert not await replica.feed.read()
        assert replica.feed.publication is None
        world.clock.advance(61)
        assert await replica.feed.read()
        assert in_list(replica) == (15, 0)


async def test_a_list_of_more_entries_than_were_set_gets_older_until_it_is_shorter(world):
    for number in range(20):
        await world.store.append(a_rule(number, until=NOW + 60 if number < 15 else UNTIL))
    async with world.replica(TOKENRY_LIST_MAX_ENTRIES="20") as replica:
        assert in_list(replica) == (20, 0)
        as_of = replica.feed.as_of
        await world.store.append(a_rule(20))
        for _ in range(2):
            world.clock.advance(1)
            assert not await replica.feed.read()
            assert replica.feed.as_of == as_of
        assert replica.feed.fault == "more is revoked than a list may have entries"
        assert in_list(replica) == (21, 0)  # all of it is obeyed here
        world.clock.advance(60)
        assert await replica.feed.read()
        assert in_list(replica) == (6, 0)
        assert replica.feed.as_of > as_of
        assert replica.feed.fault is None


async def test_nothing_is_published_while_another_task_makes_the_list(world, monkeypatch):
    await fill(world, rules=1000, tokens=0)
    monkeypatch.setattr(feed_module, "_AT_ONCE", 0)
    async with world.replica(ready=False) as replica:
        feed = replica.feed
        first = asyncio.create_task(feed.read())
        async with asyncio.timeout(20):  # looked at in every turn: the thread is at it for some milliseconds only
            while not (feed._first_rules is None and feed._changing_list.locked()):  # noqa: ASYNC110
                await asyncio.sleep(0)
        second = asyncio.create_task(feed.read())
        assert await second
        assert in_list(replica) == (1000, 0)
        assert await first


@pytest.mark.parametrize("fits", [True, False])
async def test_the_list_of_many_rules_is_made_without_a_collection_of_garbage(world, fits):
    salt = Fingerprints(Secret(SALT)).salt_id
    for number in range(10_000):
        await world.store.append(a_rule(number, claim=number.to_bytes(16), salt=salt))
    beside = []

    def collecting(phase, _info):
        if phase == "start" and threading.current_thread() is not threading.main_thread():
            beside.append(threading.current_thread().name)

    most = "10000" if fits else "9999"
    async with world.replica(ready=False, TOKENRY_LIST_MAX_ENTRIES=most) as replica:
        gc.callbacks.append(collecting)
        try:
            assert await replica.feed.read() is fits
        finally:
            gc.callbacks.remove(collecting)
    assert not beside, "it holds every thread, the event loop's too"
    assert gc.isenabled()


async def test_what_is_revoked_during_the_first_read_is_in_the_list(world):
    await fill(world, rules=600, tokens=0)
    async with world.replica(ready=False) as replica:
        world.store.hold = asyncio.Event()
        reading = asyncio.create_task(replica.feed.read())
        await eventually(lambda: replica.feed._publication)
        assert (await replica.post("CLAIM", {"claims": {"sub": "gone"}})).status in {201, 503}
        replica.feed.add(Record.from_bytes(a_rule(700).body))
        world.store.hold.set()
        assert await reading
        assert {entry.id for entry in replica.feed.revocations.entries()} >= {"rule-0", "rule-599", "rule-700"}


async def test_others_get_the_event_loop_every_hundred_tokens_or_every_few_rules(world):
    await fill(world, rules=400, tokens=400)
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with world.replica(ready=False) as replica:
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        turns = 0
        assert await replica.feed.read()
        ticking.cancel()
    assert turns >= 400 / 100 + 400 / 20
