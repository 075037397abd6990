import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry import (
    ANY_AUDIENCE,
    ClientCredentials,
    ConfigurationError,
    InsufficientScope,
    Introspector,
    InvalidToken,
    ProtocolError,
    Reason,
    TokenInfo,
    ValidatorNotReady,
)
from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry.introspector import read_answer
from tokenry.jose.encoding import dump_json
from tokenry.testing import FakeClock, FakeIssuer

ISSUER = "https://issuer.test"
NOW = 1_800_000_000


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


def make(issuer, **more):
    arguments = {"audience": issuer.audience, "client_id": "test-client", "client_secret": "test-secret"} | more
    return Introspector(issuer.issuer, fetcher=issuer, clock=issuer.clock, **arguments)


def questions(issuer):
    return [request for request in issuer.requests if request.path == "/oauth2/introspect"]


def test_it_says_the_same_as_the_local_validator(issuer):
    token = issuer.token("basket", scope="orders.read")
    here, there = issuer.validator().validate(token), make(issuer).validate(token)
    for name in ("iss", "sub", "client_id", "aud", "scope", "exp", "iat", "jti", "realm"):
        assert getattr(here, name) == getattr(there, name), name
    assert dict(here.claims) == dict(there.claims)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"expired": True}, Reason.INACTIVE),
        ({"wrong_key": True}, Reason.INACTIVE),
        ({"audience": "other"}, Reason.WRONG_AUDIENCE),
    ],
    ids=str,
)
def test_a_bad_token_is_refused(issuer, bad, reason):
    with pytest.raises(InvalidToken) as caught:
        make(issuer).validate(issuer.token(**bad))
    assert caught.value.reason is reason


def test_a_revoked_token_is_refused_at_the_next_call(issuer):
    introspector, token = make(issuer), issuer.token()
    assert introspector.validate(token)
    issuer.revoke(token)
    with pytest.raises(InvalidToken):
        introspector.validate(token)


def test_scopes_and_audiences_are_demanded_as_here(issuer):
    token = issuer.token(scope="a b", audience=["test-audience", "more"])
    introspector = make(issuer)
    assert introspector.validate(token, scope="a b", audience="more").sub == "test-client"
    with pytest.raises(InsufficientScope) as caught:
        introspector.validate(token, scope=["a", "c", "d"])
    assert caught.value.missing == ("c", "d")
    with pytest.raises(InvalidToken):
        introspector.validate(token, audience="other")
    assert make(issuer, audience=ANY_AUDIENCE).validate(issuer.token(audience="anybody")).aud == ("anybody",)


async def test_asyncio_goes_on_while_it_asks(issuer):
    introspector, ticks = make(issuer), []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    assert (await introspector.avalidate(issuer.token("basket"))).sub == "basket"
    ticking.cancel()
    assert ticks
    introspector.stop()


@pytest.mark.parametrize("token", ["x" * 8193, "", "a b", "a\nb", "tök", "\x00"])
def test_what_does_not_look_like_a_token_is_refused_without_asking(issuer, token):
    with pytest.raises(InvalidToken):
        make(issuer).validate(token)
    assert questions(issuer) == []


def test_without_an_answer_it_is_neither_yes_nor_no_and_nobody_is_flooded(issuer, clock):
    introspector, token = make(issuer), issuer.token()
    assert introspector.validate(token)
    issuer.down = True
    for _ in range(50):
        with pytest.raises(ValidatorNotReady):
            introspector.validate(token)
    issuer.down = False
    with pytest.raises(ValidatorNotReady):  # the second of rest
        introspector.validate(token)
    assert not introspector.ready
    clock.advance(1.1)
    assert introspector.validate(token)
    assert introspector.ready


class Answering:
    """A fetcher that gives one answer, whatever is asked."""

    def __init__(self, response):
        self.response, self.asked = response, 0

    def fetch(self, request):
        self.asked += 1
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    def cancel(self):
        pass


@pytest.mark.parametrize(
    "answer",
    [
        Response(status=401, body=b'{"error":"invalid_client"}'),
        Response(status=302),
        Response(status=500, body=b"oops"),
        Response(status=200, body=b"<html>"),
        Response(status=200, body=b"[]"),
        Response(status=200, body=b'{"active":"true"}'),
        Response(status=200, body=b'{"active":1}'),
        Response(status=200, body=b"{}"),
        Response(status=200, body=b'{"active":false,"active":true}'),
        Response(status=200, body=b'{"active":true}'),
        FetchFailed(Failure.TIMEOUT, "too slow"),
        FetchFailed(Failure.TOO_LARGE, "too large"),
    ],
    ids=repr,
)
def test_garbage_is_neither_yes_nor_no(answer, clock):
    fetcher = Answering(answer)
    introspector = Introspector(
        ISSUER,
        audience="a",
        client_id="c",
        client_secret="s",
        introspection_url=f"{ISSUER}/i",
        fetcher=fetcher,
        clock=clock,
    )
    for _ in range(10):
        with pytest.raises(ValidatorNotReady):
            introspector.validate("to.ke.n")
    assert fetcher.asked == 1


GOOD = {"active": True, "iss": ISSUER, "sub": "x", "aud": "a", "exp": NOW + 60, "iat": NOW, "scope": "a b"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://evil.example"}, Reason.UNTRUSTED_ISSUER),
        ({"exp": NOW}, Reason.EXPIRED),
        ({"nbf": NOW + 60}, Reason.NOT_YET_VALID),
        ({"cnf": {"jkt": "x"}}, Reason.UNCONFIRMED),
        ({"claims": {"cnf": {}}}, Reason.UNCONFIRMED),
        ({"token_type": "DPoP"}, Reason.WRONG_TYPE),
    ],
    ids=str,
)
def test_an_active_token_may_still_not_be_ours(changes, reason):
    with pytest.raises(InvalidToken) as caught:
        read_answer(GOOD | changes, issuer=ISSUER, now=NOW)
    assert caught.value.reason is reason


def test_an_answer_of_an_ordinary_server_is_enough():
    info = read_answer({"active": True, "client_id": "c", "exp": NOW + 1}, issuer=ISSUER, now=NOW)
    assert (info.sub, info.client_id, info.aud, info.scope, info.jti) == ("c", "c", (), frozenset(), None)


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "nbf", "jti", "realm", "client_id", "claims", "token_type", "cnf"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2)),
    )
)
def test_any_answer_gives_a_token_or_one_of_our_errors(changes):
    try:
        info = read_answer(GOOD | changes, issuer=ISSUER, now=NOW)
    except (InvalidToken, ProtocolError):
        return
    assert isinstance(info, TokenInfo)
    assert info.exp > NOW


def test_a_good_answer_is_remembered_only_as_long_as_was_asked_for(issuer, clock):
    introspector, token = make(issuer, remember=10), issuer.token(lifetime=25)
    assert introspector.validate(token) == introspector.validate(token)
    assert len(questions(issuer)) == 1
    issuer.revoke(token)
    clock.advance(9.9)
    assert introspector.validate(token)
    clock.advance(0.2)
    with pytest.raises(InvalidToken):
        introspector.validate(token)
    assert len(questions(issuer)) == 2


def test_what_is_remembered_ends_with_the_token(issuer, clock):
    introspector, token = make(issuer, remember=60), issuer.token(lifetime=5)
    assert introspector.validate(token)
    clock.advance(5)
    with pytest.raises(InvalidToken):
        introspector.validate(token)


def test_no_token_is_kept_in_the_clear(issuer):
    introspector, token = make(issuer, remember=60), issuer.token()
    introspector.validate(token)
    assert token not in repr(introspector.__dict__)
    assert "test-secret" not in repr(introspector) + repr(introspector.__dict__)


def test_it_can_ask_with_a_token_of_its_own(issuer):
    source = ClientCredentials("token.introspect", environ=issuer.environment(), fetcher=issuer, clock=issuer.clock)
    introspector = make(issuer, client_id=None, client_secret=None, source=source)
    assert introspector.validate(issuer.token("basket")).sub == "basket"
    assert questions(issuer)[0].headers["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    "arguments",
    [
        {"audience": "a"},
        {"audience": "a", "client_id": "c"},
        {"audience": "", "client_id": "c", "client_secret": "s"},
        {"audience": [], "client_id": "c", "client_secret": "s"},
        {"audience": "a", "client_id": "c", "client_secret": "s", "remember": 3600},
        {"audience": "a", "client_id": "c", "client_secret": "s", "introspection_url": "http://10.0.0.1/i"},
    ],
    ids=str,
)
def test_arguments_are_checked(arguments):
    with pytest.raises(ConfigurationError):
        Introspector(ISSUER, **arguments)


def test_over_real_http_from_many_threads():
    with FakeIssuer() as issuer:
        introspector = Introspector(
            issuer.issuer, audience=issuer.audience, client_id="test-client", client_secret="test-secret"
        )
        token, seen = issuer.token("basket"), []
        threads = [threading.Thread(target=lambda: seen.append(introspector.validate(token).sub)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == ["basket"] * 8
        introspector.stop()


def test_it_stands_in_for_the_validator_in_a_framework(issuer):
    from tests.support.frameworks import APPLICATIONS

    for name in ("asgi", "flask", "aiohttp"):
        app = APPLICATIONS[name](make(issuer))
        headers = list(issuer.headers("basket", scope="orders.read").items())
        assert app.call("GET", "/orders", headers).json == {"caller": "basket"}, name
        assert app.call("GET", "/orders", list(issuer.headers(expired=True).items())).status == 401, name


def test_the_answer_of_our_own_token_info_is_read(issuer):
    from tokenry.oauth.introspection import active_response

    info = issuer.validator().validate(issuer.token("basket", scope="a b"))
    body = dump_json(active_response(info))
    introspector = make(issuer, introspection_url=f"{ISSUER}/i")
    introspector._fetcher = Answering(Response(status=200, body=body))
    assert introspector.validate("to.ke.n").scope == {"a", "b"}
