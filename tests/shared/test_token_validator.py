import asyncio
import logging
import threading

import pytest

from tokenry.errors import (
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    Reason,
    UnknownKey,
    Unready,
    ValidatorNotReady,
)
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.token_validator import TokenValidator
from tokenry.validation.policy import ANY_AUDIENCE


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture
def make(issuer, clock):
    made = []

    def make(**more):
        arguments = {"audience": issuer.audience, "fetchers": lambda: issuer, "clock": clock} | more
        made.append(TokenValidator(issuer.issuer, **arguments))
        return made[-1]

    yield make
    for validator in made:
        validator.stop()


def read_once(validator):
    """Let both sources read what there is, without their threads."""
    for source in (validator._keys, validator._revocations):
        for _ in range(3):
            source._poller.step()


def poll(validator):
    """Let the list be read once more, now."""
    validator._revocations._conversation._due = float("-inf")
    validator._revocations._poller.step()


@pytest.fixture
def validator(make):
    validator = make()
    read_once(validator)
    return validator


def reason_of(validator, token, **more):
    with pytest.raises(InvalidToken) as caught:
        validator.validate(token, **more)
    return caught.value.reason


def test_a_good_token_says_who_calls(validator, issuer):
    info = validator.validate(issuer.token("basket", scope="orders.read"))
    assert (info.sub, info.client_id, info.scope) == ("basket", "basket", {"orders.read"})


def test_scopes_are_demanded_all_of_them_in_any_spelling(validator, issuer):
    token = issuer.token(scope="a b")
    for scope in ("a", "a b", ["a"], ("a", "b"), {"b"}, frozenset({"a", "b"}), "", ()):
        validator.validate(token, scope=scope)
    with pytest.raises(InsufficientScope) as caught:
        validator.validate(token, scope="a c d")
    assert caught.value.missing == ("c", "d")


def test_an_audience_may_be_demanded_beyond_the_validators_own(make, issuer):
    validator = make(audience=ANY_AUDIENCE)
    read_once(validator)
    token = issuer.token(audience=["one", "two"])
    validator.validate(token, audience="two")
    assert reason_of(validator, token, audience="three") is Reason.WRONG_AUDIENCE


def test_the_audience_must_be_chosen():
    with pytest.raises(TypeError):
        TokenValidator("https://issuer.test")


def test_one_of_several_own_names_is_enough(make, issuer):
    validator = make(audience=["orders", "orders-v2"])
    read_once(validator)
    validator.validate(issuer.token(audience="orders-v2"))
    assert reason_of(validator, issuer.token(audience="other")) is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"expired": True}, Reason.EXPIRED),
        ({"wrong_key": True}, Reason.BAD_SIGNATURE),
        ({"alg": "none"}, Reason.WRONG_ALGORITHM),
        ({"alg": "HS256"}, Reason.WRONG_ALGORITHM),
        ({"audience": "other"}, Reason.WRONG_AUDIENCE),
        ({"lifetime": 3601}, Reason.LIFETIME_TOO_LONG),
        ({"header": {"typ": "JWT"}}, Reason.WRONG_TYPE),
        ({"claims": {"iss": "https://other.test"}}, Reason.UNTRUSTED_ISSUER),
        ({"claims": {"iat": None}}, Reason.MALFORMED_CLAIMS),
    ],
)
def test_a_bad_token_is_refused_with_its_reason(validator, issuer, bad, reason):
    assert reason_of(validator, issuer.token(**bad)) is reason


def test_the_plan_b_form_of_scope_is_read(validator, issuer):
    assert validator.validate(issuer.token(scope="a b", profile="planb")).scope == {"a", "b"}


def test_tokens_without_type_are_accepted_only_where_that_was_chosen(make, issuer):
    validator = make(accept_untyped=True)
    read_once(validator)
    validator.validate(issuer.token(header={"typ": "JWT"}))


def test_a_revoked_token_is_refused_also_when_its_signature_is_remembered(validator, issuer):
    token = issuer.token()
    for _ in range(3):
        validator.validate(token)
    issuer.revoke(token)
    poll(validator)
    assert reason_of(validator, token) is Reason.REVOKED


def test_nothing_is_judged_before_the_first_keys(make, issuer):
    validator = make()
    with pytest.raises(ValidatorNotReady) as caught:
        validator.validate(issuer.token())
    assert caught.value.cause is Unready.NO_KEYS
    assert validator.not_ready is Unready.NO_KEYS


def test_contract_4_5_nothing_is_accepted_before_the_first_list(make, issuer):
    validator = make()
    for _ in range(2):
        validator._keys._poller.step()
    with pytest.raises(ValidatorNotReady) as caught:
        validator.validate(issuer.token())
    assert caught.value.cause is Unready.NO_LIST
    assert validator.not_ready is Unready.NO_LIST
    assert validator.degraded


def test_contract_4_5_an_old_list_is_said_first_and_refused_later(validator, issuer, clock, caplog):
    token = issuer.token()
    issuer.down = True
    clock.advance(119)
    validator.validate(token)
    assert (validator.ready, validator.degraded) == (True, False)
    clock.advance(10)
    with caplog.at_level(logging.WARNING, logger="tokenry"):
        for _ in range(100):
            validator.validate(token)
    assert (validator.ready, validator.degraded) == (True, True)
    assert len([line for line in caplog.messages if "revocation list is" in line]) == 1
    clock.advance(minutes=13)
    with pytest.raises(ValidatorNotReady) as caught:
        validator.validate(token)
    assert caught.value.cause is Unready.LIST_TOO_OLD
    assert validator.not_ready is Unready.LIST_TOO_OLD
    assert token.split(".")[2] not in caplog.text


def test_what_was_revoked_stays_refused_on_a_list_that_is_too_old(validator, issuer, clock):
    token = issuer.token()
    issuer.revoke(token)
    poll(validator)
    issuer.down = True
    clock.advance(minutes=20)
    assert reason_of(validator, token) is Reason.REVOKED


def test_a_validator_is_ready_again_after_an_outage(validator, issuer, clock):
    issuer.down = True
    clock.advance(minutes=20)
    assert not validator.ready
    issuer.down = False
    poll(validator)
    assert validator.ready


def test_the_wall_clock_alone_does_not_make_a_list_young(validator, issuer, clock):
    clock.advance(minutes=20)
    clock.set_wall_clock(clock.now() - 1200)
    assert not validator.ready


def test_the_longest_lifetime_is_the_lists_and_only_grows(clock):
    issuer = FakeIssuer(clock=clock, lifetime=600)
    validator = TokenValidator(issuer.issuer, audience=issuer.audience, fetchers=lambda: issuer, clock=clock)
    read_once(validator)
    validator.validate(issuer.token(lifetime=600))
    assert reason_of(validator, issuer.token(lifetime=601)) is Reason.LIFETIME_TOO_LONG


def test_a_lifetime_that_was_chosen_is_not_replaced_by_the_lists(make, issuer):
    validator = make(max_token_lifetime=60)
    read_once(validator)
    assert reason_of(validator, issuer.token(lifetime=61)) is Reason.LIFETIME_TOO_LONG


def test_validate_never_waits_for_an_unknown_key_but_asks_for_it(validator, issuer):
    issuer.rotate_key()
    token = issuer.token()
    with pytest.raises(UnknownKey):
        validator.validate(token)
    validator._keys._poller.stop()
    validator._keys._poller.step()
    validator.validate(token)


async def test_avalidate_waits_for_a_key_that_was_published_since(make, issuer):
    validator = make()
    async with validator.lifespan():
        issuer.rotate_key()
        assert (await validator.avalidate(issuer.token("basket"))).sub == "basket"


async def test_avalidate_refuses_a_key_that_is_not_there_after_the_refetch(make, issuer):
    validator = make()
    async with validator.lifespan():
        with pytest.raises(UnknownKey):
            await validator.avalidate(issuer.token(header={"kid": "other"}))


async def test_avalidate_cannot_tell_when_the_refetch_fails(make, issuer):
    validator = make()
    async with validator.lifespan():
        issuer.rotate_key()
        token = issuer.token()
        issuer.down = True
        with pytest.raises(ValidatorNotReady) as caught:
            await validator.avalidate(token)
        assert caught.value.cause is Unready.KEY_FETCH_FAILED


async def test_a_flood_of_random_keys_costs_one_fetch(make, issuer):
    validator = make()
    async with validator.lifespan():
        before = _key_fetches(issuer)
        tokens = [issuer.token(header={"kid": f"k{number}"}) for number in range(200)]
        results = await asyncio.gather(*(validator.avalidate(token) for token in tokens), return_exceptions=True)
        assert {type(result) for result in results} == {UnknownKey}
        assert _key_fetches(issuer) - before == 1


def test_threads_may_wait_for_a_key(make, issuer):
    with make() as validator:
        issuer.rotate_key()
        validator.validate_waiting(issuer.token())
        with pytest.raises(UnknownKey):
            validator.validate_waiting(issuer.token(header={"kid": "other"}))


def _key_fetches(issuer):
    return sum(request.path.endswith("jwks.json") for request in issuer.requests)


def test_starting_waits_for_keys_and_list(make, issuer):
    with make() as validator:
        assert validator.ready
        validator.validate(issuer.token())
    assert not validator._keys._poller.running
    assert not validator._revocations.running


def test_a_start_without_the_platform_fails_after_a_bounded_time(make, issuer):
    issuer.down = True
    validator = make()
    validator.start()
    with pytest.raises(ValidatorNotReady):
        validator.wait_ready(0.05)


async def test_an_application_does_not_start_blind(make, issuer):
    issuer.down = True
    validator = make()
    validator.start()
    with pytest.raises(ValidatorNotReady):
        await validator.await_ready(0.05)


async def test_it_runs_with_an_aiohttp_application_and_with_an_asgi_lifespan(make, issuer):
    validator = make()
    context = validator.aiohttp_ctx(object())
    await anext(context)
    assert validator.ready
    with pytest.raises(StopAsyncIteration):
        await anext(context)
    assert not validator._revocations.running


def test_the_list_is_found_from_the_issuers_metadata(make, issuer):
    with make() as validator:
        assert validator.ready
    assert "/revocations/snapshot" in {request.path for request in issuer.requests}


def test_without_metadata_both_addresses_are_needed(issuer):
    with pytest.raises(ConfigurationError):
        TokenValidator(issuer.issuer, audience="a", jwks_uri="https://issuer.test/keys")


def test_two_addresses_do_without_metadata(make, issuer):
    validator = make(jwks_uri=f"{issuer.issuer}/.well-known/jwks.json", revocations_url=f"{issuer.issuer}/revocations")
    read_once(validator)
    validator.validate(issuer.token())
    assert not any("well-known/oauth" in request.path for request in issuer.requests)


def test_an_issuer_without_a_list_is_said_in_the_log(make, issuer, caplog):
    metadata = issuer._metadata
    issuer._metadata = lambda: metadata() | {"revocation_list_uri": None}
    validator = make()
    validator._keys._poller.step()
    assert "revocation_list_uri" in caplog.text


def test_events_and_numbers_are_there_for_metrics(make, issuer):
    events = []
    validator = make(on_event=events.append)
    read_once(validator)
    assert {event.source for event in events} == {"keys", "revocations"}
    stats = validator.stats()
    assert (stats["ready"], stats["degraded"], stats["not_ready"]) == (True, False, None)
    assert stats["revocations"]["polls"]["200"] >= 1
    assert stats["keys"]["last_success"] > 0
    assert stats["list_epoch"] == 1


def test_a_validator_of_a_fake_issuer_sees_everything_at_once(issuer):
    validator = issuer.validator()
    token = issuer.token()
    validator.validate(token)
    issuer.revoke(token)
    assert reason_of(validator, token) is Reason.REVOKED
    assert validator.stats()["keys"] == {}


def test_one_validator_serves_many_threads(validator, issuer):
    tokens = [issuer.token(f"c{number}") for number in range(20)]
    problems = []

    def work():
        for _ in range(50):
            for number, token in enumerate(tokens):
                if validator.validate(token).sub != f"c{number}":
                    problems.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_list_above_the_length_that_was_set_is_refused_whole_and_the_last_good_one_stays(make, issuer):
    first, later = issuer.token("a"), [issuer.token("b") for _ in range(3)]
    issuer.revoke(first)
    validator = make(list_max_entries=6)
    read_once(validator)
    for token in later:
        issuer.revoke(token)
    poll(validator)
    assert reason_of(validator, first) == "revoked"
    assert [validator.validate(token).sub for token in later] == ["b"] * 3
    assert validator._revocations.counters.rejected == {"malformed": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {"audience": ""},
        {"audience": ()},
        {"leeway": 61},
        {"list_warn_age": 901},
        {"list_max_entries": 0},
        {"list_max_entries": 100_000_001},
        {"revocations_url": "ftp://h"},
        {"name": "not a name"},
    ],
)
def test_unusable_settings_are_refused_at_once(arguments):
    with pytest.raises(ConfigurationError):
        TokenValidator("https://issuer.test", **({"audience": "a"} | arguments))
