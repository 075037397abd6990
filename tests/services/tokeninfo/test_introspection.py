import asyncio
import json

import pytest

from tests.services.tokeninfo.conftest import INTROSPECT, basic, bearer, introspector, issued
from tests.support.access_tokens import ISSUER, NOW, claims, token
from tests.support.hostile_tokens import AUDIENCES, HOSTILE
from tokenry.jose.encoding import dump_json
from tokenry.oauth.client_authentication import read_client_credential
from tokenry.oauth.form import Form
from tokenry.serving.outgoing import Answer, TimedOut, Unreachable
from tokenry_tokeninfo.callers import EXCHANGE_SECONDS, REMEMBER_SECONDS
from tokenry_tokeninfo.settings import read_audiences

INACTIVE = b'{"active":false}'
PATH = "/oauth2/introspect"


def refused(status, error):
    return Answer(status=status, body=dump_json({"error": error}))


# --- the answer ---------------------------------------------------------------------------------------------


async def test_a_good_token_is_told_with_its_claims(service):
    answer = await service.introspect(token())
    assert answer.status == 200
    assert answer.json == {
        "active": True, "iss": ISSUER, "sub": "stock", "aud": "https://orders.example", "client_id": "stock",
        "scope": "orders.read orders.write", "exp": NOW + 3600, "iat": NOW, "jti": "MTIzNDU2Nzg5MGFiY2RlZg",
        "token_type": "Bearer", "realm": "/services", "claims": claims(),
    }  # fmt: skip
    assert answer.headers["Cache-Control"] == "no-store"


async def test_every_other_token_is_inactive_and_nothing_more(service):
    hostile = {text for name, (text, _) in HOSTILE.items() if len(text) < 15_000 and name not in AUDIENCES and text}
    for text in sorted(hostile, key=repr):
        form = {"token": text.encode("utf-8", "replace").decode()}
        answer = await service.ask("POST", PATH, headers=bearer(introspector()), data=form)
        assert (answer.status, answer.body) == (200, INACTIVE), text
        assert set(answer.headers) == set((await service.introspect("x")).headers)


async def test_a_wrong_hint_changes_nothing(service):
    good = token()
    plain = await service.introspect(good)
    assert (await service.introspect(good, token_type_hint="refresh_token")).body == plain.body


async def test_an_audience_is_checked_when_it_is_named(service):
    assert (await service.introspect(token(), audience="https://orders.example")).json["active"]
    assert (await service.introspect(token(), audience="https://payments.example")).body == INACTIVE


async def test_a_caller_that_is_bound_to_audiences_sees_no_others(start):
    async with start(introspection_audiences='{"gateway": ["https://orders.example"]}') as service:
        assert (await service.introspect(token())).json["active"]
        assert (await service.introspect(token(aud=["https://orders.example", "x"]))).json["active"]
        assert (await service.introspect(token(aud="https://payments.example"))).body == INACTIVE
        other = bearer(introspector(client_id="other", azp="other", sub="other"))
        assert (await service.introspect(token(aud="https://payments.example"), headers=other)).json["active"]


@pytest.mark.parametrize("data", [{}, {"token": ""}, [("token", "a"), ("token", "b")], {"token_type_hint": "x"}])
async def test_without_exactly_one_token_it_is_400(service, data):
    answer = await service.ask("POST", PATH, headers=bearer(introspector()), data=data or b"")
    assert (answer.status, answer.json["error"]) in {(400, "invalid_request"), (415, "invalid_request")}
    if data:
        assert answer.status == 400


async def test_what_is_not_a_form_is_415_and_what_is_too_large_413(service):
    headers = bearer(introspector())
    assert (await service.ask("POST", PATH, headers=headers, json={"token": "x"})).status == 415
    assert (await service.ask("POST", PATH, headers=headers, data={"token": "x" * 70_000})).status == 413
    answer = await service.ask("GET", PATH, headers=headers)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_with_an_old_list_it_says_neither_yes_nor_no(service):
    caller = bearer(introspector())
    service.clock.advance(901)
    answer = await service.introspect(token(), headers=caller)
    assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")


# --- the caller by bearer -----------------------------------------------------------------------------------


async def test_without_credentials_both_ways_are_offered(service):
    answer = await service.introspect(token(), headers={})
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert answer.headers.getall("WWW-Authenticate") == ["Bearer", 'Basic realm="tokenry"']


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"exp": NOW}, 401, "invalid_token"),
        ({"aud": "https://orders.example"}, 401, "invalid_token"),
        ({"scope": "orders.read"}, 403, "insufficient_scope"),
        ({"scope": INTROSPECT.upper()}, 403, "insufficient_scope"),
        ({"scope": f"{INTROSPECT} x"}, 200, None),
    ],
)
async def test_the_callers_token_must_be_good_ours_and_have_the_scope(service, changes, status, error):
    answer = await service.introspect(token(), headers=bearer(introspector(**changes)))
    assert (answer.status, answer.json.get("error")) == (status, error)


async def test_two_methods_are_400(service):
    answer = await service.introspect(token(), client_id="a", client_secret="b")
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    twice = [("Authorization", f"Bearer {introspector()}"), ("Authorization", "Basic YTpi")]
    assert (await service.introspect(token(), headers=twice)).status == 400
    both = await service.introspect(token(), headers=basic("a", "b"), client_id="a", client_secret="b")
    assert both.status == 400


async def test_a_caller_that_asks_too_often_is_slowed_down_and_others_are_not(start):
    async with start(introspection_rate=1, introspection_burst=3) as service:
        answers = [await service.introspect("guess") for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        other = bearer(introspector(client_id="other", azp="other", sub="other"))
        assert (await service.introspect("guess", headers=other)).status == 200
        service.clock.advance(1)
        assert (await service.introspect("guess")).status == 200


# --- the caller by client credentials -----------------------------------------------------------------------


async def test_credentials_are_exchanged_at_the_issuer_as_they_came(service):
    service.calls.handle = lambda _: issued()
    answer = await service.introspect(token(), headers=basic("gateway", "s%20cret"))
    assert answer.json["active"]
    (asked,) = service.calls.asked
    assert (asked["method"], asked["url"]) == ("POST", f"{ISSUER}/oauth2/token")
    assert asked["form"] == {"grant_type": "client_credentials", "scope": INTROSPECT}
    assert asked["headers"]["Authorization"] == basic("gateway", "s%20cret")["Authorization"]
    assert asked["deadline"] == EXCHANGE_SECONDS


async def test_credentials_in_the_form_are_sent_in_the_form(service):
    service.calls.handle = lambda _: issued()
    answer = await service.introspect(token(), headers={}, client_id="gateway", client_secret="s", realm="/x")
    assert answer.json["active"]
    (asked,) = service.calls.asked
    assert asked["form"] == {
        "grant_type": "client_credentials", "scope": INTROSPECT, "client_id": "gateway", "client_secret": "s",
        "realm": "/x",
    }  # fmt: skip
    assert "Authorization" not in asked["headers"]


async def test_the_realm_comes_from_the_request_or_the_settings(start):
    async with start(introspection_realm="/services") as service:
        service.calls.handle = lambda _: issued()
        await service.introspect(token(), headers=basic("a", "b"))
        await service.ask("POST", f"{PATH}?realm=/other", headers=basic("a", "b"), data={"token": "x"})
        assert [asked["form"]["realm"] for asked in service.calls.asked] == ["/services", "/other"]
        twice = await service.ask(
            "POST", f"{PATH}?realm=/a", headers=basic("a", "b"), data={"token": "x", "realm": "/a"}
        )
        assert twice.status == 400


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (refused(401, "invalid_client"), 401, "invalid_client"),
        (refused(400, "invalid_client"), 401, "invalid_client"),
        (refused(400, "invalid_scope"), 403, "insufficient_scope"),
        (refused(400, "unauthorized_client"), 403, "insufficient_scope"),
        (refused(400, "missing_realm"), 400, "invalid_request"),
        (refused(429, "temporarily_unavailable"), 503, "temporarily_unavailable"),
        (refused(503, "temporarily_unavailable"), 503, "temporarily_unavailable"),
        (refused(500, "server_error"), 503, "temporarily_unavailable"),
        (Answer(status=302, body=b""), 503, "temporarily_unavailable"),
        (Answer(status=200, body=b"<html>"), 503, "temporarily_unavailable"),
        (Answer(status=200, body=b'{"access_token":5,"scope":"token.introspect"}'), 503, "temporarily_unavailable"),
        (Answer(status=200, body=b'{"access_token":"x","scope":"other"}'), 403, "insufficient_scope"),
        (Answer(status=200, body=b'{"access_token":"x","scope":"token.introspect"}'), 401, "invalid_client"),
    ],
)
async def test_what_the_issuer_says_decides(service, answer, status, error):
    service.calls.handle = lambda _: answer
    got = await service.introspect(token(), headers=basic("gateway", "secret-canary"))
    assert (got.status, got.json["error"]) == (status, error)
    assert b"canary" not in got.body
    if status == 401:
        assert got.headers["WWW-Authenticate"] == 'Basic realm="tokenry"'


@pytest.mark.parametrize("error", [TimedOut("t"), Unreachable("u")])
async def test_an_issuer_that_does_not_answer_is_503(service, error):
    def fail(_call):
        raise error

    service.calls.handle = fail
    answer = await service.introspect(token(), headers=basic("a", "b"))
    assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
    assert "Retry-After" in answer.headers


async def test_a_caller_is_remembered_for_a_minute_and_a_failure_for_a_second(service):
    service.calls.handle = lambda _: issued()
    for _ in range(3):
        await service.introspect("x", headers=basic("a", "right"))
    assert len(service.calls.asked) == 1
    service.clock.advance(REMEMBER_SECONDS)
    service.renew_list()
    await service.introspect("x", headers=basic("a", "right"))
    assert len(service.calls.asked) == 2
    service.calls.handle = lambda _: refused(401, "invalid_client")
    for _ in range(3):
        assert (await service.introspect("x", headers=basic("a", "wrong"))).status == 401
    assert len(service.calls.asked) == 3
    service.clock.advance(1)
    await service.introspect("x", headers=basic("a", "wrong"))
    assert len(service.calls.asked) == 4


async def test_remembered_credentials_are_judged_again_at_each_use(service):
    service.calls.handle = lambda _: issued()
    assert (await service.introspect("x", headers=basic("gateway", "s"))).status == 200
    service.simulator.revoke_claims({"sub": "gateway"}, issued_before=NOW + 1)
    service.renew_list()
    assert (await service.introspect("x", headers=basic("gateway", "s"))).status == 401


async def test_one_exchange_is_in_flight_for_one_caller_however_many_ask(service):
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow():
        arrived.set()
        await go.wait()
        return issued()

    service.calls.handle = lambda _: slow()
    asking = [asyncio.create_task(service.introspect("x", headers=basic("a", "b"))) for _ in range(20)]
    await arrived.wait()
    await asyncio.sleep(0.2)
    go.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert len(service.calls.asked) == 1


async def test_other_credentials_do_not_share_what_is_remembered(service):
    service.calls.handle = lambda _: issued()
    for headers in (basic("a", "b"), basic("a", "c"), basic("ab", ""), basic("a", "b ")):
        await service.introspect("x", headers=headers)
    assert len(service.calls.asked) == 4


async def test_guessing_credentials_is_slowed_down_by_address(service):
    service.calls.handle = lambda _: refused(401, "invalid_client")
    statuses = [(await service.introspect("x", headers=basic("a", f"guess {n}"))).status for n in range(25)]
    assert statuses == [401] * 20 + [429] * 5
    assert len(service.calls.asked) == 20


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Basic YWJj", "Basic /w==", "Digest x", "Negotiate abc"])
async def test_a_malformed_header_is_401_and_asks_nobody(service, value):
    answer = await service.introspect("x", headers={"Authorization": value})
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert service.calls.asked == []


async def test_no_secret_is_in_any_output(service, capsys):
    service.calls.handle = lambda _: refused(401, "invalid_client")
    await service.introspect("x", headers=basic("gateway", "secret-canary"))
    await service.introspect("x", headers={}, client_id="gateway", client_secret="secret-canary")
    metrics = (await service.ask("GET", "/metrics")).body.decode()
    captured = capsys.readouterr()
    assert "canary" not in captured.out + captured.err + metrics


def test_a_credential_shows_no_secret():
    credential = read_client_credential([basic("a", "canary")["Authorization"]], Form())
    assert "canary" not in repr(credential)


@pytest.mark.parametrize("text", ["[]", "x", '{"a": "b"}', '{"a": [5]}'])
def test_a_malformed_table_of_audiences_is_refused(text):
    with pytest.raises(ValueError, match="JSON object"):
        read_audiences(text)


def test_the_inactive_answer_is_json():
    assert json.loads(INACTIVE) == {"active": False}
