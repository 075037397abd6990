import asyncio
import json
import logging
import os
import re
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from tokenry.client.advice import ADVICE
from tokenry.client.default import default_source
from tokenry.client.token_source import ClientCredentials, FileTokenSource, StaticTokenSource
from tokenry.errors import ConfigurationError, TokenFetchError
from tokenry.http.fetch import Headers, Response
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import CLIENT_SECRET, PASSWORD, USERNAME, FakeIssuer


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


class Gate:
    """A fetcher in front of the fake issuer that can make everybody wait."""

    def __init__(self, issuer):
        self.issuer, self.open, self.waiting = issuer, threading.Event(), threading.Event()
        self.open.set()

    def fetch(self, request):
        self.waiting.set()
        assert self.open.wait(10)
        return self.issuer.fetch(request)

    def cancel(self):
        pass


@pytest.fixture
def gate(issuer):
    return Gate(issuer)


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def make(issuer, clock, gate, pauses):
    def make(scope="orders.read", **more):
        arguments = {"clock": clock, "fetcher": gate, "environ": issuer.environment(), "pause": pauses.append}
        return ClientCredentials(scope, **(arguments | more))

    return make


@pytest.fixture
def source(make):
    return make()


def asked(issuer):
    return len(issuer.token_requests())


def settle(source):
    """Wait until no fetch is under way."""
    flight = source._flight
    if flight is not None:
        flight.exception(10)
    for thread in threading.enumerate():
        if thread.name == "tokenry-token":
            thread.join(10)


def test_the_first_token_is_waited_for_and_then_held(source, issuer):
    token = source.get()
    assert issuer.validator().validate(token.value, scope="orders.read").sub == "test-client"
    assert source.get() is token
    assert asked(issuer) == 1
    assert token.scope == {"orders.read"}
    assert token.expires_at == issuer.clock.now() + 3600


def test_the_token_endpoint_is_found_from_the_issuer_and_remembered(source, issuer, clock):
    source.get()
    clock.advance(minutes=59)
    source.invalidate()
    source.get()
    paths = [request.path for request in issuer.requests]
    assert paths == ["/.well-known/oauth-authorization-server", "/oauth2/token", "/oauth2/token"]


def test_forty_threads_cause_one_request(source, issuer, gate):
    gate.open.clear()
    tokens = []
    threads = [threading.Thread(target=lambda: tokens.append(source.get())) for _ in range(40)]
    for thread in threads:
        thread.start()
    assert gate.waiting.wait(5)
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert (len(tokens), len(set(map(id, tokens))), asked(issuer)) == (40, 1, 1)


async def test_fifty_coroutines_and_a_thread_cause_one_request(source, issuer, gate):
    gate.open.clear()
    tasks = [asyncio.create_task(source.aget()) for _ in range(50)]
    thread = asyncio.create_task(asyncio.to_thread(source.get))
    await asyncio.to_thread(gate.waiting.wait, 5)
    gate.open.set()
    tokens = await asyncio.gather(*tasks, thread)
    assert (len({token.value for token in tokens}), asked(issuer)) == (1, 1)


async def test_one_that_gives_up_does_not_disturb_the_others(source, issuer, gate):
    gate.open.clear()
    impatient = asyncio.create_task(source.aget())
    patient = asyncio.create_task(source.aget())
    await asyncio.to_thread(gate.waiting.wait, 5)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    await asyncio.sleep(0.01)
    gate.open.set()
    assert (await patient).value
    assert asked(issuer) == 1


def test_several_event_loops_share_one_source(source, issuer):
    tokens = []
    threads = [threading.Thread(target=lambda: tokens.append(asyncio.run(source.aget()))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len({token.value for token in tokens}), asked(issuer)) == (1, 1)


def test_renewal_is_in_the_background_while_the_old_token_serves(source, issuer, clock, gate):
    old = source.get()
    clock.advance(minutes=49)
    gate.open.clear()
    assert source.get() is old
    assert source.get() is old
    gate.open.set()
    settle(source)
    assert source.get() is not old
    assert asked(issuer) == 2


def test_survives_issuer_outage(source, issuer, clock):
    token = source.get()
    issuer.down = True
    clock.advance(minutes=50)
    assert source.get() == token
    settle(source)
    clock.advance(minutes=9, seconds=49)
    assert source.get() == token
    settle(source)
    clock.advance(2)
    with pytest.raises(TokenFetchError):
        source.get()


def test_while_the_issuer_is_down_renewals_are_half_a_minute_apart(source, issuer, clock, gate):
    source.get()
    issuer.down = True
    clock.advance(minutes=49)
    tries = 0
    for _ in range(300):
        gate.waiting.clear()
        source.get()
        settle(source)
        tries += gate.waiting.is_set()
        clock.advance(1)
    assert tries == 10


def test_retry_after_is_honoured_while_the_old_token_is_good(source, issuer, clock):
    source.get()
    clock.advance(minutes=49)
    issuer.enqueue(Response(status=503, headers=Headers([("Retry-After", "120")]), body=b"{}"))
    source.get()
    settle(source)
    clock.advance(119)
    source.get()
    settle(source)
    assert asked(issuer) == 2
    clock.advance(1)
    source.get()
    settle(source)
    assert asked(issuer) == 3


def test_who_waits_gets_three_tries(source, issuer, pauses):
    for _ in range(2):
        issuer.enqueue(Response(status=503, body=b"{}"))
    assert source.get()
    assert asked(issuer) == 3
    assert pauses == [0.25, 0.5]


def test_a_refusal_that_will_not_change_is_not_tried_again(make, issuer):
    source = make("refused")
    with pytest.raises(TokenFetchError) as caught:
        source.get()
    assert (asked(issuer), caught.value.error, caught.value.retryable) == (1, "invalid_scope", False)


def test_contract_4_18_a_failing_issuer_is_not_hammered(source, issuer, clock, gate):
    issuer.down = True
    fetches = 0
    for _ in range(1000):
        gate.waiting.clear()
        with pytest.raises(TokenFetchError):
            source.get()
        fetches += gate.waiting.is_set()
        clock.advance(0.1)
    assert fetches <= 12, "in 100 s: after 1, 2, 4, 8, 16, 30 s and so on"


def test_the_error_names_client_source_tries_and_cause_and_no_secret(source, issuer, caplog):
    issuer.clients = {"test-client": "another"}
    with caplog.at_level(logging.DEBUG, logger="tokenry"), pytest.raises(TokenFetchError) as caught:
        source.get()
    text = str(caught.value)
    for part in ("invalid_client", "'test-client'", "TOKENRY_CLIENT_ID", "tried 1 time in"):
        assert part in text
    assert CLIENT_SECRET not in text + caplog.text + repr(source) + source.description


def test_the_error_says_what_to_do(make, issuer):
    source = make()
    issuer.clients.clear()
    with pytest.raises(TokenFetchError, match=r"invalid_client .* - check client id and secret"):
        source.get()


def test_each_error_of_the_page_has_its_advice():
    page = (Path(__file__).parents[3] / "docs" / "library" / "errors.md").read_text()
    section = page.partition("## Getting a token")[2].partition("\n## ")[0]
    codes = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.MULTILINE))))
    assert set(ADVICE) == codes - {"temporarily_unavailable"}


def test_each_who_is_told_gets_an_error_of_its_own(source, issuer):
    issuer.down = True
    errors = []
    for _ in range(2):
        with pytest.raises(TokenFetchError) as caught:
            source.get()
        errors.append(caught.value)
    assert errors[0] is not errors[1]


@pytest.mark.parametrize("lifetime", [1, 2])
def test_contract_4_18_tokens_of_a_second_do_not_cause_a_flood(make, clock, gate, lifetime):
    issuer = FakeIssuer(clock=clock, lifetime=lifetime)
    begun = []

    class Counting(Gate):
        def fetch(self, request):
            if request.method == "POST":
                begun.append(clock.monotonic())
            return super().fetch(request)

    source = make(environ=issuer.environment(), fetcher=Counting(issuer), pause=clock.advance)
    for _ in range(400):
        source.get()
        settle(source)
        clock.advance(0.05)
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(begun))
    assert len(begun) >= 10


def test_a_refused_token_is_fetched_anew_once(source, issuer, clock):
    first = source.get()
    clock.advance(2)
    assert source.invalidate(first)
    second = source.get()
    assert second != first
    assert not source.invalidate(second.value), "it is young, and another young one was dropped just now"
    assert source.get() is second
    clock.advance(11)
    assert source.invalidate(second)
    assert source.get() != second


def test_credentials_that_are_replaced_are_used_at_the_next_request(make, issuer, tmp_path, clock):
    def write(secret):
        content = {"client_id": "test-client", "client_secret": secret}
        (tmp_path / "client.json").write_text(json.dumps(content))

    write("old")
    issuer.clients["test-client"] = "old"
    environ = {"TOKENRY_ISSUER": issuer.issuer, "CREDENTIALS_DIR": str(tmp_path)}
    source = make(environ=environ)
    source.get()
    issuer.clients["test-client"] = "new"
    write("new")
    clock.advance(minutes=50)
    source.get()
    settle(source)
    assert source.refreshes == {"ok": 2}


def test_the_password_grant_uses_the_user_of_the_folder(make, issuer, tmp_path):
    (tmp_path / "client.json").write_text(json.dumps({"client_id": "test-client", "client_secret": CLIENT_SECRET}))
    user = {"application_username": USERNAME, "application_password": PASSWORD}
    (tmp_path / "user.json").write_text(json.dumps(user))
    source = make(
        environ={}, token_url=f"{issuer.issuer}/oauth2/access_token", credentials_dir=tmp_path, grant="password"
    )
    assert issuer.validator().validate(source.get().value).sub == USERNAME
    assert PASSWORD not in repr(source)


def test_realm_and_audience_are_asked_for(make, issuer):
    source = make(realm="/services", audience="orders")
    issuer.validator("orders").validate(source.get().value)
    assert issuer.token_requests()[-1].form.one("realm") == "/services"


def test_a_forked_child_keeps_the_token_and_can_fetch_the_next(source, issuer, gate, clock):
    token = source.get()
    clock.advance(minutes=50)
    gate.open.clear()
    source.get()  # a flight is under way, and its thread does not exist in the child
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        gate.open.set()
        try:
            kept = source.get().value == token.value
            clock.advance(minutes=15)
            other = source.get().value != token.value
            os.write(writer, b"good" if kept and other else b"bad")
        finally:
            os._exit(0)
    gate.open.set()
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"good"
    os.close(reader)
    os.close(writer)
    settle(source)


def test_M02_metadata_of_another_issuer_give_no_token(make, issuer):
    environ = issuer.environment() | {"TOKENRY_ISSUER": issuer.issuer + "/"}
    with pytest.raises(TokenFetchError, match="another issuer"):
        make(environ=environ).get()


def test_a_defect_ends_the_flight_and_not_the_source(make, issuer):
    class Broken(Gate):
        def fetch(self, request):
            raise ZeroDivisionError

    source = make(fetcher=Broken(issuer))
    with pytest.raises(TokenFetchError, match="ZeroDivisionError"):
        source.get()
    assert source._flight is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TOKENRY_ISSUER": "http://issuer.internal"},
        {"TOKENRY_ISSUER": "issuer"},
        {"TOKENRY_TOKEN_URL": "https://u:p@issuer/"},
    ],
)
def test_a_bad_issuer_is_refused_at_once(environ):
    with pytest.raises(ConfigurationError):
        ClientCredentials(client_id="a", client_secret="b", environ=environ)


def test_plain_http_to_other_machines_must_be_allowed_by_name():
    ClientCredentials(client_id="a", client_secret="b", issuer="http://issuer:8080", allow_plain_http=True, environ={})


def test_an_unknown_grant_is_refused():
    with pytest.raises(ConfigurationError):
        ClientCredentials(client_id="a", client_secret="b", issuer="https://i", grant="implicit", environ={})


async def test_a_fixed_token_stays():
    source = StaticTokenSource("abc")
    assert (source.get().value, (await source.aget()).value, source.invalidate()) == ("abc", "abc", False)
    assert "abc" not in repr(source.get())


async def test_a_mounted_token_is_read_anew_when_the_file_is_replaced(tmp_path):
    file = tmp_path / "orders-token-secret"
    file.write_text("one\n")
    source = FileTokenSource(file)
    assert source.get().value == "one"
    assert source.get() is source.get()
    (tmp_path / "new").write_text("second")
    (tmp_path / "new").rename(file)
    assert (await source.aget()).value == "second"
    assert not source.invalidate(source.get())
    file.unlink()
    with pytest.raises(TokenFetchError):
        source.get()


def test_the_default_source_is_the_first_that_is_configured(tmp_path, issuer):
    (tmp_path / "orders-token-secret").write_text("mounted")
    environ = {"OAUTH2_ACCESS_TOKENS": "orders=fixed, other=x", "CREDENTIALS_DIR": str(tmp_path)}
    environ |= {"TOKENRY_ISSUER": issuer.issuer}
    assert default_source(name="orders", environ=environ).get().value == "fixed"
    del environ["OAUTH2_ACCESS_TOKENS"]
    assert default_source(name="orders", environ=environ).get().value == "mounted"
    source = default_source("a", name="else", environ=environ)
    assert source.description == f"CREDENTIALS_DIR={tmp_path}, {issuer.issuer}"
    with pytest.raises(TokenFetchError, match=r"client\.json"):
        source.get()
    assert isinstance(default_source("a", environ=issuer.environment()), ClientCredentials)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OAUTH2_ACCESS_TOKENS": "a=1,b=2"},
        {"OAUTH2_ACCESS_TOKENS": "nonsense"},
        {"TOKENRY_ENDPOINT_SOCKET": "run/x"},
    ],
)
def test_a_default_source_that_is_not_configured_is_refused(environ):
    with pytest.raises(ConfigurationError):
        default_source(environ=environ)


@pytest.mark.parametrize("name", ["../etc/passwd", ".hidden", "a/b"])
def test_a_name_is_not_a_path(name, tmp_path):
    with pytest.raises(ConfigurationError):
        default_source(name=name, environ={"CREDENTIALS_DIR": str(tmp_path)})


def test_over_real_http():
    with FakeIssuer() as issuer:
        source = ClientCredentials("a", environ=issuer.environment())
        issuer.validator().validate(source.get().value, scope="a")
        assert source.expires_at > issuer.clock.now()
