"""The issuer keeps a key to sign with, also when several replicas are asked at once."""

import asyncio

import pytest

from tests.services.revocation.conftest import FaultyStore, World
from tokenry.jose.jwk import PrivateKey
from tokenry_revocation.last_key import ANNOUNCED_SECONDS
from tokenry_revocation.ports import StoreUnavailable


class SlowStore(FaultyStore):
    """Lets a test hold requests up: before anything is written to the log, or before anybody is asked for."""

    def __init__(self, clock):
        super().__init__(clock)
        self.may_append = asyncio.Event()
        self.may_append.set()
        self.waiting = 0
        self.at_once = 0
        self.recalled = 0
        self.read_fails = False
        self.append_fails = False

    async def append(self, record):
        self.waiting += 1
        await self.may_append.wait()
        if self.append_fails:
            raise StoreUnavailable("append: timed out")
        await super().append(record)

    async def recall_members(self, group):
        members = await super().recall_members(group)
        while len(members) < self.at_once:
            await asyncio.sleep(0)
            members = await super().recall_members(group)
        self.recalled += 1
        while self.recalled < self.at_once:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return members

    async def read(self, after):
        if self.read_fails:
            raise StoreUnavailable("read: no quorum")
        return await super().read(after)

    async def pages(self):
        if self.read_fails:
            raise StoreUnavailable("read: no quorum")
        async for batch in super().pages():
            yield batch


@pytest.fixture
def world():
    made = World()
    made.store = SlowStore(made.clock)
    return made


async def post(replica, key):
    return (await replica.post("KEY", {"kid": key.kid})).status


async def test_two_replicas_asked_at_once_leave_a_key(world):
    """The first one has looked and not yet written when the second one looks."""
    async with world.replica() as one, world.replica() as other:
        world.store.may_append.clear()
        first = asyncio.create_task(post(one, world.key))
        while world.store.waiting < 1:  # noqa: ASYNC110 -- what is waited for is a count
            await asyncio.sleep(0)
        second = asyncio.create_task(post(other, world.standby))
        while world.store.waiting < 2 and not second.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.store.may_append.set()
        assert await asyncio.gather(first, second) == [201, 409]
        assert await post(other, world.standby) == 409
        assert await post(other, world.key) == 200


async def test_one_replica_asked_twice_at_once_leaves_a_key(world):
    async with world.replica() as only:
        world.store.may_append.clear()
        first = asyncio.create_task(post(only, world.key))
        while world.store.waiting < 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        second = asyncio.create_task(post(only, world.standby))
        while world.store.waiting < 2 and not second.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.store.may_append.set()
        assert await asyncio.gather(first, second) == [201, 409]


async def test_two_that_give_way_to_one_another_may_try_again(world):
    async with world.replica() as one, world.replica() as other:
        world.store.at_once = 2
        assert await asyncio.gather(post(one, world.key), post(other, world.standby)) == [409, 409]
        world.store.at_once = 0
        assert await post(one, world.key) == 201


async def test_with_a_third_key_nobody_has_to_give_way(world):
    world.keys.held.append(PrivateKey.generate())
    async with world.replica() as one, world.replica() as other:
        world.store.at_once = 2
        assert await asyncio.gather(post(one, world.key), post(other, world.standby)) == [201, 201]


async def test_an_attempt_of_unknown_outcome_counts_until_it_must_be_in_the_list(world):
    async with world.replica() as one, world.replica() as other:
        world.store.append_fails = True
        assert await post(one, world.key) == 503
        world.store.append_fails = False
        assert await post(other, world.standby) == 409
        world.clock.advance(seconds=ANNOUNCED_SECONDS + 1)
        await other.feed.read()
        assert await post(other, world.standby) == 201  # it was not stored, and nobody asks any more


async def test_who_has_not_read_the_list_for_a_minute_does_not_know(world):
    async with world.replica() as only:
        world.store.read_fails = True
        world.clock.advance(seconds=61)
        assert await post(only, world.key) == 503
        world.store.read_fails = False
        await only.feed.read()
        assert await post(only, world.key) == 201
