"""Credentials through every outage that the object store can have."""

import pytest

from tests.services.issuer.support import NOW, MemoryStore, write_credentials
from tokenry.testing.clock import FakeClock
from tokenry_issuer.credentials import Credentials
from tokenry_registry import bootstrap
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import Refusal, RefusedObject

HOUR = 3600
ORDERS = "realms/services/clients/orders.json"


class Watched:
    def __init__(self, folder, **options):
        self.folder = folder
        self.store, self.clock, self.refused = MemoryStore(), FakeClock(start=float(NOW)), []
        write_credentials(folder)
        self.store.load_folder(folder)
        self.credentials = Credentials(
            self.store,
            clock=self.clock,
            on_refused=self.refused.append,
            **{"environment": "test", "max_token_lifetime": HOUR, "removal_share": 0.2, "hard_age": 24.0 * HOUR}
            | options,
        )
        self.refresh = self.credentials.refresh

    def client(self, name="orders", realm="/services"):
        return self.credentials.current().realms[realm].clients.get(name)

    def add_clients(self, count):
        for number in range(count):
            bootstrap.write_client(self.folder, "services", f"c{number}", hashes=[], created_at=NOW)
        self.store.load_folder(self.folder)

    async def fails(self, error):
        with pytest.raises(error) as raised:
            await self.refresh()
        return raised.value


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


async def test_nothing_is_known_before_the_first_refresh(watched):
    assert watched.credentials.current() is None
    assert watched.credentials.age is None
    assert not watched.credentials.loaded


async def test_everything_is_known_after_it(watched):
    await watched.refresh()
    assert set(watched.credentials.current().realms) == {"/services", "/plan-b", "/modern"}
    assert watched.client().scopes == {"orders.read", "orders.write", "uid"}
    assert watched.credentials.age == 0.0
    assert watched.refused == []


async def test_F01_an_outage_leaves_everything_in_force_for_24_hours_and_not_longer(watched):
    await watched.refresh()
    watched.store.outage = "EndpointConnectionError"
    for _ in range(24):
        watched.clock.advance(hours=1)
        await watched.fails(StoreUnavailable)
        assert watched.client() is not None
    assert watched.credentials.age == 24 * HOUR
    watched.clock.advance(1)
    assert watched.credentials.current() is None
    watched.store.outage = None
    await watched.refresh()
    assert watched.client() is not None
    assert watched.credentials.age == 0.0


async def test_F48_the_age_is_not_moved_by_the_wall_clock(watched):
    await watched.refresh()
    watched.clock.set_wall_clock(NOW + 1000 * HOUR)
    assert watched.credentials.current() is not None
    assert watched.credentials.age == 0.0


async def test_F04_a_corrupt_object_keeps_its_last_good_version(watched):
    await watched.refresh()
    watched.store.put(ORDERS, watched.store.objects[ORDERS][:50])
    await watched.refresh()
    assert watched.client() is not None
    assert watched.refused == [Refusal.MALFORMED]
    assert watched.credentials.refused == 1
    assert watched.credentials.age == 0.0


async def test_F04_all_objects_corrupt_keep_their_last_good_versions(watched):
    await watched.refresh()
    for key in watched.store.objects:
        watched.store.put(key, b"\0")
    await watched.refresh()
    assert watched.client() is not None
    assert set(watched.refused) == {Refusal.MALFORMED}


async def test_D84_a_client_with_a_bad_hash_is_unusable_and_the_others_are_served(watched):
    watched.store.change(ORDERS, secrets=[{"hash": "x", "created_at": 1}])
    await watched.refresh()
    assert watched.client() is None
    assert watched.client("slow") is not None
    assert watched.refused == [Refusal.MALFORMED]


async def test_F05_an_empty_listing_is_refused_with_an_alarm_and_everything_stays(watched):
    await watched.refresh()
    watched.store.objects.clear()
    watched.clock.advance(30)
    refused = await watched.fails(RefusedObject)
    assert refused.cause is Refusal.MASS_REMOVAL
    assert watched.client() is not None
    assert watched.credentials.age == 30.0


async def test_F05_a_listing_that_came_back_short_is_refused(watched):
    watched.add_clients(200)
    await watched.refresh()
    for key in list(watched.store.objects)[:100]:
        watched.store.delete(key)
    assert (await watched.fails(RefusedObject)).cause is Refusal.MASS_REMOVAL
    assert len(watched.credentials.current().realms["/services"].clients) > 200


async def test_F06_a_removed_client_is_gone_at_the_next_refresh(watched):
    await watched.refresh()
    watched.store.delete(ORDERS)
    await watched.refresh()
    assert watched.client() is None
    assert watched.client("slow") is not None


async def test_F06_a_disabled_client_is_disabled_at_the_next_refresh(watched):
    await watched.refresh()
    watched.store.change(ORDERS, enabled=False)
    await watched.refresh()
    assert not watched.client().enabled


async def test_F07_a_forbidden_object_keeps_its_last_good_version(watched):
    await watched.refresh()
    watched.store.change(ORDERS, enabled=False)
    watched.store.unreadable[ORDERS] = "forbidden"
    await watched.refresh()
    assert watched.client().enabled
    assert watched.refused == [Refusal.UNREADABLE]


async def test_F09_a_start_without_the_store_knows_nothing_until_it_is_back(watched):
    watched.store.outage = "EndpointConnectionError"
    await watched.fails(StoreUnavailable)
    assert watched.credentials.current() is None
    watched.store.outage = None
    await watched.refresh()
    assert watched.client() is not None


async def test_F09_a_start_on_an_empty_bucket_is_no_start(tmp_path):
    watched = Watched(tmp_path)
    watched.store.objects.clear()
    assert (await watched.fails(StoreUnavailable)).code == "no_realm"
    assert not watched.credentials.loaded


async def test_F56_the_bucket_of_another_environment_is_no_start(tmp_path):
    watched = Watched(tmp_path, environment="live")
    assert (await watched.fails(StoreUnavailable)).code == "no_realm"
    assert watched.refused == [Refusal.WRONG_ENVIRONMENT] * 3


async def test_F56_a_realm_that_changes_its_environment_keeps_its_last_good_version(watched):
    await watched.refresh()
    watched.store.change("realms/services/realm.json", environment="live", token_lifetime=60)
    await watched.refresh()
    assert watched.credentials.current().realms["/services"].realm.token_lifetime == HOUR
    assert watched.refused == [Refusal.WRONG_ENVIRONMENT]


async def test_T26_a_user_with_the_name_of_a_client_is_refused_and_counted_once(watched):
    await watched.refresh()
    bootstrap.write_user(watched.folder, "services", "orders", hashes=[], created_at=NOW)
    watched.store.load_folder(watched.folder)
    await watched.refresh()
    await watched.refresh()
    assert "orders" not in watched.credentials.current().realms["/services"].users
    assert watched.client() is not None
    assert watched.refused == [Refusal.NAME_TAKEN]
    assert watched.credentials.refused == 1


async def test_a_removal_that_left_no_realm_once_is_still_applied_when_a_realm_is_back(tmp_path):
    watched = Watched(tmp_path, removal_share=1.0)
    await watched.refresh()
    realms = {key: body for key, body in watched.store.objects.items() if key.endswith("realm.json")}
    for key in realms:
        watched.store.delete(key)
    watched.store.delete(ORDERS)
    assert (await watched.fails(StoreUnavailable)).code == "no_realm"
    for key, body in realms.items():
        watched.store.put(key, body)
    await watched.refresh()
    assert watched.client() is None


async def test_refreshing_an_unchanged_registry_reads_nothing_and_makes_nothing_new(watched):
    await watched.refresh()
    registry = watched.credentials.current()
    watched.store.reads.clear()
    await watched.refresh()
    assert watched.store.reads == []
    assert watched.credentials.current() is registry
