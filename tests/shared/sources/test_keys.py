import asyncio
import json
import threading

import pytest

from tokenry.errors import ConfigurationError, Unready, ValidatorNotReady
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.sources.events import EventKind
from tokenry.sources.keys import KeySource, KeySources
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer


class Script:
    """A fetcher that serves documents by the end of the URL's path, and can be broken."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.asked = []
        self.broken = {}
        self.gate = None

    def fetch(self, request):
        path = request.url.rsplit("/", 1)[-1]
        self.asked.append(path)
        if self.gate is not None:
            assert self.gate.wait(5)
        answer = self.broken.get(path)
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else self.issuer.fetch(request)

    def cancel(self):
        pass


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture
def script(issuer):
    return Script(issuer)


@pytest.fixture
def source(issuer, script, clock):
    source = KeySource(issuer.issuer, fetcher=script, clock=clock)
    yield source
    source.stop()


def step(source, times=1):
    for _ in range(times):
        wait = source._poller.step()
    return wait


OK_JSON = Headers([("content-type", "application/json")])


def test_the_metadata_are_asked_first_and_then_the_keys(source, script, issuer):
    assert source.snapshot() is None
    step(source, 2)
    assert script.asked == ["oauth-authorization-server", "jwks.json"]
    assert source.keys().value.kids(issuer.issuer) == issuer.key_set().kids(issuer.issuer)
    assert source.metadata.token_endpoint.endswith("/oauth2/token")


def test_the_other_well_known_place_is_tried_when_the_first_is_not_there(source, script):
    script.broken["oauth-authorization-server"] = Response(status=404)
    step(source)
    source._clock.advance(60)
    step(source, 2)
    assert script.asked == ["oauth-authorization-server", "openid-configuration", "jwks.json"]
    assert source.snapshot() is not None


def test_metadata_of_another_issuer_bring_no_keys(source, script):
    other = {"issuer": "https://evil.test", "jwks_uri": "https://evil.test/jwks.json"}
    script.broken["oauth-authorization-server"] = Response(status=200, body=json.dumps(other).encode())
    step(source)
    source._clock.advance(60)
    step(source)
    assert "jwks.json" not in script.asked
    assert source.snapshot() is None
    assert source.counters.rejected == {"malformed": 2}


def test_with_a_known_jwks_uri_no_metadata_are_asked(issuer, script, clock):
    source = KeySource(issuer.issuer, jwks_uri=f"{issuer.issuer}/.well-known/jwks.json", fetcher=script, clock=clock)
    step(source)
    assert script.asked == ["jwks.json"]
    assert source.snapshot() is not None


def test_keys_are_read_again_within_the_refresh_interval(source, script, clock):
    step(source, 2)
    wait = step(source)
    assert 54 <= wait <= 60
    clock.advance(wait)
    step(source)
    assert script.asked[-1] == "jwks.json"
    assert len(script.asked) == 3


def test_an_unchanged_set_is_confirmed_by_304_and_gets_younger(source, clock):
    step(source, 2)
    first = source.snapshot()
    clock.advance(60)
    step(source)
    second = source.snapshot()
    assert second.value is first.value
    assert second.as_of == first.as_of + 60
    assert source.counters.polls["304"] == 1


def test_the_same_keys_with_another_etag_stay_the_same_object(source, script, issuer, clock):
    step(source, 2)
    held = source.snapshot().value
    script.broken["jwks.json"] = Response(status=200, headers=OK_JSON, body=issuer.key_set().to_jwks())
    clock.advance(60)
    step(source)
    assert source.snapshot().value is held


def test_a_rotated_key_arrives_and_a_removed_one_goes(source, issuer, clock):
    step(source, 2)
    old = issuer.key_set().kids(issuer.issuer)
    new = issuer.rotate_key(keep_old=False)
    clock.advance(60)
    step(source)
    assert source.snapshot().value.kids(issuer.issuer) == {new}
    assert new not in old


@pytest.mark.parametrize(
    "answer",
    [
        Response(status=200, body=b'{"keys":[]}'),
        Response(status=200, body=b"{}"),
        Response(status=200, body=b"<html>"),
        Response(status=200, body=b""),
        Response(status=500, body=b"oops"),
        Response(status=302, headers=Headers([("location", "https://evil.test/")])),
        Response(status=204),
        FetchFailed(Failure.TIMEOUT, "late"),
        FetchFailed(Failure.TOO_LARGE, "large"),
    ],
    ids=["empty", "no member", "html", "nothing", "500", "redirect", "204", "timeout", "oversized"],
)
def test_a_bad_answer_never_replaces_good_keys(source, script, clock, answer):
    step(source, 2)
    held = source.snapshot()
    script.broken["jwks.json"] = answer
    clock.advance(60)
    step(source)
    assert source.snapshot() is held


@pytest.mark.parametrize("status", [201, 203, 206, 302, 404, 500])
def test_only_a_200_brings_keys(source, script, clock, status):
    step(source, 2)
    held = source.snapshot()
    others = KeySet.of(source.issuer, [PrivateKey.generate().public]).to_jwks()
    script.broken["jwks.json"] = Response(status=status, body=others)
    clock.advance(60)
    step(source)
    assert source.snapshot() is held


def test_two_different_keys_under_one_id_refuse_the_set(source, script, issuer, clock):
    step(source, 2)
    held = source.snapshot()
    jwk = issuer.key_set().find(issuer.issuer, next(iter(issuer.key_set().kids(issuer.issuer)))).to_jwk()
    other = PrivateKey.generate().public.to_jwk() | {"kid": jwk["kid"]}
    body = json.dumps({"keys": [jwk, other]}).encode()
    script.broken["jwks.json"] = Response(status=200, body=body)
    clock.advance(60)
    step(source)
    assert source.snapshot() is held
    assert source.counters.rejected == {"malformed": 1}


def test_a_304_that_was_not_asked_for_brings_nothing(source, script):
    step(source)
    script.broken["jwks.json"] = Response(status=304)
    step(source)
    assert source.snapshot() is None


def test_failures_are_retried_with_growing_pauses_no_longer_than_half_the_interval(source, script, clock):
    step(source, 2)
    script.broken["jwks.json"] = Response(status=503)
    clock.advance(60)
    pauses = []
    for _ in range(8):
        step(source)
        pauses.append(step(source))
        clock.advance(pauses[-1])
    assert pauses[0] <= 1
    assert max(pauses) <= 30
    assert pauses[-1] >= 15


def test_lost_metadata_do_not_keep_the_keys_from_being_read(source, script, issuer, clock):
    step(source, 2)
    new = issuer.rotate_key()
    script.broken["oauth-authorization-server"] = Response(status=500)
    clock.advance(3601)
    step(source, 2)
    assert new in source.snapshot().value.kids(issuer.issuer)


def test_F30_keys_beyond_the_hard_age_are_not_handed_out(source, issuer, clock):
    step(source, 2)
    issuer.down = True
    clock.advance(hours=24)
    assert source.snapshot() is not None
    clock.advance(1)
    assert source.snapshot() is None


def test_keys_come_back_after_an_outage(source, issuer, clock):
    step(source, 2)
    issuer.down = True
    clock.advance(hours=25)
    step(source, 2)
    issuer.down = False
    clock.advance(60)
    step(source, 2)
    assert source.snapshot() is not None


def test_F30_F31_a_flood_of_unknown_keys_causes_one_fetch_in_a_cooldown(source, script, clock):
    step(source, 2)
    conversation = source._conversation
    from tokenry.http.poller import Moment

    for _ in range(1000):
        conversation.want_refetch(Moment.of(clock))
    before = len(script.asked)
    step(source, 5)
    assert len(script.asked) - before == 1
    for _ in range(1000):
        assert conversation.want_refetch(Moment.of(clock)) is None
    step(source, 5)
    assert len(script.asked) - before == 1
    clock.advance(10)
    assert conversation.want_refetch(Moment.of(clock)) is not None
    step(source)
    assert len(script.asked) - before == 2


def test_F31_a_refetch_finds_a_key_that_was_published_since(source, script, issuer):
    source.start()
    _until(lambda: source.snapshot() is not None)
    new = issuer.rotate_key()
    source.refetch(issuer.issuer)
    assert new in source.snapshot().value.kids(issuer.issuer)


def test_many_who_wait_share_one_fetch(source, script, issuer):
    source.start()
    _until(lambda: source.snapshot() is not None)
    before = len(script.asked)
    script.gate = threading.Event()
    threads = [threading.Thread(target=source.refetch, args=(issuer.issuer,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    _until(lambda: len(script.asked) > before)
    script.gate.set()
    for thread in threads:
        thread.join(5)
    assert len(script.asked) - before == 1


def test_a_refetch_that_fails_says_that_it_cannot_be_told(source, script, issuer):
    source.start()
    _until(lambda: source.snapshot() is not None)
    script.broken["jwks.json"] = FetchFailed(Failure.CONNECT, "down")
    for _ in range(2):  # the second one within the cooldown
        with pytest.raises(ValidatorNotReady) as caught:
            source.refetch(issuer.issuer)
        assert caught.value.cause is Unready.KEY_FETCH_FAILED


def test_a_refetch_that_takes_too_long_is_not_waited_for(source, script, issuer):
    source.start()
    _until(lambda: source.snapshot() is not None)
    script.gate = threading.Event()
    with pytest.raises(ValidatorNotReady):
        source.refetch(issuer.issuer, timeout=0.05)
    script.gate.set()


async def test_coroutines_share_one_fetch_and_one_that_gives_up_does_not_disturb_the_others(source, script, issuer):
    source.start()
    await asyncio.to_thread(_until, lambda: source.snapshot() is not None)
    before = len(script.asked)
    script.gate = threading.Event()
    impatient = asyncio.create_task(source.arefetch(issuer.issuer, timeout=0.02))
    patient = [asyncio.create_task(source.arefetch(issuer.issuer, timeout=5)) for _ in range(50)]
    with pytest.raises(ValidatorNotReady):
        await impatient
    script.gate.set()
    await asyncio.gather(*patient)
    assert len(script.asked) - before == 1


def test_another_issuers_unknown_key_causes_nothing(source, script):
    source.refetch("https://other.test")
    source.request_refetch("https://other.test")
    assert script.asked == []


def test_events_are_told_and_a_listener_that_fails_stops_nothing(issuer, script, clock, caplog):
    events = []

    def listen(event):
        events.append(event.kind)
        raise ZeroDivisionError

    source = KeySource(issuer.issuer, fetcher=script, clock=clock, on_event=listen)
    step(source, 2)
    assert events == [EventKind.METADATA, EventKind.LOADED]
    assert source.snapshot() is not None
    assert "the listener for events of keys failed" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [{"refresh_seconds": 0.9}, {"refresh_seconds": 301}, {"jwks_uri": "ftp://h/"}, {"metadata_uri": "h"}],
)
def test_unusable_settings_are_refused(arguments):
    with pytest.raises(ConfigurationError):
        KeySource("https://issuer.test", **arguments)


def test_several_issuers_are_one_source_each_under_its_own_name(clock):
    one, two = (
        FakeIssuer(clock=clock, issuer="https://one.test"),
        FakeIssuer(clock=clock, issuer="https://two.test"),
    )
    sources = KeySources([KeySource(each.issuer, fetcher=Script(each), clock=clock) for each in (one, two)])
    assert sources.snapshot() is None
    step(sources.sources[0], 2)
    assert sources.snapshot().value.has_issuer(one.issuer)
    assert not sources.snapshot().value.has_issuer(two.issuer)
    clock.advance(5)
    step(sources.sources[1], 2)
    joined = sources.snapshot()
    assert joined.value.has_issuer(two.issuer)
    assert joined is sources.snapshot()
    assert joined.as_of == clock.now() - 5
    kid = next(iter(one.key_set().kids(one.issuer)))
    assert joined.value.find(two.issuer, kid) is None


def test_a_confirmation_of_one_issuer_keeps_the_joined_set_the_same_object(clock, issuer, script):
    sources = KeySources([KeySource(issuer.issuer, fetcher=script, clock=clock)])
    step(sources.sources[0], 2)
    held = sources.snapshot().value
    clock.advance(60)
    step(sources.sources[0])
    assert sources.snapshot().value is held
    assert isinstance(held, KeySet)


def _until(condition):
    gate = threading.Event()
    for _ in range(1000):
        if condition():
            return
        gate.wait(0.005)
    raise AssertionError("it did not happen within 5 s")
