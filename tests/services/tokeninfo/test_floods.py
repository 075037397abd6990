"""What comes in masses costs little and leaves nothing behind: counted, never timed."""

import asyncio
import random

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from tests.services.tokeninfo.conftest import CALLER, bearer
from tests.services.tokeninfo.conftest import answered_at_once as at_once
from tests.support.access_tokens import ISSUER, KEY, KEYS, NOW, claims, header, token
from tests.support.hostile_tokens import BASE64URL, HOSTILE
from tokenry.errors import UnknownKey
from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.serving.quick import QUICK
from tokenry.serving.turns import PER_TURN, Turns
from tokenry.sources.key_conversation import COOLDOWN_SECONDS
from tokenry.sources.keys import KeySource
from tokenry.testing.clock import FakeClock
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy

FLOOD = 5_000
NUMBERS = random.Random(1)  # noqa: S311 -- the same ones in every run


def changed(good, number):
    """Return a bad token of its own: the good one with another signature."""
    head, body, _ = good.split(".")
    signature = NUMBERS.randbytes(31) + number.to_bytes(4, "big") + NUMBERS.randbytes(29)
    return f"{head}.{body}.{b64url_encode(signature)}"


async def test_distinct_bad_tokens_drive_no_good_one_out_and_leave_nothing(service):
    quick = service.app[QUICK]
    verified = quick._validation._validator._verified
    good = token()
    for _ in range(3):
        assert at_once(service, good) is not None
    (kept,) = quick._finished._young.values()
    (signature,) = verified._young.values()
    for number in range(FLOOD):
        assert at_once(service, changed(good, number)).startswith(b"HTTP/1.1 401 ")
    assert (len(quick._finished), len(verified)) == (1, 1)
    assert quick._finished.get(good) is kept
    assert verified.get(good) is signature
    assert at_once(service, good) is not None
    for memory in (quick._finished, verified):
        assert len(memory._seen) + len(memory._seen_before) <= 1, "bad tokens leave no trace at all"


async def test_distinct_good_tokens_leave_no_more_than_the_bound(service):
    quick = service.app[QUICK]
    verified = quick._validation._validator._verified
    for memory in (quick._finished, verified):
        memory._limit = 50
    for number in range(1000):
        access_token = token(jti=f"n{number}")
        for _ in range(2):
            assert at_once(service, access_token) is not None
    for memory in (quick._finished, verified):
        assert len(memory) <= 100
        assert len(memory._seen) + len(memory._seen_before) <= 2 * 4 * 50


async def test_every_hostile_token_is_refused_on_a_connection_that_stays_open(service):
    assert (await service.info(token())).status == 200
    for name, (text, _) in HOSTILE.items():
        if not text or len(text) > 15_000 or not text.isascii() or set(text) & set("\r\n\0") or text != text.strip():
            continue
        answer = await service.info(text)
        expected = 200 if name in AUDIENCES_ARE_NOT_CHECKED else 401
        assert answer.status == expected, name
    assert (await service.info(token())).status == 200


AUDIENCES_ARE_NOT_CHECKED = {name for name, (_, reason) in HOSTILE.items() if reason == "wrong_audience"}


class Script:
    """An issuer's JWK Set as a test wants it to be."""

    def __init__(self):
        self.answer, self.asked = Response(status=200, headers={}, body=KEYS.to_jwks()), 0

    def fetch(self, _request):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self):
        pass


def body(content):
    return Response(status=200, headers={}, body=content)


GOOD_KEY = KEY.public.to_jwk()
BAD_SETS = {
    "empty": body(b'{"keys":[]}'),
    "not JSON": body(b"<html>"),
    "of malformed keys": body(dump_json({"keys": [{"kty": "EC"}, {"kty": "oct", "k": "AA"}, 5]})),
    "partly malformed": body(dump_json({"keys": [{"kty": "EC", "crv": "P-256"}, GOOD_KEY, {"kty": "RSA"}]})),
    "huge": body(b'{"keys":[' + b" " * 300_000 + b"]}"),
    "of 1,000 keys": body(dump_json({"keys": [GOOD_KEY | {"kid": str(n)} for n in range(1000)]})),
    "slow": FetchFailed(Failure.TIMEOUT, "too slow"),
    "gone": FetchFailed(Failure.CONNECT, "gone"),
    "an error": Response(status=500, headers={}, body=b""),
}


@pytest.mark.parametrize("name", BAD_SETS)
async def test_V29_a_key_set_that_is_not_good_changes_nothing_for_known_keys(start, name):
    clock, script = FakeClock(start=NOW), Script()
    source = KeySource(ISSUER, jwks_uri=f"{ISSUER}/keys", refresh_seconds=30, fetcher=script, clock=clock)
    source._poller.step()
    async with start() as service:
        service.keys.held = source.snapshot()
        assert (await service.info(token())).status == 200
        script.answer = BAD_SETS[name]
        for _ in range(3):
            clock.advance(seconds=40)
            source._poller.step()
        assert script.asked >= 3
        service.keys.held = source.snapshot()
        assert (await service.info(token())).status == 200
        assert (await service.info(token(jti="fresh"))).status == 200


async def test_V14_random_kids_cause_one_fetch_in_a_cooldown(clock):
    script = Script()
    source = KeySource(ISSUER, jwks_uri=f"{ISSUER}/keys", refresh_seconds=300, fetcher=script, clock=clock)
    source._poller.step()
    policy = ValidationPolicy(
        issuers=(TrustedIssuer(issuer=ISSUER, max_token_lifetime=3600),), audience=ANY_AUDIENCE, requires_list=False
    )

    class NoList:
        def snapshot(self):
            return None

        def start(self):
            pass

        def stop(self):
            pass

    validator = TokenValidator.from_sources(policy, keys=source, revocations=NoList(), clock=clock)
    payload = b64url_encode(dump_json(claims()))
    source._poller.start = source._poller.wake = lambda: None  # the test is the thread
    for _ in range(3):
        before = script.asked
        for _ in range(500):
            kid = "".join(NUMBERS.choices(BASE64URL, k=20))
            with pytest.raises(UnknownKey):
                validator.validate(f"{b64url_encode(dump_json(header(kid=kid)))}.{payload}.{'A' * 86}")
            source._poller.step()
        assert script.asked == before + 1
        clock.advance(seconds=COOLDOWN_SECONDS)


async def test_known_tokens_are_answered_before_many_new_ones(service):
    """A few new ones in a turn of the event loop; the others wait, and those that are known do not wait for them."""
    known = token()
    for _ in range(3):
        at_once(service, known)
    ask = service.app[QUICK]

    def asked(access_token, **how):
        return ask("GET", "/oauth2/tokeninfo", CIMultiDictProxy(CIMultiDict(bearer(access_token))), CALLER, **how)

    await asyncio.sleep(0)
    new = [changed(known, number) for number in range(50)]
    found = [asked(each) for each in new]
    begun = [each for each in found if isinstance(each, bytes)]
    assert 0 < len(begun) <= PER_TURN
    assert all(isinstance(each, Turns) for each in found[len(begun) :])
    assert asked(known).startswith(b"HTTP/1.1 200 ")
    assert asked(new[-1], waited=True).startswith(b"HTTP/1.1 401 ")
    await asyncio.sleep(0)
    assert isinstance(asked(new[-1]), bytes), "the next turn takes new ones again"


async def test_of_many_new_tokens_on_many_connections_each_gets_its_answer(service):
    """By both ways: a POST is never answered at once."""
    good = [token(jti=f"many-{number}") for number in range(20)]
    asked = [(each, 200) for each in good] + [(changed(each, number), 401) for number, each in enumerate(good)]
    for method in ("GET", "POST"):
        answers = [service.ask(method, "/oauth2/tokeninfo", headers=bearer(each)) for each, _ in asked]
        assert [each.status for each in await asyncio.gather(*answers)] == [status for _, status in asked]
