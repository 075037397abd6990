"""
The library's contract (docs/library/public-api.md) in generated situations; tests/shared/client/test_contract.py has 1.

2. a token goes only to the listed origins; 3. `validate` does no I/O, and any revocation that fits denies; 4. an
unknown key is one refetch, not one for each call; 5. an old list is said first and refused later, and never forgets.
"""

import asyncio
import logging
from types import SimpleNamespace

import httpx2
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.adapters import BaseAdapter

import tokenry.httpx
import tokenry.requests
from tokenry import InvalidToken, StaticTokenSource, TokenValidator, ValidatorNotReady
from tokenry.testing import FakeClock, FakeIssuer

SECRET = "the-token-itself"
HOSTS = [
    "https://a.example",
    "https://b.example",
    "https://a.example:8443",
    "http://a.example",
    "https://a.example.evil",
]
GENERATED = settings(max_examples=60, deadline=None)

# --- 2. origins ---

CHAINS = st.lists(st.sampled_from(HOSTS), min_size=1, max_size=6)
LISTED = st.sets(st.sampled_from(HOSTS[:3]), min_size=1)


class Hops(BaseAdapter):
    """Sends requests from hop to hop, and writes down who got what."""

    def __init__(self, chain):
        super().__init__()
        self.chain, self.seen = chain, []

    def send(self, request, **_):
        self.seen.append((request.url, dict(request.headers)))
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response._content, response.connection = b"", self
        if len(self.seen) < len(self.chain):
            response.status_code = 307
            response.headers["Location"] = f"{self.chain[len(self.seen)]}/{len(self.seen)}"
        response.raw = SimpleNamespace(release_conn=lambda: None, _original_response=None, close=lambda: None)
        return response

    def close(self):
        pass


def by_requests(chain, listed):
    hops = Hops(chain)
    with requests.Session() as session:
        session.trust_env = False
        session.auth = tokenry.requests.BearerAuth(StaticTokenSource(SECRET), origins=listed)
        for scheme in ("http://", "https://"):
            session.mount(scheme, hops)
        session.get(f"{chain[0]}/0", timeout=1)
    return hops.seen


def by_httpx(chain, listed):
    seen = []

    def answer(request):
        seen.append((str(request.url), dict(request.headers)))
        if len(seen) == len(chain):
            return httpx2.Response(200)
        return httpx2.Response(307, headers={"Location": f"{chain[len(seen)]}/{len(seen)}"})

    auth = tokenry.httpx.BearerAuth(StaticTokenSource(SECRET), origins=listed)
    with httpx2.Client(auth=auth, follow_redirects=True, transport=httpx2.MockTransport(answer)) as client:
        client.get(f"{chain[0]}/0")
    return seen


@pytest.mark.parametrize("send", [by_requests, by_httpx])
@GENERATED
@given(chain=CHAINS, listed=LISTED)
def test_contract_2_a_token_goes_only_to_the_listed_origins(send, chain, listed):
    seen = send(chain, sorted(listed))
    assert [url.rpartition("/")[0] for url, _ in seen] == chain
    for url, headers in seen:
        sent = {name.lower(): value for name, value in headers.items()}
        if SECRET in str(sent):
            assert url.rpartition("/")[0] in listed
            assert sent["authorization"] == f"Bearer {SECRET}"
    first = {name.lower(): value for name, value in seen[0][1].items()}
    assert ("authorization" in first) == (chain[0] in listed)


# --- 3. any revocation that fits denies ---

NAMES = ("sub", "client_id", "realm")
VALUES = {"sub": ["a", "b"], "client_id": ["x", "y"], "realm": ["/services", "/other"]}
CLAIMS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})
RULES = st.lists(
    st.tuples(st.sets(st.sampled_from(NAMES), min_size=1), CLAIMS, st.integers(-3, 3)), min_size=0, max_size=6
)


@GENERATED
@given(claims=CLAIMS, rules=RULES, age=st.integers(0, 5))
def test_contract_3_a_token_is_refused_exactly_if_a_rule_fits(claims, rules, age):
    clock = FakeClock()
    issuer = FakeIssuer(clock=clock)
    validator = issuer.validator()
    token = issuer.token(claims["sub"], claims={**claims, "azp": claims["client_id"]})
    issued_at = int(clock.now())
    clock.advance(age)
    assert validator.validate(token).sub == claims["sub"]  # and is remembered from here on
    fits = False
    for names, values, shift in rules:
        cut_off = issued_at + shift
        issuer.revoke_claim(issued_before=cut_off, **{name: values[name] for name in names})
        fits = fits or (cut_off > issued_at and all(claims[name] == values[name] for name in names))
    if fits:
        with pytest.raises(InvalidToken, match="revoked"):
            validator.validate(token)
    else:
        assert validator.validate(token).sub == claims["sub"]


class Counting:
    """A fetcher that counts what is asked, by path."""

    def __init__(self, issuer):
        self._issuer, self.asked = issuer, []

    def fetch(self, request):
        self.asked.append(request.url)
        return self._issuer.fetch(request)

    def cancel(self):
        pass

    def of(self, end):
        return sum(url.endswith(end) for url in self.asked)


def running(issuer):
    counting = Counting(issuer)
    return counting, TokenValidator(issuer.issuer, audience=issuer.audience, fetchers=lambda: counting, reports=False)


def test_contract_3_judging_asks_nobody():
    with FakeIssuer() as issuer:
        counting, validator = running(issuer)
        good, bad = issuer.token("a"), issuer.token(expired=True)
        with validator:
            validator.stop()  # nothing runs behind it any more: what is asked now, judging asked
            before = len(counting.asked)
            for _ in range(200):
                assert validator.validate(good).sub == "a"
                with pytest.raises(InvalidToken):
                    validator.validate(bad)
            assert len(counting.asked) == before


# --- 4. unknown keys ---


@settings(max_examples=5, deadline=None)
@given(kids=st.lists(st.text("abcdef0123456789", min_size=1, max_size=40), min_size=1, max_size=40))
def test_contract_4_a_random_kid_is_no_request_a_call(kids):
    with FakeIssuer() as issuer:
        counting, validator = running(issuer)
        with validator:
            before = counting.of("jwks.json")

            async def all_of_them():
                tokens = [issuer.token(header={"kid": kid}) for kid in kids for _ in range(3)]
                return await asyncio.gather(*map(validator.avalidate, tokens), return_exceptions=True)

            outcomes = asyncio.run(all_of_them())
            for kid in kids:
                with pytest.raises(InvalidToken, match="unknown_key"):
                    validator.validate(issuer.token(header={"kid": kid}))
            assert {str(getattr(each, "reason", each)) for each in outcomes} == {"unknown_key"}
            assert counting.of("jwks.json") - before <= 1  # and then none for a while


# --- 5. old lists ---


@GENERATED
@given(
    warn=st.integers(1, 500),
    more=st.integers(1, 2000),
    age=st.integers(0, 3000),
    extra=st.booleans(),
)
def test_contract_5_an_old_list_is_said_first_and_refused_later(warn, more, age, extra):
    clock = FakeClock()
    issuer = FakeIssuer(clock=clock, lifetime=100_000)
    validator = issuer.validator(list_warn_age=warn, list_refuse_age=warn + more)
    good, revoked = issuer.token("a"), issuer.token("b")
    if extra:
        validator.validate(revoked)
    issuer.revoke(revoked)
    assert validator.ready
    assert not validator.degraded
    issuer.down = True
    clock.advance(age)
    assert validator.degraded == (age > warn)
    assert validator.ready == (age <= warn + more)
    if age <= warn + more:
        assert validator.validate(good).sub == "a"
    else:
        with pytest.raises(ValidatorNotReady) as refused:
            validator.validate(good)
        assert refused.value.retry_after > 0
    with pytest.raises(InvalidToken):
        validator.validate(revoked)


def test_contract_5_the_warning_is_written_down(caplog):
    clock = FakeClock()
    issuer = FakeIssuer(clock=clock)
    validator, token = issuer.validator(), issuer.token()
    issuer.down = True
    clock.advance(121)
    with caplog.at_level(logging.WARNING, logger="tokenry"):
        validator.validate(token)
    assert "revocation list is 121 s old" in caplog.text
    assert token not in caplog.text
