import pytest

from tests.services.issuer.support import MemoryStore
from tokenry_issuer.mirror import Mirror
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import Refusal, RefusedObject


def read(key, body):
    if body.startswith(b"bad"):
        raise RefusedObject(Refusal.MALFORMED, "bad")
    return body.decode()


def read_key(path):
    if path.endswith("README"):
        raise RefusedObject(Refusal.UNKNOWN_KEY, "no place")
    return path.removeprefix("x/")


class Watched:
    def __init__(self):
        self.store = MemoryStore()
        self.refused = []
        self.forbid = False
        self.mirror = Mirror(
            self.store,
            "x/",
            read_key=read_key,
            read=read,
            check=self.check,
            on_refused=lambda path, error: self.refused.append((path, error.cause)),
        )

    def check(self, before, after):
        if self.forbid:
            raise RefusedObject(Refusal.MASS_REMOVAL, "too much")

    async def refresh(self):
        self.store.reads.clear()
        return await self.mirror.refresh()


@pytest.fixture
def watched():
    return Watched()


async def test_only_what_changed_is_read(watched):
    for name in "abc":
        watched.store.put(f"x/{name}", b"1")
    assert await watched.refresh() is True
    assert sorted(watched.store.reads) == ["x/a", "x/b", "x/c"]
    assert await watched.refresh() is False
    assert watched.store.reads == []
    watched.store.put("x/b", b"2")
    assert await watched.refresh() is True
    assert watched.store.reads == ["x/b"]
    assert watched.mirror.values == {"a": "1", "b": "2", "c": "1"}


async def test_a_deletion_takes_effect_at_the_next_refresh(watched):
    watched.store.put("x/a", b"1")
    watched.store.put("x/b", b"1")
    await watched.refresh()
    watched.store.delete("x/a")
    assert await watched.refresh() is True
    assert watched.mirror.values == {"b": "1"}


async def test_F04_a_bad_version_keeps_the_last_good_one_and_is_reported_once(watched):
    watched.store.put("x/a", b"1")
    await watched.refresh()
    watched.store.put("x/a", b"bad")
    for _ in range(3):
        await watched.refresh()
    assert watched.mirror.values == {"a": "1"}
    assert watched.refused == [("x/a", Refusal.MALFORMED)]
    assert watched.store.reads == []
    assert set(watched.mirror.refused) == {"x/a"}


async def test_F04_a_repaired_object_comes_into_force_and_the_next_bad_version_is_reported_again(watched):
    watched.store.put("x/a", b"bad")
    await watched.refresh()
    watched.store.put("x/a", b"2")
    await watched.refresh()
    assert watched.mirror.values == {"a": "2"}
    assert watched.mirror.refused == {}
    watched.store.put("x/a", b"bad again")
    await watched.refresh()
    assert len(watched.refused) == 2


async def test_an_object_that_was_never_good_is_not_there_and_hinders_nobody(watched):
    watched.store.put("x/a", b"bad")
    watched.store.put("x/b", b"1")
    await watched.refresh()
    assert watched.mirror.values == {"b": "1"}


async def test_a_bad_object_that_is_deleted_takes_its_last_good_version_along(watched):
    watched.store.put("x/a", b"1")
    watched.store.put("x/b", b"1")
    await watched.refresh()
    watched.store.put("x/a", b"bad")
    await watched.refresh()
    watched.store.delete("x/a")
    await watched.refresh()
    assert watched.mirror.values == {"b": "1"}
    assert watched.mirror.refused == {}


async def test_a_key_without_a_place_is_reported_once_and_never_read(watched):
    watched.store.put("x/README", b"hello")
    await watched.refresh()
    await watched.refresh()
    assert watched.refused == [("x/README", Refusal.UNKNOWN_KEY)]
    assert watched.store.reads == []


async def test_F07_an_object_that_is_forbidden_keeps_its_last_good_version_and_is_tried_again(watched):
    watched.store.put("x/a", b"1")
    await watched.refresh()
    watched.store.put("x/a", b"2")
    watched.store.unreadable["x/a"] = "forbidden"
    await watched.refresh()
    await watched.refresh()
    assert watched.mirror.values == {"a": "1"}
    assert watched.refused == [("x/a", Refusal.UNREADABLE)]
    del watched.store.unreadable["x/a"]
    await watched.refresh()
    assert watched.mirror.values == {"a": "2"}


async def test_an_object_deleted_between_listing_and_reading_is_no_alarm(watched):
    watched.store.put("x/a", b"1")
    watched.store.put("x/b", b"1")
    watched.store.unreadable["x/b"] = "no_such_key"
    await watched.refresh()
    assert watched.mirror.values == {"a": "1"}
    assert watched.refused == []


async def test_F01_an_outage_changes_nothing(watched):
    watched.store.put("x/a", b"1")
    await watched.refresh()
    watched.store.outage = "EndpointConnectionError"
    with pytest.raises(StoreUnavailable):
        await watched.refresh()
    assert watched.mirror.values == {"a": "1"}


async def test_a_refresh_that_fails_half_way_takes_no_effect_and_reads_nothing_twice(watched):
    for number in range(40):
        watched.store.put(f"x/{number:02}", b"1")
    watched.store.failing_reads.add("x/20")
    with pytest.raises(StoreUnavailable):
        await watched.refresh()
    assert watched.mirror.values == {}
    first = set(watched.store.reads)
    watched.store.failing_reads.clear()
    await watched.refresh()
    assert len(watched.mirror.values) == 40
    assert len(watched.store.reads) < 40
    assert not (first - {"x/20"}) & set(watched.store.reads)


async def test_a_refused_listing_changes_nothing_at_all(watched):
    watched.store.put("x/a", b"1")
    watched.store.put("x/b", b"1")
    await watched.refresh()
    watched.forbid = True
    watched.store.delete("x/a")
    watched.store.put("x/b", b"2")
    with pytest.raises(RefusedObject):
        await watched.refresh()
    assert watched.mirror.values == {"a": "1", "b": "1"}
    assert watched.store.reads == []
    watched.forbid = False
    await watched.refresh()
    assert watched.mirror.values == {"b": "2"}


async def test_a_refresh_has_a_deadline(watched):
    import asyncio

    class Stuck(MemoryStore):
        async def get(self, key, *, etag=None):
            await asyncio.Event().wait()

    watched.mirror._store = stuck = Stuck()
    stuck.put("x/a", b"1")
    with pytest.raises(TimeoutError):
        await watched.mirror.refresh(deadline=0.01)
