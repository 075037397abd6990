"""Breaking the glass: what an extension does to a validator, and what it does not."""

import json

import pytest

from tokenry.errors import ConfigurationError, InvalidToken, Unready, ValidatorNotReady
from tokenry.http.fetch import Failure, FetchFailed, Headers, Response
from tokenry.jose.jwk import PrivateKey
from tokenry.revocation.extension import ListExtension
from tokenry.sources.events import EventKind
from tokenry.sources.extension import ExtensionSource
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.token_validator import TokenValidator

KEY = PrivateKey.generate()
PUBLIC = json.dumps(KEY.public.to_jwk())


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


def word(platform, clock, *, hours=4.0, key=KEY, **changes):
    now = int(clock.now())
    members = {
        "issuer": platform.issuer, "issued_at": now, "until": now + int(hours * 3600), "name": "x1", "by": "jdoe",
        "reason": "fire", **changes,
    }  # fmt: skip
    return ListExtension(**members).sign(key)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "extension.jwt"


@pytest.fixture
def events():
    return []


@pytest.fixture
def validator(issuer, clock, path, events):
    validator = TokenValidator(
        issuer.issuer, audience="test-audience", fetchers=lambda: issuer, clock=clock, extend_url=path.as_uri(),
        extend_key=PUBLIC, on_event=events.append, list_refuse_age=900.0,
    )  # fmt: skip
    validator._key_source._poller.step()
    validator._key_source._poller.step()
    validator._revocation_source._poller.step()
    return validator


def look(validator, clock):
    clock.advance(6)
    validator._extension._poller.step()


def test_an_old_list_is_refused_without_and_judged_by_with_an_extension(validator, issuer, clock, path):
    revoked = issuer.token()
    issuer.revoke(revoked)
    validator._revocation_source._conversation._due = float("-inf")
    validator._revocation_source._poller.step()
    clock.advance(1000)
    good = issuer.token()
    with pytest.raises(ValidatorNotReady) as caught:
        validator.validate(good)
    assert caught.value.cause is Unready.LIST_TOO_OLD
    path.write_text(word(issuer, clock))
    look(validator, clock)
    assert validator.validate(good).sub
    assert validator.ready
    assert validator.degraded
    with pytest.raises(InvalidToken):  # what the list refuses stays refused
        validator.validate(revoked)


def test_it_ends_at_its_time(validator, issuer, clock, path):
    clock.advance(1000)
    path.write_text(word(issuer, clock, hours=0.5))
    look(validator, clock)
    assert validator.ready
    clock.advance(1800)
    assert not validator.ready
    with pytest.raises(ValidatorNotReady):
        validator.validate(issuer.token())


def test_taking_it_away_ends_it(validator, issuer, clock, path, events):
    clock.advance(1000)
    path.write_text(word(issuer, clock))
    look(validator, clock)
    assert validator.ready
    path.unlink()
    look(validator, clock)
    assert not validator.ready
    assert [event.reason for event in events if event.source == "extension"] == ["list_extended", "extension_withdrawn"]


def test_it_says_who_broke_the_glass_and_why(validator, issuer, clock, path, events):
    path.write_text(word(issuer, clock, ticket="SEC-9"))
    look(validator, clock)
    look(validator, clock)
    alarms = [event for event in events if event.source == "extension" and event.kind is EventKind.ALARM]
    assert len(alarms) == 1
    for said in ("jdoe", "fire", "SEC-9", "x1"):
        assert said in alarms[0].detail


def test_it_makes_no_validator_ready_that_never_had_a_list(issuer, clock, path):
    path.write_text(word(issuer, clock))
    validator = TokenValidator(
        issuer.issuer, audience="test-audience", fetchers=lambda: issuer, clock=clock, extend_url=path.as_uri(),
        extend_key=PUBLIC,
    )  # fmt: skip
    look(validator, clock)
    validator._key_source._poller.step()
    validator._key_source._poller.step()
    assert validator.extension is not None
    assert validator.not_ready is Unready.NO_LIST


@pytest.mark.parametrize(
    "forge",
    [
        lambda issuer, clock: word(issuer, clock, key=PrivateKey.generate()),
        lambda issuer, clock: word(issuer, clock, issuer="https://other.example.org"),
        lambda issuer, clock: word(issuer, clock, issued_at=int(clock.now()) + 600, until=int(clock.now()) + 900),
        lambda issuer, clock: word(issuer, clock, issued_at=int(clock.now()) - 900, until=int(clock.now()) - 600),
        lambda issuer, clock: "garbage",
    ],
)
def test_what_is_not_signed_by_the_pinned_key_for_now_and_here_changes_nothing(validator, issuer, clock, path, forge):
    clock.advance(1000)
    path.write_text(forge(issuer, clock))
    look(validator, clock)
    assert not validator.ready
    assert validator.extension is None


def test_a_forged_one_does_not_end_the_good_one(validator, issuer, clock, path):
    clock.advance(1000)
    path.write_text(word(issuer, clock))
    look(validator, clock)
    path.write_text("garbage")
    look(validator, clock)
    assert validator.ready


def test_a_kept_list_that_is_too_old_is_enough_to_start_with_by_an_extension(issuer, clock, path, tmp_path):
    def make():
        return TokenValidator(
            issuer.issuer, audience="test-audience", fetchers=lambda: issuer, clock=clock, extend_url=path.as_uri(),
            extend_key=PUBLIC, state_folder=tmp_path / "state",
        )  # fmt: skip

    first = make()
    for _ in range(2):
        first._key_source._poller.step()
    first._revocation_source._poller.step()
    first.stop()
    clock.advance(3600)
    path.write_text(word(issuer, clock))
    second = make()
    second._extension._poller.step()
    second._revocation_source._load_once()
    assert second.list_age() > 3500
    path.unlink()
    third = make()
    third._revocation_source._load_once()
    assert third.list_age() is None


class Place:
    def __init__(self):
        self.answer = Response(status=404)

    def fetch(self, request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self):
        pass


def test_at_a_url_an_outage_keeps_it_and_its_absence_ends_it(issuer, clock):
    place = Place()
    source = ExtensionSource(
        "https://cdn.example.org/x.jwt", issuer=issuer.issuer, key=PUBLIC, fetcher=place, clock=clock
    )
    source._poller.step()
    assert source.current() is None
    place.answer = Response(status=200, headers=Headers([]), body=word(issuer, clock).encode())
    for answer, held in (
        (place.answer, True), (FetchFailed(Failure.TIMEOUT, "away"), True), (Response(status=503), True),
        (Response(status=304), True), (Response(status=404), False),
    ):  # fmt: skip
        place.answer = answer
        clock.advance(31)
        source._poller.step()
        assert (source.current() is not None) is held


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x.example.org/x", PUBLIC),
        ("https://x.example.org/x", "{}"),
        ("https://x.example.org/x", "not json"),
        ("https://x.example.org/x", '{"kty":"oct","k":"AAAA"}'),
    ],
)
def test_settings_that_cannot_be_used_are_faults(issuer, url, key):
    with pytest.raises(ConfigurationError):
        ExtensionSource(url, issuer=issuer.issuer, key=key)


def test_a_place_without_a_key_is_a_fault(issuer):
    with pytest.raises(ConfigurationError, match="extend_key"):
        TokenValidator(issuer.issuer, audience="a", extend_url="https://x.example.org/x")
