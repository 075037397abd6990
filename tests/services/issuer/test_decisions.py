"""A request that comes again is answered as the first time, and only while it would be decided alike."""

import gc
import re
from collections.abc import Mapping

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from structlog.testing import capture_logs

from tests.services.issuer.support import (
    DAY,
    FORM,
    NOW,
    OTHER_SECRET,
    SECRET,
    basic,
    decoded,
    encoded,
    running,
    weak_argon2,
)
from tests.services.issuer.test_quick import PLAIN, Transport, quick, without_token
from tests.services.issuer.test_withheld_tokens import key, revocations, rule
from tokenry.serving.quick import QUICK_FORMS
from tokenry_issuer.decisions import MAX_REQUEST_BYTES, REMEMBER_SECONDS, Decision, Decisions
from tokenry_issuer.registry import Registry
from tokenry_registry.bootstrap import hash_secret

CLIENT = "realms/services/clients/orders.json"
SLOW_CLIENT = "realms/services/clients/slow.json"
ADDRESS = "192.0.2.7"


@pytest.fixture
async def issuer():
    async with running(with_list=True) as issuer:
        issuer.revocations.publish(revocations())
        yield issuer


def identity(issuer, form=PLAIN, *, client=("orders", SECRET), host="localhost"):
    return issuer.issuer.decisions.identity([] if client is None else [basic(*client)], host, encoded(form))


def again(issuer, form=PLAIN, *, address=ADDRESS, **how):
    """What the memory alone answers."""
    return issuer.issuer.issuance.again(identity(issuer, form, **how), address)


def claims_of(answer):
    return decoded(re.search(rb'"access_token": ?"([^"]*)"', answer)[1].decode())[1]


async def remembered(issuer, form=PLAIN, **how):
    assert again(issuer, form, **how) is None
    assert quick(issuer, form, **how).startswith(b"HTTP/1.1 200 ")
    assert again(issuer, form, **how) is not None


async def as_a_new_one(issuer, status, form=PLAIN, *, client=("orders", SECRET)):
    """Nothing is answered from memory, and the request is answered as if it had never come before."""
    assert again(issuer, form, client=client) is None
    answer = await issuer.token(form, client=client)
    assert answer.status == status
    return answer


@pytest.mark.parametrize(
    ("form", "client"),
    [
        (PLAIN, ("orders", SECRET)),
        (PLAIN | {"scope": "orders.write orders.read"}, ("orders", SECRET)),
        (PLAIN | {"resource": "https://a.example.org"}, ("orders", SECRET)),
        ({"grant_type": "client_credentials", "realm": "plan-b", "scope": "uid"}, ("orders", SECRET)),
        ({"grant_type": "client_credentials", "realm": "modern"}, ("orders", SECRET)),
        (PLAIN | {"client_id": "orders", "client_secret": SECRET}, None),
    ],
)
async def test_the_answer_its_record_and_the_counts_are_those_of_the_first_time(issuer, form, client):
    def counted():
        text = issuer.issuer.metrics.render().decode()
        lines = [line for line in text.splitlines() if line.startswith(("tokenry_token", "http_server_request"))]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    answers, records, counts = [], [], []
    for _ in range(3):
        before = counted()
        with capture_logs() as logs:
            answers.append(quick(issuer, form, client=client))
        records.append([{n: v for n, v in each.items() if n not in {"jti", "seconds"}} for each in logs])
        grew = {name: value - before.get(name, 0.0) for name, value in counted().items() if "_created" not in name}
        counts.append({name: value for name, value in grew.items() if value and "_sum" not in name})
    assert again(issuer, form, client=client) is not None, "it was remembered"
    heads, bodies = zip(*(answer.split(b"\r\n\r\n") for answer in answers), strict=True)
    assert len({without_token(body) for body in bodies}) == 1
    assert len({re.sub(rb"X-Request-Id: \w+", b"", head) for head in heads}) == 1
    tokens = [claims_of(answer) for answer in answers]
    assert len({claims.pop("jti") for claims in tokens}) == 3
    assert tokens[0] == tokens[1] == tokens[2]
    assert list(tokens[0]) == list(tokens[1])
    assert records[0] == records[1] == records[2]
    assert [each["event"] for each in records[2]] == ["token_issued", "request"]
    assert counts[0] == counts[1] == counts[2]
    # And those of the ordinary way, whose answers are not remembered.
    ordinary = await issuer.token(form, client=client, headers={"Connection": "close"})
    assert without_token(ordinary.body) == without_token(bodies[2])
    assert {**ordinary.claims, "jti": ""} == {**tokens[2], "jti": ""}


async def test_each_token_has_its_own_moment(issuer):
    await remembered(issuer)
    issuer.clock.advance(7.5)
    claims = claims_of(again(issuer))
    assert (claims["iat"], claims["exp"]) == (NOW + 7, NOW + 7 + 3600)


async def test_the_record_names_the_caller_of_each_time(issuer):
    await remembered(issuer)
    with capture_logs() as logs:
        again(issuer, address="198.51.100.9")
    assert [each["client_address"] for each in logs] == ["198.51.100.9"]


async def test_another_request_is_another_one(issuer):
    await remembered(issuer)
    assert again(issuer, PLAIN | {"scope": "uid"}) is None
    assert again(issuer, client=("orders", OTHER_SECRET)) is None
    assert again(issuer, client=("order", SECRET)) is None
    assert again(issuer, host="services.example.org") is None
    await as_a_new_one(issuer, 401, client=("orders", OTHER_SECRET))


def test_no_part_can_be_moved_into_another():
    decisions = Decisions(b"k" * 32)
    whole = decisions.identity(["Basic a"], "b", b"c")
    assert whole == decisions.identity(["Basic a"], "b", b"c") != Decisions(b"l" * 32).identity(["Basic a"], "b", b"c")
    others = [(["Basic "], "ab", b"c"), (["Basic a"], "", b"b\nc"), (["Basic a"], "bc", b""), ([], "Basic a\nb", b"c")]
    others += [([], "b", b"c"), (["Basic a\n"], "b", b"c"), (["Basic a", "Basic a"], "b", b"c")]
    assert whole not in {decisions.identity(*other) for other in others}
    assert decisions.identity(["Basic a\udcff"], None, b"") is not None  # any byte a header may have
    assert decisions.identity([], None, b"x" * MAX_REQUEST_BYTES) is None


# --- what ends it -------------------------------------------------------------------------------------------------


async def test_it_ends_after_a_minute(issuer):
    await remembered(issuer)
    issuer.clock.advance(REMEMBER_SECONDS - 0.1)
    assert again(issuer) is not None
    issuer.clock.advance(0.1)
    await as_a_new_one(issuer, 200)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"enabled": False}, 401),
        ({"secrets": []}, 401),
        ({"secrets": [{"hash": hash_secret(OTHER_SECRET), "created_at": NOW}]}, 401),
        ({"scopes": ["uid"], "default_scopes": ["uid"]}, 200),
        ({"grant_types": ["password"]}, 400),
    ],
)
async def test_it_ends_with_a_new_version_of_the_credentials(issuer, change, status):
    await remembered(issuer)
    issuer.store.change(CLIENT, **change)
    await issuer.refresh()
    assert again(issuer) is None
    assert len(issuer.issuer.decisions) == 0, "nothing of the former credentials is held on to"
    answer = await as_a_new_one(issuer, status)
    assert status != 200 or answer.json["scope"] == "uid"


async def test_a_client_that_was_deleted_gets_nothing(issuer):
    await remembered(issuer)
    issuer.store.delete(CLIENT)
    await issuer.refresh()
    await as_a_new_one(issuer, 401)


async def test_a_refresh_that_finds_nothing_new_ends_nothing(issuer):
    await remembered(issuer)
    await issuer.refresh()
    assert again(issuer) is not None


async def test_it_ends_at_the_moment_at_which_the_secret_does(issuer):
    issuer.store.change(CLIENT, secrets=[{"hash": hash_secret(SECRET), "created_at": NOW, "expires_at": NOW + 30}])
    await issuer.refresh()
    await remembered(issuer)
    issuer.clock.advance(29.9)
    assert again(issuer) is not None
    issuer.clock.advance(0.1)
    await as_a_new_one(issuer, 401)


async def test_it_ends_with_the_first_of_two_secrets_and_begins_anew_with_the_other(issuer):
    secrets = [
        {"hash": hash_secret(OTHER_SECRET), "created_at": NOW, "expires_at": NOW + 30},
        {"hash": hash_secret(SECRET), "created_at": NOW},
    ]
    issuer.store.change(CLIENT, secrets=secrets)
    await issuer.refresh()
    await remembered(issuer)
    issuer.clock.advance(30)
    assert again(issuer) is None
    await remembered(issuer)


async def test_a_clock_that_went_back_ends_it(issuer):
    await remembered(issuer)
    issuer.clock.set_wall_clock(NOW - 10)
    assert again(issuer) is None


async def test_it_ends_when_a_slow_check_is_due_again():
    async with running(with_list=True, secret_check_memory=20) as issuer:
        issuer.revocations.publish(revocations())
        assert (await issuer.token(PLAIN, client=("slow", SECRET))).status == 200  # the work is done, and remembered
        issuer.clock.advance(15)
        await remembered(issuer, client=("slow", SECRET))
        issuer.clock.advance(5)
        assert again(issuer, client=("slow", SECRET)) is None
        assert quick(issuer, client=("slow", SECRET)) is None, "the slow check waits in its queue"


async def test_a_slow_secret_that_is_never_remembered_is_not_remembered_here():
    async with running(with_list=True, secret_check_memory=0) as issuer:
        issuer.revocations.publish(revocations())
        for _ in range(2):
            assert quick(issuer, client=("slow", SECRET)) is None
            assert (await issuer.token(PLAIN, client=("slow", SECRET))).status == 200
        assert len(issuer.issuer.decisions) == 0


async def test_a_slow_hash_that_was_replaced_is_compared(issuer):
    assert (await issuer.token(PLAIN, client=("slow", SECRET))).status == 200
    await remembered(issuer, client=("slow", SECRET))
    issuer.store.change(SLOW_CLIENT, secrets=[{"hash": weak_argon2(OTHER_SECRET), "created_at": NOW}])
    await issuer.refresh()
    await as_a_new_one(issuer, 401, client=("slow", SECRET))


async def test_credentials_that_are_too_old_to_be_believed_answer_nothing():
    async with running(credentials_hard_age=60, credentials_refresh_interval=10) as issuer:
        issuer.clock.advance(30)
        await remembered(issuer)
        issuer.clock.advance(30.1)
        await as_a_new_one(issuer, 503)


# --- what is asked each time --------------------------------------------------------------------------------------


async def test_limits_on_failures_hold(issuer):
    await remembered(issuer)
    for _ in range(10):
        assert (await issuer.token(PLAIN, client=("orders", OTHER_SECRET))).status == 401
    assert again(issuer, address="127.0.0.1") is None
    assert quick(issuer, transport=Transport(("127.0.0.1", 1))).startswith(b"HTTP/1.1 429 ")
    assert again(issuer) is not None, "its usual address is served"


async def test_a_success_counts_and_makes_the_address_the_clients_own(issuer):
    await remembered(issuer)
    for _ in range(9):
        assert (await issuer.token(PLAIN, client=("orders", OTHER_SECRET))).status == 401
    assert again(issuer, address="127.0.0.1") is not None  # the tenth failure would be one too many
    assert (await issuer.token(PLAIN, client=("orders", OTHER_SECRET))).status == 401
    assert again(issuer, address="127.0.0.1") is not None


async def test_a_revocation_that_would_hit_withholds_the_token(issuer):
    await remembered(issuer)
    issuer.revocations.publish(revocations(rule(NOW + 3, sub="orders")))
    assert (await as_a_new_one(issuer, 503)).error == "temporarily_unavailable"
    issuer.clock.advance(3)
    assert claims_of(again(issuer))["iat"] == NOW + 3
    issuer.revocations.publish(revocations(rule(NOW + 3, block_until=NOW + 20, client_id="orders", realm="/services")))
    await as_a_new_one(issuer, 503)
    issuer.clock.advance(17)
    assert again(issuer) is not None


async def test_a_withheld_token_is_counted_once(issuer):
    await remembered(issuer)
    issuer.revocations.publish(revocations(rule(NOW + 3, sub="orders")))
    assert quick(issuer).startswith(b"HTTP/1.1 503 ")
    assert b"tokenry_tokens_withheld_total 1.0" in (await issuer.call("GET", "/metrics")).body


async def test_a_revoked_key_signs_no_more(issuer):
    await remembered(issuer)
    first = (await issuer.token(PLAIN)).header["kid"]
    issuer.revocations.publish(revocations(key(first)))
    token = re.search(rb'"access_token":"([^"]*)"', again(issuer))[1].decode()
    assert decoded(token)[0]["kid"] != first


async def test_the_key_that_is_due_signs(issuer):
    kids = set()
    for _ in range(2):
        quick(issuer)
        kids.add(decoded(re.search(rb'"access_token":"([^"]*)"', again(issuer))[1].decode())[0]["kid"])
        issuer.clock.advance(10 * DAY)
        await issuer.refresh()
        issuer.revocations.publish(revocations())
    assert len(kids) == 2


async def test_without_a_list_that_is_waited_for_or_with_a_clock_that_is_off_nothing_is_signed(issuer):
    await remembered(issuer)
    issuer.revocations.publish(revocations(), ahead=60)
    await as_a_new_one(issuer, 503)


async def test_a_token_that_outlives_the_memory_of_revocations_is_not_issued(issuer):
    await remembered(issuer)
    issuer.revocations.publish(revocations().at_epoch(1, max_token_lifetime=600))
    await as_a_new_one(issuer, 503)


# --- what is kept -------------------------------------------------------------------------------------------------


async def test_refusals_and_what_is_bound_are_not_remembered(issuer):
    for form, client in [
        (PLAIN | {"scope": "not.allowed"}, ("orders", SECRET)),
        (PLAIN, ("public", "")),
        (PLAIN, None),
        (PLAIN | {"realm": "nowhere"}, ("orders", SECRET)),
    ]:
        assert quick(issuer, form, client=client) is None or b" 200 " not in quick(issuer, form, client=client)
    headers = {"Content-Type": FORM, "Authorization": basic("orders", SECRET), "Host": "localhost", "DPoP": "x"}
    forms = issuer.app[QUICK_FORMS]
    assert forms("/oauth2/token", CIMultiDictProxy(CIMultiDict(headers)), encoded(PLAIN), Transport()) is None
    assert len(issuer.issuer.decisions) == 0


async def test_no_secret_and_no_token_is_kept(issuer):
    await remembered(issuer, PLAIN | {"client_id": "orders", "client_secret": SECRET}, client=None)
    await remembered(issuer)
    tokens = [re.search(rb'"access_token":"([^"]*)"', again(issuer))[1] for _ in range(2)]
    needles = [SECRET.encode(), basic("orders", SECRET).removeprefix("Basic ").encode(), *tokens]
    texts = [text if isinstance(text, bytes) else text.encode() for text in texts_in(issuer.issuer.decisions)]
    assert any(b"orders" in text for text in texts), "the walk finds what is there"
    assert not [needle[:6] for needle in needles for text in texts if needle in text]


def texts_in(root):
    """Yield every text that can be reached from the memory without leaving it."""
    seen, waiting = set(), [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, (type, Registry)):
            continue
        seen.add(id(found))
        if isinstance(found, (str, bytes)):
            yield found
        elif isinstance(found, (Decisions, Decision, Mapping, list, tuple)) or "__slots__" in vars(type(found)):
            waiting += gc.get_referents(found)


async def test_the_oldest_goes_when_there_are_too_many():
    decisions, registry = Decisions(b"k" * 32, max_decisions=2), Registry()
    async with running() as issuer:
        quick(issuer)
        made = next(iter(issuer.issuer.decisions._decisions.values()))
    for name in (b"a", b"b", b"a", b"c"):
        decisions.keep(name, made, registry=registry)
    found = {n: decisions.get(n, registry=registry, now=NOW, monotonic=0.0) is not None for n in (b"a", b"b", b"c")}
    assert found == {b"a": True, b"b": False, b"c": True}
    assert len(decisions) == 2
    assert decisions.get(b"a", registry=None, now=NOW, monotonic=0.0) is None
    assert len(decisions) == 0
