"""The signed list as a second source: when it is asked for, what is believed of it, and what that does."""

from urllib.parse import urlsplit

import pytest

from tokenry.errors import ConfigurationError
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.revocation.documents import ListDocument
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import jti_fingerprint
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.signed import SignedList
from tokenry.sources.events import EventKind
from tokenry.sources.revocations import RevocationSource
from tokenry.sources.signed_list import LocalFiles, SignedListPlace
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.revocations import _SALT as SALT
from tokenry.testing.revocations import _SALT_ID as SALT_ID

ISSUER = "https://issuer.example.org"
KEYS_URI = "https://issuer.example.org/list-keys"
LIST_URL = "https://cdn.example.org/revocation-list.jwt"


class Cdn:
    """What carries the list, and the issuer's list keys."""

    def __init__(self, clock):
        self.clock = clock
        self.key = PrivateKey.generate()
        self.published = [self.key]
        self.body = None
        self.keys_away = self.away = False
        self.requests = []

    def fetch(self, request):
        self.requests.append(request)
        if request.url == KEYS_URI:
            if self.keys_away:
                raise FetchFailed(Failure.TIMEOUT, "the issuer does not answer")
            return Response(status=200, body=KeySet.of(ISSUER, [k.public for k in self.published]).to_jwks())
        if self.away:
            raise FetchFailed(Failure.TIMEOUT, "the CDN does not answer")
        if self.body is None:
            return Response(status=404)
        etag = f'"{hash(self.body)}"'
        if request.headers.get("If-None-Match") == etag:
            return Response(status=304)
        return Response(status=200, headers=Headers([("ETag", etag)]), body=self.body)

    def cancel(self):
        pass

    def put(self, *revoked, key=None, **changes):
        """Put an issue there that revokes the tokens with the ids *revoked*."""
        now = int(self.clock.now())
        epoch = changes.pop("epoch", 1)
        entries = tuple(
            Entry(
                id=f"entry-{jti}", kind=Kind.JTI, fingerprint=jti_fingerprint(ISSUER, jti, salt=SALT), salt=SALT_ID,
                in_force_until=now + 3600,
            )
            for jti in revoked
        )  # fmt: skip
        content = ListDocument(
            cursor="cursor-of-the-list", epoch=epoch, salts={SALT_ID: SALT}, max_token_lifetime=3600, entries=entries
        )
        members = {
            "issuer": ISSUER, "issued_at": now, "as_of": now - 2, "next_update": now + 30, "stream": "A" * 22,
            "seq": 1, "previous": None, "content": content, **changes,
        }  # fmt: skip
        self.body = SignedList(**members).sign(key or self.key).encode()

    @property
    def reads(self):
        return sum(request.url == LIST_URL for request in self.requests)


class Service:
    """The revocation service, which can be away."""

    def __init__(self, issuer):
        self.issuer, self.away = issuer, True
        self.asked = []

    def fetch(self, request):
        self.asked.append(request.url)
        if self.away:
            raise FetchFailed(Failure.CONNECT if hasattr(Failure, "CONNECT") else Failure.TIMEOUT, "away")
        return self.issuer.fetch(request)

    def cancel(self):
        pass


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def cdn(clock):
    return Cdn(clock)


@pytest.fixture
def service(clock):
    return Service(FakeIssuer(clock=clock))


@pytest.fixture
def events():
    return []


@pytest.fixture
def make(clock, cdn, service, events):
    def make(**more):
        return RevocationSource(
            "https://r.test", fetcher=service, clock=clock, on_event=events.append, name="orders",
            signed_list=SignedListPlace(url=LIST_URL, issuer=ISSUER, keys_uri=lambda: KEYS_URI, fetcher=cdn),
            **more,
        )  # fmt: skip

    return make


@pytest.fixture
def source(make):
    return make()


def run(source, clock, seconds):
    """Let both conversations go on for *seconds*."""
    end = clock.now() + seconds
    while clock.now() < end:
        waits = [source._poller.step(), source._second.step()]
        clock.advance(min(max(min(waits), 0.25), end - clock.now() + 0.001))


def hits(source, clock, jti):
    token = JudgedToken(iss=ISSUER, jti=jti, kid="k", iat=int(clock.now()), claims={"jti": jti}, signing_input="a.b")
    held = source.snapshot()
    return held is not None and held.value.hits(token, now=clock.now()) is not None


def rejected(events):
    return [event.reason for event in events if event.source == "signed_list" and event.kind is EventKind.REJECTED]


def test_at_start_without_the_service_the_signed_list_is_the_first_list(source, clock, cdn):
    cdn.put("stolen")
    run(source, clock, 10)
    assert hits(source, clock, "stolen")
    assert not hits(source, clock, "other")
    assert source.snapshot().seq == 1


def test_a_signed_list_above_the_configured_length_is_refused_whole(make, clock, cdn, events):
    cdn.put("stolen", "lost", "found")
    source = make(max_entries=2)
    run(source, clock, 10)
    assert source.snapshot() is None
    assert set(rejected(events)) == {"malformed"}
    enough = make(max_entries=3)
    run(enough, clock, 10)
    assert hits(enough, clock, "stolen")


def test_while_the_service_answers_the_signed_list_is_not_asked_for_but_its_keys_are(source, clock, cdn, service):
    cdn.put("stolen")
    service.away = False
    run(source, clock, 300)
    assert cdn.reads == 0
    assert any(request.url == KEYS_URI for request in cdn.requests)
    assert source.snapshot().seq is None


def test_F24_when_the_service_goes_away_the_signed_list_keeps_the_age_small(source, clock, cdn, service):
    service.away = False
    run(source, clock, 5)
    service.away = True
    for number in range(1, 21):
        cdn.put("stolen", seq=number, epoch=service.issuer.revocations.epoch)
        run(source, clock, 30)
    assert hits(source, clock, "stolen")
    held = source.snapshot()
    assert held.age(now=clock.now(), monotonic=clock.monotonic()) < 61
    assert 18 <= cdn.reads <= 26  # about every 28 seconds


def test_when_the_service_is_back_the_reading_goes_on_from_the_signed_lists_cursor(source, clock, cdn, service):
    cdn.put("stolen", epoch=service.issuer.revocations.epoch)
    run(source, clock, 10)
    service.away = False
    service.asked.clear()
    run(source, clock, 60)
    assert "after=cursor-of-the-list" in service.asked[0]
    assert hits(source, clock, "stolen")  # what was seen is not forgotten
    assert source.snapshot().seq is None


def test_its_age_is_what_has_passed_since_as_of_also_when_the_wall_clock_is_set_back(source, clock, cdn):
    cdn.put("stolen")
    run(source, clock, 5)
    first = source.snapshot()
    before = first.age(now=clock.now(), monotonic=clock.monotonic())
    assert before >= 5
    assert first.age(now=clock.now() - 3600, monotonic=clock.monotonic()) >= before - 0.01


def test_R15_a_list_under_another_key_changes_nothing_and_the_keys_are_read_again(source, clock, cdn, events):
    cdn.put("stolen", key=PrivateKey.generate())
    run(source, clock, 10)
    assert source.snapshot() is None
    assert set(rejected(events)) == {"signature"}
    fresh = PrivateKey.generate()
    cdn.published.append(fresh)
    cdn.put("stolen", key=fresh)
    run(source, clock, 70)
    assert hits(source, clock, "stolen")


def test_R15_a_smaller_number_of_the_same_stream_is_refused(source, clock, cdn, events):
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    cdn.put("another", seq=6)
    run(source, clock, 100)
    assert not hits(source, clock, "another")
    assert "rollback" in rejected(events)


def test_the_same_number_with_other_bytes_is_refused_with_an_alarm(source, clock, cdn, events):
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    cdn.put("another", seq=7)
    run(source, clock, 100)
    assert not hits(source, clock, "another")
    assert "forked" in rejected(events)
    alarms = [event.reason for event in events if event.kind is EventKind.ALARM]
    assert "signed_list_forked" in alarms


def test_the_same_bytes_again_are_no_news_and_make_nothing_younger(source, clock, cdn, events):
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    as_of = source.snapshot().as_of
    run(source, clock, 90)
    assert source.snapshot().as_of == as_of
    assert rejected(events) == []


def test_another_run_of_the_publisher_is_followed_unless_it_is_an_older_one(source, clock, cdn, events):
    cdn.put("stolen", seq=7)
    old = cdn.body
    run(source, clock, 100)
    cdn.put("stolen", "another", seq=1, stream="B" * 22)
    run(source, clock, 100)
    assert hits(source, clock, "another")
    as_of = source.snapshot().as_of
    cdn.body = old  # seen before: neither news nor younger
    run(source, clock, 100)
    assert source.snapshot().as_of == as_of
    assert rejected(events) == []
    cdn.put("third", seq=1, stream="C" * 22, as_of=clock.now() - 600)
    run(source, clock, 100)
    assert not hits(source, clock, "third")
    assert set(rejected(events)) == {"rollback"}


def test_a_list_past_its_next_update_and_the_refuse_limit_is_refused(make, clock, cdn, events):
    source = make(refuse_age_seconds=100.0)
    cdn.put("stolen")
    clock.advance(131)
    run(source, clock, 10)
    assert source.snapshot() is None
    assert rejected(events)[0] == "expired"


def test_a_list_past_its_next_update_and_within_the_limit_is_taken(make, clock, cdn):
    source = make(refuse_age_seconds=100.0)
    cdn.put("stolen")
    clock.advance(100)
    run(source, clock, 10)
    assert hits(source, clock, "stolen")


def test_a_list_of_the_future_is_refused(source, clock, cdn, events):
    now = int(clock.now())
    cdn.put("stolen", issued_at=now + 60, as_of=now + 55, next_update=now + 90)
    run(source, clock, 5)
    assert source.snapshot() is None
    assert "ahead" in rejected(events)


def test_an_earlier_store_is_refused_and_a_later_one_needs_a_persons_word(source, clock, cdn, events):
    cdn.put("stolen", epoch=5)
    run(source, clock, 5)
    cdn.put("another", epoch=4, seq=2)
    run(source, clock, 100)
    assert not hits(source, clock, "another")
    cdn.put("third", epoch=6, seq=3)
    run(source, clock, 100)
    assert not hits(source, clock, "third")
    assert set(rejected(events)) == {"epoch"}
    source.accept_epoch(6)
    run(source, clock, 100)
    assert hits(source, clock, "third")
    assert hits(source, clock, "stolen")


def test_what_came_by_the_signed_list_survives_a_restart(make, clock, cdn, tmp_path):
    cdn.put("stolen")
    first = make(state_folder=tmp_path)
    run(first, clock, 5)
    assert hits(first, clock, "stolen")
    first.stop()
    cdn.away = True
    second = make(state_folder=tmp_path)
    second._load_once()
    assert hits(second, clock, "stolen")
    second.stop()


def test_R15_a_list_that_is_garbage_or_away_is_asked_for_again(source, clock, cdn, events):
    run(source, clock, 5)  # 404
    cdn.body = b"\xff\xfe"
    run(source, clock, 30)
    cdn.away = True
    run(source, clock, 30)
    assert source.snapshot() is None
    cdn.away = False
    cdn.put("stolen")
    run(source, clock, 60)
    assert hits(source, clock, "stolen")
    assert "malformed" in rejected(events)


def test_keys_that_cannot_be_read_again_stay_good_for_a_day(source, clock, cdn, service):
    service.away = False
    run(source, clock, 5)
    cdn.keys_away = service.away = True
    clock.advance(3600)
    cdn.put("stolen", epoch=service.issuer.revocations.epoch)
    run(source, clock, 60)
    assert hits(source, clock, "stolen")
    clock.advance(24 * 3600)
    cdn.put("another", seq=2, epoch=service.issuer.revocations.epoch)
    run(source, clock, 60)
    assert not hits(source, clock, "another")


def test_without_keys_the_list_is_not_asked_for(source, clock, cdn):
    cdn.keys_away = True
    cdn.put("stolen")
    run(source, clock, 60)
    assert cdn.reads == 0
    assert source.snapshot() is None


def test_a_list_in_a_folder_is_read_as_one_of_a_server(clock, cdn, service, tmp_path):
    path = tmp_path / "revocation list.jwt"
    place = SignedListPlace(url=path.as_uri(), issuer=ISSUER, keys_uri=lambda: KEYS_URI, fetcher=cdn)
    source = RevocationSource("https://r.test", fetcher=service, clock=clock, name="orders", signed_list=place)
    run(source, clock, 5)
    assert source.snapshot() is None
    cdn.put("stolen")
    path.write_bytes(cdn.body)
    run(source, clock, 100)
    assert hits(source, clock, "stolen")
    polls = source.signed_counters.polls
    run(source, clock, 60)
    assert polls["304"] >= 1
    assert cdn.reads == 0


def test_a_file_above_the_bound_is_refused(tmp_path, cdn):
    from tokenry.http.fetch import Request

    (tmp_path / "x").write_bytes(b"12345")
    with pytest.raises(FetchFailed) as caught:
        LocalFiles(cdn).fetch(Request(url=(tmp_path / "x").as_uri(), max_bytes=4))
    assert caught.value.failure is Failure.TOO_LARGE


@pytest.mark.parametrize("url", ["ftp://example.org/x", "cdn.example.org", "https://user@example.org/x"])
def test_a_url_that_cannot_be_fetched_is_a_fault_of_the_configuration(url, cdn):
    assert urlsplit(url).scheme != "file"
    with pytest.raises(ConfigurationError, match="signed list"):
        SignedListPlace(url=url, issuer=ISSUER, keys_uri=lambda: None, fetcher=cdn)


# --- across a restart ---


def restarted(make, source, folder):
    source.stop()
    again = make(state_folder=folder)
    again._load_once()
    return again


def test_a_list_that_was_read_before_a_restart_is_not_followed_backwards(make, clock, cdn, events, tmp_path):
    source = make(state_folder=tmp_path)
    source._load_once()
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    events.clear()
    again = restarted(make, source, tmp_path)
    cdn.put("another", seq=6)
    run(again, clock, 100)
    assert not hits(again, clock, "another")
    assert hits(again, clock, "stolen")
    assert set(rejected(events)) == {"rollback"}
    cdn.put("new", seq=8)
    run(again, clock, 60)
    assert hits(again, clock, "new")


def test_an_earlier_run_of_the_publisher_is_refused_after_a_restart_too(make, clock, cdn, events, tmp_path):
    source = make(state_folder=tmp_path)
    source._load_once()
    clock.advance(100)
    earlier = int(clock.now()) - 90
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    events.clear()
    again = restarted(make, source, tmp_path)
    cdn.put("another", seq=70, stream="B" * 22, as_of=earlier)
    run(again, clock, 100)
    assert not hits(again, clock, "another")
    assert set(rejected(events)) == {"rollback"}


def test_two_lists_with_one_number_are_seen_across_a_restart(make, clock, cdn, events, tmp_path):
    source = make(state_folder=tmp_path)
    source._load_once()
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    again = restarted(make, source, tmp_path)
    cdn.put("another", seq=7)
    run(again, clock, 100)
    assert "signed_list_forked" in [event.reason for event in events if event.kind is EventKind.ALARM]


@pytest.mark.parametrize("spoil", [lambda body: body[:-9], lambda body: body.replace(b"7", b"6", 1), lambda _: b"",
                                   lambda _: b"\xff" * 100])  # fmt: skip
def test_a_file_of_numbers_that_is_damaged_is_an_alarm_and_nothing_else(make, clock, cdn, events, tmp_path, spoil):
    source = make(state_folder=tmp_path)
    source._load_once()
    cdn.put("stolen", seq=7)
    run(source, clock, 5)
    path = source._state.issues_path
    path.write_bytes(spoil(path.read_bytes()))
    events.clear()
    again = restarted(make, source, tmp_path)
    assert [event.reason for event in events if event.kind is EventKind.ALARM] == ["state_damaged"]
    cdn.put("stolen", "more", seq=8)
    run(again, clock, 100)
    assert hits(again, clock, "more")
