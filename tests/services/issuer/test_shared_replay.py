"""An assertion that counts once in all processes (contract: "or once at all with a shared replay store")."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.services.issuer.support import running, settings
from tests.services.issuer.test_private_key_jwt import KEY, ask, claims
from tests.services.issuer.test_token_endpoint import ORDERS, refused
from tests.support.registry_store import MemoryRegistry
from tokenry_issuer.replay import UsedBefore
from tokenry_issuer.shared_replay import ReplayUnknown, SharedReplay
from tokenry_registry.ports import StoreUnavailable, WriteRefused


async def issuers(stack, *stores):
    """Start an issuer for each of *stores*, all with the same clients."""
    started = []
    for store in stores:
        issuer = await stack.enter_async_context(running(replay=store))
        issuer.store.change(ORDERS, jwks=KEY.jwks)
        await issuer.refresh()
        started.append(issuer)
    return started


async def test_C10_an_assertion_is_used_once_in_all_processes():
    store = MemoryRegistry()
    async with AsyncExitStack() as stack:
        one, two = await issuers(stack, store, store)
        assertion = KEY.sign(claims(1))
        assert (await ask(one, assertion)).status == 200
        assert refused(await ask(two, assertion), 401, "invalid_client")
        assert refused(await ask(one, assertion), 401, "invalid_client")
        assert (await ask(two, KEY.sign(claims(2)))).status == 200
        assert counted(one, "fresh") == counted(two, "fresh") == counted(two, "used") == 1
    # Neither who nor which is written down.
    assert not any(b"orders" in body or b"id-1" in body for body, _ in store.objects.values())
    assert not any("orders" in key or "id-1" in key for key in store.objects)
    assert store.closed


async def test_of_two_processes_at_the_same_moment_one_wins():
    store = MemoryRegistry()
    async with AsyncExitStack() as stack:
        started = await issuers(stack, *[store] * 4)
        for number in range(5):
            assertion = KEY.sign(claims(number))
            answers = await asyncio.gather(*[ask(issuer, assertion) for issuer in started])
            assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]


async def test_without_a_shared_store_it_is_once_in_each_process():
    async with AsyncExitStack() as stack:
        one, two = await issuers(stack, None, None)
        assertion = KEY.sign(claims(1))
        assert [(await ask(issuer, assertion)).status for issuer in (one, two, one)] == [200, 200, 401]


@pytest.mark.parametrize("error", [StoreUnavailable("timeout"), WriteRefused("AccessDenied")])
async def test_while_the_store_is_away_nothing_is_let_through(error):
    store = MemoryRegistry()

    def fail(_operation, _key):
        raise error

    async with AsyncExitStack() as stack:
        (issuer,) = await issuers(stack, store)
        store.before = fail
        answer = await ask(issuer, KEY.sign(claims(1)))
        assert refused(answer, 503, "temporarily_unavailable")
        assert answer.headers["Retry-After"] == "2"
        ready = (await issuer.call("GET", "/readyz?verbose")).json
        assert ready["checks"]["used_assertions"]["status"] == "degraded"
        assert counted(issuer, "unavailable") == 1
        # A client with a secret notices nothing.
        assert (await issuer.token()).status == 400  # its realm is not named: it got that far
        store.before = lambda _operation, _key: None
        # Used up here all the same: nobody knows whether the write took effect.
        assert refused(await ask(issuer, KEY.sign(claims(1))), 401, "invalid_client")
        assert (await ask(issuer, KEY.sign(claims(2)))).status == 200
        ready = (await issuer.call("GET", "/readyz?verbose")).json
        assert ready["checks"]["used_assertions"]["status"] == "ok"


class Slow(MemoryRegistry):
    async def put(self, key, body, *, replaces):
        await asyncio.Event().wait()


async def test_a_slow_store_is_not_waited_for():
    told = []
    shared = SharedReplay(Slow(), observe=told.append, deadline_seconds=0.01)
    with pytest.raises(ReplayUnknown):
        await shared.use("client /x orders", "1", expires_at=1.0)
    assert told == ["unavailable"]
    assert shared.failing


async def test_a_store_that_is_away_or_forbids_reading_delays_no_start():
    store = MemoryRegistry()
    shared = SharedReplay(store, observe=lambda _result: None)
    await shared.connect()  # there is nothing to read
    store.before = lambda _operation, _key: (_ for _ in ()).throw(StoreUnavailable("timeout"))
    await shared.connect()
    assert store.objects == {}


async def test_a_write_whose_answer_was_lost_lets_no_second_use_through():
    store = MemoryRegistry()

    def lose(operation, _key):
        raise StoreUnavailable("timeout")

    shared = SharedReplay(store, observe=lambda _result: None)
    store.after = lose
    with pytest.raises(ReplayUnknown):
        await shared.use("client /x orders", "1", expires_at=1.0)
    store.after = lambda _operation, _key: None
    with pytest.raises(UsedBefore):
        await shared.use("client /x orders", "1", expires_at=1.0)
    await shared.use("client /x stock", "1", expires_at=1.0)  # another owner may choose the same id


@pytest.mark.parametrize("url", ["file:///somewhere/", "s3://bucket", "s3://bucket/", "https://x/y/", "s3://b/p?x"])
def test_it_has_a_prefix_of_its_own_in_a_bucket(url):
    with pytest.raises(ValueError, match="assertion_replay_url"):
        settings(assertion_replay_url=url)


def test_the_role_may_only_write_what_is_not_there():
    policy = json.loads((Path(__file__).parents[3] / "deploy/iam/issuer-replay.json").read_text())
    (statement,) = policy["Statement"]
    assert statement["Action"] == "s3:PutObject"
    assert statement["Condition"] == {"Null": {"s3:if-none-match": "false"}}


def counted(issuer, result):
    value = issuer.issuer.metrics.registry.get_sample_value("tokenry_assertions_shared_total", {"result": result})
    return int(value or 0)
