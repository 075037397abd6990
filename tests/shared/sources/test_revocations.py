import json
import random
import threading
from dataclasses import replace
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest

from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.jose import jws
from tokenry.jose.encoding import parse_json_object
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.wire import LIST_HEADER, LOCATION_HEADER, ListStamp, changes_location, is_located
from tokenry.sources.events import EventKind
from tokenry.sources.revocation_conversation import GAP_SECONDS, LAGGING_SECONDS
from tokenry.sources.revocations import RevocationSource, revocations_root
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer


class Script:
    """A fetcher that passes to the fake service, and can answer something else, or late."""

    def __init__(self, issuer, clock):
        self.issuer, self.clock = issuer, clock
        self.requests = []
        self.override = {}
        self.takes = 0.0

    def fetch(self, request):
        self.requests.append(request)
        self.clock.advance(self.takes)
        answer = self.override.get(self.last_path)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer if answer is not None else self.issuer.fetch(request)

    def cancel(self):
        pass

    @property
    def last_path(self):
        return urlsplit(self.requests[-1].url).path.rsplit("/", 1)[-1]

    @property
    def last_wait(self):
        return int(parse_qs(urlsplit(self.requests[-1].url).query).get("wait", ["-1"])[0])


class Shuffled:
    """A fetcher that gives prepared answers, whatever it is asked."""

    def __init__(self, order):
        self.order, self.requests = list(order), []

    def fetch(self, request):
        self.requests.append(request)
        return self.order.pop()

    def cancel(self):
        pass


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture
def script(issuer, clock):
    return Script(issuer, clock)


@pytest.fixture
def events():
    return []


@pytest.fixture
def make(script, clock, events):
    def make(**more):
        return RevocationSource(
            "https://r.test",
            fetcher=script,
            clock=clock,
            name="orders",
            version="1.2",
            on_event=events.append,
            **more,
        )

    return make


@pytest.fixture
def source(make):
    return make()


def step(source, times=1):
    for _ in range(times):
        wait = source._poller.step()
    return wait


def ask(source, clock):
    """Let the time pass that the source wants to wait, if it does, and let it ask once."""
    asked = len(source._poller._fetcher.requests)
    while len(source._poller._fetcher.requests) == asked:
        clock.advance(source._poller.step())


def hits(source, token):
    parts = jws.split(token)
    claims = parse_json_object(parts.payload)
    judged = JudgedToken(
        iss=claims["iss"],
        jti=claims["jti"],
        kid=parts.header["kid"],
        iat=claims["iat"],
        claims=claims,
        signing_input=token.rpartition(".")[0],
    )
    return source.snapshot().value.hits(judged, now=source._clock.now()) is not None


def stamped(script, *, body=None, status=200, **changes):
    """Return a function that answers as the service does, with another stamp."""

    def answer(request):
        response = script.issuer.fetch(request)
        stamp = dict(part.split("=") for part in response.headers["tokenry-list"].split(", "))
        stamp |= {name: str(value) for name, value in changes.items()}
        fields = [("content-type", response.headers["content-type"])]
        fields.append(("tokenry-list", ", ".join(f"{name}={value}" for name, value in stamp.items())))
        return Response(status=status, headers=Headers(fields), body=response.body if body is None else body)

    return answer


def test_the_whole_list_comes_first_and_then_the_news_in_a_held_request(source, script, issuer):
    token = issuer.token()
    issuer.revoke(token)
    step(source)
    assert script.last_path == "snapshot"
    assert hits(source, token)
    step(source)
    assert (script.last_path, script.last_wait) == ("changes", 25)
    assert script.requests[-1].deadline_seconds == 27


def test_every_request_names_its_reader(source, script):
    step(source, 2)
    assert {request.headers["Tokenry-Instance"] for request in script.requests} == {"orders/1.2"}


def test_contract_4_15_a_list_slower_than_a_second_is_loaded(source, script, issuer):
    issuer.revoke(token := issuer.token())
    script.takes = 20
    step(source)
    assert hits(source, token)
    assert script.requests[-1].deadline_seconds >= 20


def test_news_are_merged_and_what_was_there_stays(source, script, issuer):
    first, second, innocent = issuer.token(), issuer.token(), issuer.token()
    issuer.revoke(first)
    step(source)
    issuer.revoke(second)
    step(source)
    assert (hits(source, first), hits(source, second), hits(source, innocent)) == (True, True, False)
    assert source.counters.applied >= 2


def test_after_news_the_next_request_follows_at_once_but_not_more_than_four_times_a_second(source, issuer):
    step(source)
    issuer.revoke(issuer.token())
    step(source)
    assert 0 < step(source) <= 0.25


def test_after_a_held_request_the_next_follows_at_once(source, script):
    step(source)
    script.takes = 25
    step(source)
    script.takes = 0
    step(source)
    assert [urlsplit(request.url).path.rsplit("/")[-1] for request in script.requests] == [
        "snapshot",
        "changes",
        "changes",
    ]


def test_a_server_that_does_not_hold_is_asked_every_25_to_28_seconds(source, script, clock):
    step(source, 2)
    pauses = []
    for _ in range(20):
        pauses.append(step(source))
        clock.advance(pauses[-1])
        step(source)
    assert all(25 <= pause <= 28 for pause in pauses)
    assert len({round(pause, 3) for pause in pauses}) > 1


def test_a_server_that_answers_at_once_without_news_is_not_asked_again_at_once(source, script, clock, issuer):
    step(source)
    cursor = source._conversation._cursor

    def drained(request):
        answer = issuer.fetch(replace(request, url=f"https://r.test/revocations/changes?after={cursor}&wait=0"))
        document = json.loads(answer.body)
        document["cursor"] = f"moved-{clock.monotonic()}"  # as a cursor does that carries the time
        return Response(status=answer.status, headers=answer.headers, body=json.dumps(document).encode())

    script.override["changes"] = drained
    begun, asked = clock.monotonic(), len(script.requests)
    while clock.monotonic() < begun + 600:
        ask(source, clock)
    assert len(script.requests) - asked <= 600 / 25 + 2


def test_another_replica_that_answers_at_once_with_what_is_known_is_asked_again_soon(source, script, clock, issuer):
    """A balancer sends each request elsewhere: a replica that is behind by a read repeats what the reader has."""
    step(source)
    cursor = source._conversation._cursor
    issuer.revoke(issuer.token())
    step(source)
    script.override["changes"] = lambda request: issuer.fetch(
        replace(request, url=f"https://r.test/revocations/changes?after={cursor}&wait=0")
    )
    pauses = []
    for _ in range(10):
        begun = clock.monotonic()
        ask(source, clock)
        pauses.append(clock.monotonic() - begun)
        assert script.last_wait == 25
    assert pauses[1:4] == [0.25, 0.5, 1.0]
    assert all(25 <= pause <= 28 for pause in pauses[-2:])  # for who does not hold is not asked more often for that
    script.override.clear()
    issuer.revoke(token := issuer.token())
    ask(source, clock)
    assert hits(source, token)
    assert 0 < step(source) <= 0.25


def test_a_replica_that_is_behind_and_has_news_all_the_same_is_listened_to_at_once(source, script, clock, issuer):
    """Each replica hears first of what is posted to it, also while its last read of the store is the older one."""

    def behind(request):
        answer = issuer.fetch(request)
        stamp = ListStamp.parse(answer.headers[LIST_HEADER.lower()])
        earlier = replace(stamp, as_of=stamp.as_of - 60, age=stamp.age + 60)
        return replace(answer, headers=Headers([(LIST_HEADER, earlier.format())]))

    step(source)
    step(source)
    script.override["changes"] = behind
    issuer.revoke(token := issuer.token())
    ask(source, clock)
    assert hits(source, token)
    assert 0 < step(source) <= GAP_SECONDS
    pauses = []
    for _ in range(5):  # and these have nothing new: the other replica may be asked next
        begun = clock.monotonic()
        ask(source, clock)
        pauses.append(clock.monotonic() - begun)
    assert pauses[1:] == [GAP_SECONDS, 2 * GAP_SECONDS, LAGGING_SECONDS, LAGGING_SECONDS]


def test_a_held_request_that_breaks_is_followed_at_once_by_one_that_is_not_held(source, script, clock):
    step(source)
    script.takes = 27
    script.override["changes"] = FetchFailed(Failure.TIMEOUT, "late")
    step(source)
    script.takes = 0
    script.override.clear()
    begun = clock.monotonic()
    ask(source, clock)
    assert (script.last_wait, clock.monotonic() - begun) == (0, 0)
    ask(source, clock)
    ask(source, clock)  # a restart of the service breaks a hold once: news are quick again soon after
    assert (script.last_wait, clock.monotonic() - begun) == (25, 2)


def test_holds_that_always_break_are_tried_more_and_more_seldom_and_polled_in_between(source, script, clock):
    def proxy_that_cuts(request):
        if script.last_wait <= 0:
            return None
        clock.advance(5)
        return FetchFailed(Failure.DISCONNECTED, "cut")

    step(source)
    script.override["changes"] = proxy_that_cuts
    answered, tries = [], []
    while clock.monotonic() < 7200:
        ask(source, clock)
        (tries if script.last_wait > 0 else answered).append(clock.monotonic())
    assert all(later - earlier <= 28 for earlier, later in pairwise(answered))  # also across a hold that broke
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[0] < 10
    # A try that falls right before a poll takes its place, so a pause may be shorter by one poll, not by more.
    assert all(later > earlier - 28 for earlier, later in pairwise(pauses))
    assert pauses[-1] > 900


@pytest.mark.parametrize("status", [408, 502, 504])
def test_a_proxy_that_gives_up_a_held_request_is_a_broken_hold(source, script, clock, status):
    step(source)
    script.override["changes"] = Response(status=status)
    step(source)
    script.override.clear()
    step(source)
    assert script.last_wait == 0


def test_the_poll_bound_holds_when_a_held_request_breaks(source, script, clock, issuer):
    """Whatever is revoked right after a held request began is known within 31 s, as promised for polling."""
    step(source)
    issuer.revoke(token := issuer.token())
    begun = clock.monotonic()
    script.takes = 27
    script.override["changes"] = FetchFailed(Failure.TIMEOUT, "late")
    step(source)
    script.takes = 2
    script.override.clear()
    ask(source, clock)
    assert hits(source, token)
    assert clock.monotonic() - begun < 31


def test_the_age_counts_from_the_begin_of_the_request(source, script, clock):
    script.takes = 1.5
    script.override["snapshot"] = stamped(script, age="3.000")
    step(source)
    held = source.snapshot()
    assert held.age(now=clock.now(), monotonic=clock.monotonic()) == pytest.approx(4.5)


def test_a_gone_cursor_means_the_whole_list_again(source, script, issuer, clock):
    step(source)
    token = issuer.token()
    issuer.revoke(token)
    issuer.revocations.forgotten_before = 10
    ask(source, clock)
    assert script.last_path == "changes"
    issuer.revocations.forgotten_before = 0
    ask(source, clock)
    assert script.last_path == "snapshot"
    assert hits(source, token)


def test_a_server_without_changes_is_read_by_snapshots_with_an_etag(source, script, clock, issuer):
    script.override["changes"] = Response(status=404)
    step(source, 2)
    ask(source, clock)
    assert script.last_path == "snapshot"
    assert "If-None-Match" in script.requests[-1].headers
    first = source.snapshot()
    clock.advance(25)
    ask(source, clock)
    assert source.counters.polls["304"] == 2
    assert source.snapshot().as_of > first.as_of
    issuer.revoke(token := issuer.token())
    ask(source, clock)
    assert hits(source, token)


def test_a_304_without_a_stamp_refreshes_nothing(source, script, clock):
    script.override["changes"] = Response(status=404)
    step(source, 2)
    held = source.snapshot()
    script.override["snapshot"] = Response(status=304)
    clock.advance(28)
    ask(source, clock)
    assert source.snapshot() is held
    assert source.counters.rejected == {"stamp": 1}


def truncations(body):
    return [body[:cut] for cut in range(0, len(body), max(1, len(body) // 12))]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"<html>", b"\x00", b'{"cursor":"1"}', b'{"entries":[]}'],
)
def test_R15_a_malformed_list_keeps_the_last_good_one(source, script, issuer, clock, body):
    issuer.revoke(token := issuer.token())
    step(source)
    held = source.snapshot()
    script.override["changes"] = stamped(script, body=body)
    ask(source, clock)
    assert source.snapshot() is held
    assert hits(source, token)
    assert source.counters.rejected == {"malformed": 1}


def test_a_list_that_is_cut_anywhere_is_refused(source, script, issuer, clock):
    step(source)
    issuer.revoke(issuer.token())
    whole = issuer.revocations.answer("https://r/revocations/changes?after=0", {}, hold=False).body
    held = source.snapshot()
    for cut in truncations(whole):
        script.override["changes"] = stamped(script, body=cut)
        ask(source, clock)
    assert source.snapshot() is held


def test_an_entry_of_an_unknown_kind_refuses_the_whole_list(source, script, issuer, clock):
    step(source)
    issuer.revoke_all()
    whole = issuer.revocations.answer("https://r/revocations/changes?after=0", {}, hold=False).body
    held = source.snapshot()
    script.override["changes"] = stamped(script, body=whole.replace(b'"all"', b'"future"'))
    ask(source, clock)
    assert source.snapshot() is held


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"as_of": "1800000900.000"}, "ahead"),
        ({"as_of": "soon"}, "stamp"),
        ({"age": "-1"}, "stamp"),
        ({"epoch": "x"}, "stamp"),
        ({"epoch": "2"}, "stamp"),
        ({"more": "1"}, "stamp"),
    ],
)
def test_a_bad_stamp_refuses_the_answer(source, script, clock, changes, reason):
    step(source)
    held = source.snapshot()
    script.override["changes"] = stamped(script, **changes)
    ask(source, clock)
    assert source.snapshot() is held
    assert source.counters.rejected == {reason: 1}


def test_an_answer_without_a_stamp_is_refused(source, script, clock, issuer):
    body = issuer.revocations.answer("https://r/revocations/snapshot", {}, hold=False).body
    script.override["snapshot"] = Response(status=200, body=body)
    step(source)
    assert source.snapshot() is None
    assert source.counters.rejected == {"stamp": 1}


def test_a_moment_ahead_within_the_skew_is_taken(source, issuer):
    issuer.revocations.as_of_offset = 1.9
    step(source)
    assert source.snapshot() is not None


def test_an_earlier_store_is_refused(source, script, issuer, clock):
    issuer.revocations.epoch = 5
    step(source)
    held = source.snapshot()
    issuer.revocations.epoch = 4
    ask(source, clock)
    assert source.snapshot() is held
    assert source.counters.rejected == {"rollback": 1}


def test_a_later_store_is_refused_until_an_operator_accepts_just_that_one(source, script, issuer, clock):
    issuer.revoke(token := issuer.token())
    step(source)
    issuer.revocations._entries.clear()
    issuer.revocations.epoch = 3
    ask(source, clock)
    assert source.snapshot().value.epoch == 1
    assert source.counters.rejected == {"epoch": 1}
    source.accept_epoch(2)
    ask(source, clock)
    assert source.snapshot().value.epoch == 1
    source.accept_epoch(3)
    ask(source, clock)
    assert source.snapshot().value.epoch == 3
    assert hits(source, token), "what was revoked in the old store stays revoked"


def test_an_answer_as_of_an_earlier_moment_is_merged_and_otherwise_ignored(source, script, issuer, clock):
    step(source)
    held = source.snapshot()
    clock.advance(5)
    issuer.revoke(token := issuer.token())
    issuer.revocations.as_of_offset = -10
    ask(source, clock)
    assert hits(source, token)
    assert source.snapshot().as_of == held.as_of
    issuer.revocations.as_of_offset = 0
    ask(source, clock)
    assert parse_qs(urlsplit(script.requests[-1].url).query)["after"] == ["0"], "the cursor did not move"


def test_F28_answers_in_any_order_and_twice_lose_nothing(make, issuer, clock):
    tokens = [issuer.token() for _ in range(12)]
    answers = []
    for token in tokens:
        position = len(issuer.revocations._entries)
        issuer.revoke(token)
        answers.append(issuer.revocations.answer(f"https://r/revocations/changes?after={position}", {}, hold=False))
    for seed in range(5):
        shuffled = random.Random(seed)  # noqa: S311 -- the same order in every run
        order = shuffled.choices(answers, k=10) + answers
        shuffled.shuffle(order)
        source = RevocationSource("https://r.test", fetcher=Shuffled(order), clock=clock)
        for _ in order:
            ask(source, clock)
        assert all(hits(source, token) for token in tokens)


def test_an_outage_keeps_the_list_and_is_retried_with_growing_pauses(source, issuer, clock):
    issuer.revoke(token := issuer.token())
    step(source)
    issuer.down = True
    times = []
    for _ in range(10):
        ask(source, clock)
        times.append(clock.monotonic())
    assert hits(source, token)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert max(pauses) <= 25
    assert pauses[-1] >= 12
    issuer.down = False
    before = source.snapshot().as_of
    ask(source, clock)
    assert source.snapshot().as_of > before


def test_a_change_that_never_arrives_in_time_is_taken_as_a_whole_list(source, script, clock):
    step(source)
    script.override["changes"] = FetchFailed(Failure.TIMEOUT, "late")
    paths = []
    for _ in range(6):
        ask(source, clock)
        paths.append(script.last_path)
    assert "snapshot" in paths


def test_retry_after_is_honoured_within_bounds(source, script, clock):
    step(source)
    script.override["changes"] = Response(status=503, headers=Headers([("retry-after", "20")]))
    step(source)
    assert 19.9 <= step(source) <= 20.1


def test_the_list_is_read_with_a_bearer_where_one_is_given(make, script):
    class Tokens:
        def __init__(self):
            self.dropped = []

        def get(self):
            return type("Token", (), {"value": "abc"})()

        def invalidate(self, token=None):
            self.dropped.append(token.value)

    tokens = Tokens()
    source = make(bearer=tokens)
    script.override["snapshot"] = Response(status=401)
    step(source)
    assert script.requests[-1].headers["Authorization"] == "Bearer abc"
    assert tokens.dropped == ["abc"]


def test_without_a_token_nothing_is_asked(make, script):
    class NoTokens:
        def get(self):
            raise TokenFetchError("none")

        def invalidate(self, token=None):
            pass

    source = make(bearer=NoTokens())
    step(source)
    assert script.requests == []
    assert source.counters.polls == {"unauthenticated": 1}


def test_an_address_that_is_not_known_yet_is_waited_for(script, clock):
    found = []
    source = RevocationSource(lambda: found[0] if found else None, fetcher=script, clock=clock)
    assert step(source) == 0.5
    found.append("https://r.test/revocations")
    step(source)
    assert script.requests[-1].url == "https://r.test/revocations/snapshot"


def test_F27_a_list_above_the_configured_length_is_refused_not_cut(make, issuer, clock):
    source = make(max_entries=4)
    step(source)
    for _ in range(5):
        issuer.revoke(issuer.token())
    ask(source, clock)
    assert len(source.snapshot().value) == 0
    assert source.counters.rejected == {"malformed": 1}


def test_a_whole_list_above_the_configured_length_is_refused_and_the_last_good_one_stays(make, issuer, clock, events):
    source = make(max_entries=10)
    held_by = issuer.token()
    issuer.revoke(held_by)
    step(source)
    for _ in range(5):
        issuer.revoke(issuer.token())
    assert make(max_entries=12)._poller.step() == 0  # which is as long as it is
    whole = make(max_entries=11)
    step(whole)
    ask(source, clock)
    assert whole.snapshot() is None
    assert whole.counters.rejected == source.counters.rejected == {"malformed": 1}
    assert hits(source, held_by)
    assert len(source.snapshot().value) == 2
    details = [event.detail for event in events if event.kind is EventKind.REJECTED]
    assert details == [f"the revocation list has more than {most} entries" for most in (11, 10)]


@pytest.mark.parametrize("most", [0, -1, 100_000_001])
def test_a_length_that_no_list_may_have_is_refused(make, most):
    with pytest.raises(ConfigurationError, match="max_entries: set it to 1 to 100000000"):
        make(max_entries=most)


def test_events_tell_what_happened(source, issuer, clock, events):
    step(source)
    issuer.down = True
    ask(source, clock)
    assert [event.kind for event in events] == [EventKind.LOADED, EventKind.FAILED]
    assert events[-1].reason == "connect"


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://r.test", "https://r.test/revocations"),
        ("https://r.test/", "https://r.test/revocations"),
        ("https://r.test/revocations", "https://r.test/revocations"),
        ("https://r.test/revocations/", "https://r.test/revocations"),
        ("http://127.0.0.1:9082/base", "http://127.0.0.1:9082/base/revocations"),
    ],
)
def test_the_services_address_is_taken_with_and_without_its_last_part(url, root):
    assert revocations_root(url) == root


@pytest.mark.parametrize("arguments", [{"name": "a b"}, {"name": "a\r\nX: 1"}, {"version": "1/2"}, {"name": "x" * 101}])
def test_a_name_that_is_no_name_is_refused(arguments):
    with pytest.raises(ConfigurationError):
        RevocationSource("https://r.test", **arguments)


@pytest.mark.parametrize("url", ["r.test", "https://r.test/?a=1", "https://r.test/#a", "file:///x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError):
        RevocationSource(url)


# --- across a restart ---


def test_what_was_seen_is_enforced_after_a_restart_before_the_service_answers(make, issuer, clock, tmp_path):
    first, second = issuer.token(), issuer.token()
    issuer.revoke(first)
    source = make(state_folder=tmp_path / "state")
    step(source)
    issuer.revoke(second)
    ask(source, clock)
    source.stop()
    issuer.down = True
    clock.advance(60)
    again = make(state_folder=tmp_path / "state")
    again._load_once()
    assert hits(again, first)
    assert hits(again, second)
    assert again.snapshot().age(now=clock.now(), monotonic=clock.monotonic()) >= 60
    again.stop()


def test_a_kept_list_above_a_length_that_was_lowered_is_not_taken(make, issuer, clock, events, tmp_path):
    for _ in range(5):
        issuer.revoke(issuer.token())
    source = make(state_folder=tmp_path)
    step(source)
    source.stop()
    again = make(state_folder=tmp_path, max_entries=9)
    again._load_once()
    assert again.snapshot() is None
    assert events[-1].kind is EventKind.ALARM
    assert "more than 9 entries" in events[-1].detail
    again.stop()


def test_after_a_restart_the_news_since_are_asked_first_without_holding(make, script, clock, tmp_path):
    source = make(state_folder=tmp_path)
    step(source)
    source.stop()
    again = make(state_folder=tmp_path)
    again._load_once()
    ask(again, clock)
    assert (script.last_path, script.last_wait) == ("changes", 0)
    ask(again, clock)
    assert script.last_wait == 25
    again.stop()


def test_a_kept_list_beyond_the_refuse_age_is_enforced_but_not_enough_to_start_with(make, issuer, clock, tmp_path):
    token = issuer.token(lifetime=3600)
    issuer.revoke(token)
    source = make(state_folder=tmp_path)
    step(source)
    source.stop()
    clock.advance(901)
    again = make(state_folder=tmp_path)
    again._load_once()
    assert again.snapshot() is None
    issuer.revocations._entries.clear()  # the service has forgotten it
    ask(again, clock)
    assert hits(again, token)
    again.stop()


def test_a_clock_that_went_back_makes_a_kept_list_not_count(make, issuer, clock, tmp_path, events):
    source = make(state_folder=tmp_path)
    step(source)
    source.stop()
    clock.set_wall_clock(clock.now() - 600)
    again = make(state_folder=tmp_path)
    again._load_once()
    assert again.snapshot() is None
    assert events[-1].reason == "clock_went_back"
    again.stop()


def test_a_clock_that_was_set_back_while_nobody_ran_makes_no_kept_list_young(make, issuer, clock, tmp_path):
    source = make(state_folder=tmp_path)
    step(source)
    source.stop()
    clock.advance(1000)
    clock.set_wall_clock(clock.now() - 995)  # the machine has run on; what was written is not in the clock's future
    again = make(state_folder=tmp_path)
    again._load_once()
    assert again.snapshot() is None
    again.stop()
    later = make(state_folder=tmp_path)
    later._state._boot = "after the machine was started again"
    later._load_once()
    assert later.snapshot() is not None  # nothing but the wall clock is left to go by
    later.stop()


def test_an_answer_to_another_request_is_refused(source, script, clock, issuer, events):
    """News since a later cursor, taken for news since ours, would leave a hole."""
    step(source)
    held = source.snapshot()

    def replayed(request):
        answer = issuer.fetch(request)
        fields = [*answer.headers.items(), (LOCATION_HEADER, "/revocations/changes?after=another")]
        return replace(answer, headers=Headers(fields))

    script.override["changes"] = replayed
    issuer.revoke(token := issuer.token())
    ask(source, clock)
    assert events[-1].reason == "misplaced"
    assert not hits(source, token)
    assert source.snapshot() == held
    script.override.clear()
    ask(source, clock)
    assert hits(source, token)


@pytest.mark.parametrize(
    ("value", "at", "fits"),
    [
        (None, "snapshot", True),
        ("snapshot", "snapshot", True),
        ("/revocations/snapshot", "snapshot", True),
        ("https://r.example/revocations/changes?after=a%2Fb", changes_location("a/b"), True),
        ("changes?after=a", "snapshot", False),
        ("snapshot", changes_location(""), False),
        ("changes?after=ab", changes_location("a"), False),
        ("", changes_location("a"), False),
    ],
)
def test_an_answer_says_to_which_request_it_is(value, at, fits):
    assert is_located(value, at=at) is fits


def test_a_file_that_is_damaged_anywhere_is_an_alarm_and_what_precedes_it_counts(make, issuer, clock, tmp_path, events):
    first, second = issuer.token(), issuer.token()
    issuer.revoke(first)
    source = make(state_folder=tmp_path)
    step(source)
    path = source._state.path
    full = path.stat().st_size
    issuer.revoke(second)
    ask(source, clock)
    source.stop()
    whole = path.read_bytes()
    assert len(whole) > full
    for position in range(full, len(whole), 37):
        events.clear()
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(bytes(damaged))
        again = make(state_folder=tmp_path)
        again._load_once()
        assert hits(again, first)
        assert [event.reason for event in events] == ["state_damaged"], position
        again.stop()
    for cut in range(0, full, max(1, full // 20)):
        path.write_bytes(whole[:cut])
        again = make(state_folder=tmp_path)
        again._load_once()
        assert again.snapshot() is None
        again.stop()


def test_the_file_is_for_its_owner_only_and_of_one_writer(make, clock, tmp_path):
    source = make(state_folder=tmp_path / "state")
    step(source)
    path = source._state.path
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    written = path.read_bytes()
    second = make(state_folder=tmp_path / "state")
    step(second)
    assert path.read_bytes() == written
    source.stop()
    clock.advance(30)
    ask(second, clock)
    assert path.read_bytes() != written
    second.stop()


def test_the_file_is_rewritten_before_it_grows_without_end(make, issuer, clock, tmp_path):
    source = make(state_folder=tmp_path)
    step(source)
    source._state._appended_bytes = 10**9
    issuer.revoke(token := issuer.token())
    ask(source, clock)
    assert source._state._appended_bytes == 0
    source.stop()
    again = make(state_folder=tmp_path)
    again._load_once()
    assert hits(again, token)
    again.stop()


class Disk:
    """What the state is written to: it looks at what is enforced whenever something reaches it."""

    def __init__(self, source, clock):
        self.source, self.clock, self.takes = source, clock, 0.0
        self.token, self.enforced = None, []
        source._state._sync = self

    def __call__(self, _descriptor):
        self.clock.advance(self.takes)
        if self.token is not None:
            self.enforced.append(self.source.snapshot() is not None and hits(self.source, self.token))


def kept(make, folder, token):
    """Tell whether a process that starts now, after this one was killed, enforces *token*."""
    folder.joinpath("copy").mkdir()
    for path in folder.glob("revocations-*.list"):  # the lock is still held by the one that was killed
        folder.joinpath("copy", path.name).write_bytes(path.read_bytes())
    again = make(state_folder=folder / "copy")
    again._load_once()
    found = again.snapshot() is not None and hits(again, token)
    again.stop()
    return found


def test_the_first_list_and_news_are_on_the_disk_before_they_are_enforced(make, issuer, clock, tmp_path):
    first, second = issuer.token(), issuer.token()
    issuer.revoke(first)
    source = make(state_folder=tmp_path)
    disk = Disk(source, clock)
    disk.token = first
    source._load_once()
    step(source)
    assert disk.enforced == [False, False]  # the file and its folder
    disk.enforced.clear()
    disk.token = second
    issuer.revoke(second)
    ask(source, clock)
    assert disk.enforced == [False]
    assert hits(source, second)
    assert kept(make, tmp_path, second)


def test_after_a_restart_news_are_appended_to_the_file_that_was_loaded(make, issuer, clock, tmp_path):
    source = make(state_folder=tmp_path)
    step(source)
    source.stop()
    again = make(state_folder=tmp_path)
    again._load_once()
    disk = Disk(again, clock)
    before = again._state.path.read_bytes()
    disk.token = issuer.token()
    issuer.revoke(disk.token)
    ask(again, clock)
    assert disk.enforced == [False]
    assert again._state.path.read_bytes().startswith(before)
    assert kept(make, tmp_path, disk.token)


def test_a_slow_disk_is_not_waited_for_again_but_written_to(make, issuer, clock, tmp_path, events):
    source = make(state_folder=tmp_path)
    disk = Disk(source, clock)
    step(source)
    disk.takes = 1.5
    for enforced_first in (False, True, True):
        disk.token = issuer.token()
        issuer.revoke(disk.token)
        ask(source, clock)
        assert disk.enforced.pop() is enforced_first
    assert [event.reason for event in events if event.kind is EventKind.ALARM] == ["state_slow"]
    assert kept(make, tmp_path, disk.token)
    disk.takes = 0.0
    clock.advance(600)
    disk.token = issuer.token()
    issuer.revoke(disk.token)
    ask(source, clock)
    assert disk.enforced.pop() is False


def test_F37_a_folder_that_cannot_be_written_is_an_alarm_and_reading_goes_on(make, issuer, tmp_path, events):
    (tmp_path / "file").write_text("")
    issuer.revoke(token := issuer.token())
    source = make(state_folder=tmp_path / "file" / "below")
    step(source)
    assert hits(source, token)
    assert EventKind.ALARM in [event.kind for event in events]


def test_a_state_folder_for_an_address_found_later_needs_a_name(tmp_path):
    with pytest.raises(ConfigurationError):
        RevocationSource(lambda: None, state_folder=tmp_path)


# --- over real HTTP ---


def test_a_revocation_arrives_through_a_held_request_within_a_second():
    with FakeIssuer() as issuer:
        arrived = threading.Event()
        token = issuer.token()
        source = RevocationSource(issuer.issuer, on_event=lambda event: event.applied and arrived.set())
        source.start()
        _until(lambda: len(issuer.requests) >= 2)  # the whole list, and a request that is held
        begun = source._clock.monotonic()
        issuer.revoke(token)
        assert arrived.wait(5)
        assert source._clock.monotonic() - begun < 1
        assert hits(source, token)
        begun = source._clock.monotonic()
        source.stop()
        assert source._clock.monotonic() - begun < 1
        assert not source.running


def _until(condition):
    gate = threading.Event()
    for _ in range(1000):
        if condition():
            return
        gate.wait(0.005)
    raise AssertionError("it did not happen within 5 s")


# --- how long a revocation takes -----------------------------------------------------------------------------------


def propagation(source):
    return source.counters.propagation


def test_each_new_revocation_is_timed_from_its_creation_by_the_services_clock(source, script, issuer, clock, events):
    step(source, 2)

    def held(request):
        issuer.revoke(issuer.token("basket"))  # two entries, one revocation
        issuer.revoke_claim(sub="gone")
        clock.advance(0.4)
        return issuer.fetch(request)

    script.override["changes"] = held
    ask(source, clock)
    took = [event.propagation for event in events if event.propagation]
    assert [[round(seconds, 2) for seconds in each] for each in took] == [[0.4, 0.4]]  # the wire has milliseconds
    assert (sum(propagation(source).counts), round(propagation(source).total, 2)) == (2, 0.8)
    assert source.counters.as_mapping()["propagation"]["buckets"]["0.5"] == 2


def test_what_is_enforced_already_is_not_timed_again(source, script, issuer, clock):
    step(source, 2)
    issuer.revoke_claim(sub="gone")
    ask(source, clock)
    known = script.requests[-1].url
    clock.advance(60)
    script.override["changes"] = lambda request: issuer.fetch(replace(request, url=known))
    ask(source, clock)
    assert sum(propagation(source).counts) == 1


def test_the_first_list_and_what_came_while_a_reader_was_away_time_nothing(make, script, issuer, clock, tmp_path):
    first = make(state_folder=tmp_path)
    issuer.revoke_claim(sub="before")
    first._load_once()
    step(first, 2)
    first.stop()
    issuer.revoke_claim(sub="meanwhile")
    clock.advance(300)
    again = make(state_folder=tmp_path)
    again._load_once()
    step(again)
    assert script.last_path == "changes"
    assert sum(propagation(first).counts) == sum(propagation(again).counts) == 0
    issuer.revoke_claim(sub="then")
    ask(again, clock)
    assert sum(propagation(again).counts) == 1


def test_a_service_whose_clock_is_ahead_counts_as_no_time_and_is_counted_apart(source, script, issuer, clock):
    step(source, 2)

    def ahead(request):
        real = clock.now()
        clock.set_wall_clock(real + 1.5)
        issuer.revoke_claim(sub="gone")
        clock.set_wall_clock(real)
        return issuer.fetch(request)

    script.override["changes"] = ahead
    ask(source, clock)
    assert (propagation(source).ahead, propagation(source).total) == (1, 0.0)
    assert propagation(source).counts[0] == 1


def test_a_service_that_does_not_say_when_times_nothing(source, script, issuer, clock):
    step(source, 2)
    issuer.revoke_claim(sub="gone")
    without = lambda request: issuer.fetch(replace(request, url=request.url.replace("&created_at=true", "")))  # noqa: E731
    script.override["changes"] = without
    ask(source, clock)
    assert source.counters.applied == 1
    assert sum(propagation(source).counts) == 0
