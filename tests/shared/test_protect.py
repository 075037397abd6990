"""The one decision behind all frameworks, with whatever a caller may send."""

import asyncio
import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry import ConfigurationError, InsufficientScope, TokenryError
from tokenry.errors import UnknownKey
from tokenry.protect import (
    ANY_TOKEN,
    Access,
    Protection,
    PublicPaths,
    Refused,
    Require,
    access_of,
    demand_of_current,
    needs,
    public,
)
from tokenry.testing import FakeClock, FakeIssuer
from tokenry.wsgi import Running, authorization_values

ISSUER = FakeIssuer(clock=FakeClock())
GOOD = ISSUER.token("basket", scope="a b")
PROTECTION = Protection(validator=ISSUER.validator())
HEADER = st.text(alphabet=string.printable + "é\x00", max_size=60)


def outcome(values, access=ANY_TOKEN):
    try:
        here = PROTECTION.admit(values, access).sub
    except Refused as refused:
        here = refused.refusal
    try:
        there = asyncio.run(PROTECTION.aadmit(values, access)).sub
    except Refused as refused:
        there = refused.refusal
    try:
        info = PROTECTION.admit_at_once(values, access)
        at_once = there if info is None else info.sub  # None: has to be waited for
    except Refused as refused:
        at_once = refused.refusal
    assert here == there == at_once, "threads, asyncio and the way at once differ"
    return here


def test_a_key_that_has_to_be_waited_for_is_waited_for():
    class Judge:
        asked = 0

        def validate_at_once(self, _token, _confirmation=None):
            raise UnknownKey("https://issuer.example")

        async def avalidate(self, token, **_):
            self.asked += 1
            return ISSUER.validator().validate(token)

    judge = Judge()
    protection = Protection(validator=judge)
    assert protection.admit_at_once([f"Bearer {GOOD}"]) is None
    assert asyncio.run(protection.aadmit([f"Bearer {GOOD}"])).sub == "basket"
    assert judge.asked == 1


def test_a_judge_that_asks_another_service_is_never_asked_at_once():
    class Judge:
        async def avalidate(self, token, **_):
            return ISSUER.validator().validate(token)

    assert Protection(validator=Judge()).admit_at_once([f"Bearer {GOOD}"]) is None


@given(st.lists(HEADER | HEADER.map(lambda text: f"Bearer {text}"), max_size=3))
def test_whatever_is_sent_nobody_gets_in_without_a_valid_token(values):
    refusal = outcome(values)
    assert refusal.status in {400, 401}
    assert refusal.challenge.startswith("Bearer")
    assert all(text.isascii() and "\n" not in text and "\r" not in text for _, text in refusal.headers)


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_one_changed_character_closes_the_door(place, character):
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    expected = "basket" if changed == GOOD else 401
    got = outcome([f"Bearer {changed}"])
    assert (got if isinstance(got, str) else got.status) == expected


@given(st.sets(st.sampled_from("abcd"), min_size=1), st.booleans())
def test_scopes_decide_as_sets_do(wanted, any_of):
    got = outcome([f"Bearer {GOOD}"], needs(wanted, any_of=any_of))
    enough = bool(wanted & {"a", "b"}) if any_of else wanted <= {"a", "b"}
    assert (got == "basket") if enough else (got.status == 403)


def test_an_error_that_is_not_known_lets_nobody_in():
    class Odd(TokenryError):
        pass

    with pytest.raises(Odd):
        PROTECTION.refusal(Odd())


@pytest.mark.parametrize("url", ["orders.example", "ftp://h/x", 'https://h/"', "https://h/ x", "https://h/\\"])
def test_metadata_that_cannot_stand_in_a_challenge_are_refused(url):
    with pytest.raises(ConfigurationError):
        Protection(validator=ISSUER.validator(), resource_metadata=url)


def test_a_mark_is_found_on_functions_classes_and_methods():
    require = Require(lambda handler, _access: handler)

    class View:
        @require("a")
        def get(self): ...

        @public
        def head(self): ...

        def post(self): ...

    assert access_of(View, "GET") == needs(["a"])
    assert access_of(View, "HEAD").public
    assert access_of(View, "POST") is ANY_TOKEN
    assert access_of(object()) is ANY_TOKEN
    assert [str(each) for each in (ANY_TOKEN, Access(public=True), needs(["b a"]), needs(["b", "a"], any_of=True))] == [
        "any valid token",
        "public",
        "a and b",
        "a or b",
    ]


def test_scopes_are_demanded_of_the_request_that_is_handled_or_of_none():
    with pytest.raises(RuntimeError):
        demand_of_current(needs(["a"]))
    with pytest.raises(InsufficientScope):
        needs(["z"]).demand(ISSUER.validator().validate(GOOD))


@given(st.text(alphabet="/.\\ab*\0%", max_size=12))
def test_a_path_is_public_only_if_it_was_named(tail):
    paths = PublicPaths(["/health", "/static/*"])
    path = f"/static/{tail}"
    parts = path.split("/")
    if path in paths:
        assert ".." not in parts
        assert "//" not in path
        assert "\\" not in path
    assert f"/other/{tail}" not in paths
    assert "/staticx" not in paths


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (None, []),
        ("Bearer a", ["Bearer a"]),
        ("Bearer a,Bearer b", ["Bearer a", "Bearer b"]),
        ('Digest a="b", c="d"', ['Digest a="b", c="d"']),
    ],
)
def test_header_fields_that_a_wsgi_server_joined_are_told_apart(value, values):
    environ = {} if value is None else {"HTTP_AUTHORIZATION": value}
    assert authorization_values(environ) == values


class Counting:
    not_ready = None

    def __init__(self):
        self.started = 0

    def start(self):
        self.started += 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_validator_is_started_once_in_each_process():
    validator = Counting()
    running = Running(validator)
    for _ in range(3):
        running.ensure()
    assert (validator.started, running.needed) == (1, False)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            fine = running.needed
            running.ensure()
            os._exit(0 if fine and validator.started == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
