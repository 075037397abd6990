"""What a validator reports of the revocations that it enforces."""

import json
import random

import pytest

from tokenry.client.access_token import AccessToken
from tokenry.errors import InvalidToken, TokenFetchError
from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, parse_json_object
from tokenry.protect import Protection, Refused
from tokenry.revocation.entries import Kind
from tokenry.revocation.judged import JudgedToken
from tokenry.revocation.rules import Hit
from tokenry.sources.reports import MAX_IDS, MAX_REFUSALS, NOT_TAKEN_SECONDS, REFUSALS_SECONDS
from tokenry.sources.revocations import RevocationSource
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer, _LiveKeys
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy


class Desk:
    """Takes reports, or does not."""

    def __init__(self):
        self.answer = Response(status=204)
        self.requests = []

    def fetch(self, request):
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self):
        pass

    @property
    def bodies(self):
        return [json.loads(request.body) for request in self.requests]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def source(issuer, clock, desk):
    source = RevocationSource(
        "https://r.test", fetcher=issuer, clock=clock, name="orders", version="1.2", report_fetcher=desk
    )
    source._poller.step()
    source._reports._conversation._uniform = random.Random(7)  # noqa: S311 -- jitter
    source._reports.step()  # the first one, as at the start
    desk.requests.clear()
    return source


def read(source, clock, seconds=0.3):
    clock.advance(seconds)
    source._conversation._due = float("-inf")  # as if it had been held open until now
    source._poller.step()


def tell(source, clock, seconds=10):
    clock.advance(seconds)
    source._reports.step()


def test_a_report_says_since_when_a_revocation_is_enforced(source, issuer, clock, desk):
    read(source, clock)
    name = issuer.revocations.revoke_claims({"sub": "basket"})
    read(source, clock)
    enforced_at = clock.now()
    tell(source, clock)
    report = desk.bodies[0]
    assert desk.requests[0].url == "https://r.test/validators/reports"
    assert (report["name"], report["version"]) == ("orders", "1.2")
    assert report["enforced"] == {name: pytest.approx(enforced_at, abs=0.002)}
    assert report["as_of"] == pytest.approx(source.snapshot().as_of)
    assert report["list_age"] == pytest.approx(10, abs=1)


def test_what_the_first_list_brings_is_no_news(issuer, clock, desk):
    issuer.revocations.revoke_claims({"sub": "basket"})
    source = RevocationSource("https://r.test", fetcher=issuer, clock=clock, name="orders", report_fetcher=desk)
    source._poller.step()
    source._reports.step()
    assert desk.bodies[0]["enforced"] == {}


def test_a_revocation_is_reported_once_although_the_service_repeats_it(source, issuer, clock, desk):
    read(source, clock)
    issuer.revocations.revoke_claims({"sub": "basket"})
    read(source, clock)
    tell(source, clock)
    source._conversation._cursor = "0"  # the service sends everything again
    read(source, clock)
    for _ in range(30):
        tell(source, clock)
    assert sum(len(body["enforced"]) for body in desk.bodies) == 1


def test_many_revocations_at_once_make_few_and_bounded_reports(source, issuer, clock, desk):
    read(source, clock)
    for number in range(2 * MAX_IDS):
        issuer.revocations.revoke_claims({"sub": f"s{number}"})
    read(source, clock)
    for _ in range(100):
        tell(source, clock, 0.5)
    assert len(desk.requests) <= 2
    assert all(len(body["enforced"]) <= MAX_IDS for body in desk.bodies)


def test_without_news_it_tells_its_age_once_a_minute(source, clock, desk):
    for _ in range(600):
        tell(source, clock, 1)
    assert 9 <= len(desk.requests) <= 14


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_where_reports_are_not_taken_it_asks_again_much_later(source, issuer, clock, desk, status):
    desk.answer = Response(status=status)
    tell(source, clock, 70)
    assert len(desk.requests) == 1
    for _ in range(50):
        tell(source, clock, 10)
    assert len(desk.requests) == 1
    tell(source, clock, NOT_TAKEN_SECONDS)
    assert len(desk.requests) == 2


@pytest.mark.parametrize("answer", [FetchFailed(Failure.TIMEOUT, "away"), Response(status=503)])
def test_what_could_not_be_told_is_told_later(source, issuer, clock, desk, answer):
    read(source, clock)
    name = issuer.revocations.revoke_claims({"sub": "basket"})
    read(source, clock)
    desk.answer = answer
    tell(source, clock)
    desk.answer = Response(status=204)
    tell(source, clock, 30)
    assert list(desk.bodies[-1]["enforced"]) == [name]
    tell(source, clock, 30)


def test_a_source_without_a_fetcher_for_reports_sends_none(issuer, clock):
    source = RevocationSource("https://r.test", fetcher=issuer, clock=clock, name="orders")
    assert source._others() == []


# --- refusals ---


def refuse(source, issuer, clock, token, times=1):
    hit = source.snapshot().value.hits(judged(token), now=clock.now())
    for _ in range(times):
        source.refused(hit)
    return b64url_encode(hit.fingerprint)


def judged(token):
    claims = parse_json_object(jws.split(token).payload)
    return JudgedToken(
        iss=claims["iss"], jti=claims["jti"], kid="k", iat=claims["iat"], claims=claims,
        signing_input=jws.split(token).signing_input.decode(),
    )  # fmt: skip


def test_a_report_says_how_many_tokens_were_refused_by_each_fingerprint_and_when_last(source, issuer, clock, desk):
    issuer.revoke(token := issuer.token())
    read(source, clock)
    tell(source, clock)
    fingerprint = refuse(source, issuer, clock, token, times=3)
    clock.advance(REFUSALS_SECONDS - 10)
    assert isinstance(source._reports.step(), float), "not more often than every quarter of a minute"
    tell(source, clock)
    assert desk.bodies[-1]["refusals"] == {fingerprint: 3}
    assert desk.bodies[-1]["refused_ago"] == {fingerprint: 15.0}
    tell(source, clock, 60)
    assert desk.bodies[-1]["refusals"] == {}, "what was told is not told again"


def test_refusals_that_could_not_be_told_are_told_later_with_those_that_came_meanwhile(source, issuer, clock, desk):
    issuer.revoke(token := issuer.token())
    read(source, clock)
    tell(source, clock)
    fingerprint = refuse(source, issuer, clock, token, times=2)
    desk.answer = FetchFailed(Failure.TIMEOUT, "away")
    tell(source, clock, 20)
    refuse(source, issuer, clock, token)
    desk.answer = Response(status=204)
    tell(source, clock, 60)
    assert desk.bodies[-1]["refusals"] == {fingerprint: 3}
    tell(source, clock, 60)
    assert desk.bodies[-1]["refusals"] == {}


def test_what_is_refused_while_a_report_is_on_its_way_is_told_next(source, issuer, clock, desk):
    issuer.revoke(token := issuer.token())
    read(source, clock)
    tell(source, clock)
    refuse(source, issuer, clock, token, times=2)
    taken = desk.fetch

    def fetch(request):
        refuse(source, issuer, clock, token)
        return taken(request)

    desk.fetch = fetch
    tell(source, clock, 20)
    desk.fetch = taken
    tell(source, clock, 60)
    assert [sum(body["refusals"].values()) for body in desk.bodies[-2:]] == [2, 1]


def test_the_fingerprints_whose_refusals_are_counted_are_bounded(source, clock, desk):
    for number in range(MAX_REFUSALS + 100):
        source.refused(Hit(kind=Kind.JTI, fingerprint=number.to_bytes(16, "big")))
    source.refused(Hit(kind=Kind.ALL))
    tell(source, clock, 60)
    assert len(desk.bodies[-1]["refusals"]) == MAX_REFUSALS
    assert len(desk.requests[-1].body) < 64 * 1024


def test_the_validator_counts_a_refusal_once_for_each_answer(issuer, clock, desk):
    source = RevocationSource("https://r.test", fetcher=issuer, clock=clock, report_fetcher=desk)
    policy = ValidationPolicy(
        issuers=(TrustedIssuer(issuer=issuer.issuer, max_token_lifetime=3600),), audience=ANY_AUDIENCE
    )
    validator = TokenValidator.from_sources(policy, keys=_LiveKeys(issuer), revocations=source, clock=clock)
    good, bad = issuer.token(), issuer.token()
    issuer.revoke(bad)
    source._poller.step()
    for judge in (validator.validate, validator.validate_waiting, validator.validate_at_once):
        judge(good)
        with pytest.raises(InvalidToken):
            judge(bad)
    protection = Protection(validator=validator)  # what the middlewares ask
    for admit in (protection.admit, protection.admit_at_once):
        with pytest.raises(Refused):
            admit([f"Bearer {bad}"])
    source._reports.step()
    (counts,) = [body["refusals"] for body in desk.bodies]
    assert list(counts.values()) == [5]


# --- as whom ---


class Tokens:
    """A source of tokens, each with a number."""

    def __init__(self):
        self.number, self.fails = 1, False

    def get(self):
        if self.fails:
            raise TokenFetchError("the issuer is away")
        return AccessToken(value=f"token-{self.number}", expires_at=2e9)

    def invalidate(self, token=None):
        self.number += token is None or token.value == f"token-{self.number}"


@pytest.fixture
def tokens():
    return Tokens()


@pytest.fixture
def known(issuer, clock, desk, tokens):
    """A source whose reports carry a token, while the list is open."""
    asked = []

    class Service:
        def fetch(self, request):
            asked.append(request)
            return issuer.fetch(request)

        def cancel(self):
            pass

    source = RevocationSource(
        "https://r.test", fetcher=Service(), clock=clock, name="orders", report_fetcher=desk, report_bearer=tokens
    )
    source._poller.step()
    assert "Authorization" not in asked[0].headers
    return source


def sent_as(desk):
    return [request.headers.get("Authorization") for request in desk.requests]


def test_reports_carry_a_token_of_their_own(known, clock, desk):
    tell(known, clock)
    assert sent_as(desk) == ["Bearer token-1"]


def test_a_report_whose_token_was_refused_is_sent_again_with_another(known, issuer, clock, desk):
    tell(known, clock)
    name = issuer.revocations.revoke_claims({"sub": "basket"})
    read(known, clock)
    desk.answer = Response(status=401)
    tell(known, clock)
    desk.answer = Response(status=204)
    tell(known, clock, 60)
    assert sent_as(desk) == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert list(desk.bodies[-1]["enforced"]) == [name]


def test_without_a_token_nothing_is_reported_and_the_list_is_read_all_the_same(known, issuer, clock, desk, tokens):
    tokens.fails = True
    tell(known, clock)
    assert desk.requests == []
    issuer.revoke(token := issuer.token())
    read(known, clock)
    assert known.snapshot().value.hits(judged(token), now=clock.now())
    tokens.fails = False
    tell(known, clock, 60)
    assert sent_as(desk) == ["Bearer token-1"]
