import asyncio
import json

import pytest

from tests.services.tokeninfo.conftest import bearer
from tests.support.access_tokens import ISSUER, NOW, token
from tests.support.hostile_tokens import AUDIENCES, HOSTILE
from tokenry.claims import TokenInfo
from tokenry.errors import Reason
from tokenry.jose import jws
from tokenry.revocation.stamps import ListStamp
from tokenry_tokeninfo.answers import token_info_body

INVALID = b'{"error":"invalid_token","error_description":"Access Token not valid"}'
NO_TOKEN = b'{"error":"invalid_request","error_description":"Access Token not valid"}'
PATH = "/oauth2/tokeninfo"


async def raw(service, text):
    host, _, port = service.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


# --- a good token -------------------------------------------------------------------------------------------


async def test_a_good_token_is_told_in_plan_bs_shape(service):
    good = token(scope="a.read uid")
    answer = await service.info(good)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {
        "access_token": good, "uid": "stock", "realm": "/services", "scope": ["a.read", "uid"],
        "grant_type": "password", "token_type": "Bearer", "expires_in": 3600, "client_id": "stock",
        "iss": ISSUER, "jti": "MTIzNDU2Nzg5MGFiY2RlZg", "aud": "https://orders.example", "a.read": True,
    }  # fmt: skip
    assert answer.headers["Cache-Control"] == "no-store"


async def test_expires_in_is_whole_seconds_rounded_down(service):
    service.clock.advance(0.4)
    service.renew_list()
    answer = await service.info(token())
    assert answer.json["expires_in"] == 3599
    assert b'"expires_in":3599,' in answer.body


def test_members_that_are_not_known_are_left_out_and_no_scope_takes_their_place():
    info = TokenInfo(
        iss="i", sub="s", client_id=None, aud=(), scope=frozenset({"client_id", "jti", "aud", "x"}), exp=NOW + 9,
        iat=NOW, jti=None, realm=None, kid="k", claims={},
    )  # fmt: skip
    members = json.loads(token_info_body("t.o.k", info, now=NOW + 0.5))
    assert members == {
        "access_token": "t.o.k", "uid": "s", "realm": "", "scope": ["aud", "client_id", "jti", "x"], "x": True,
        "grant_type": "password", "token_type": "Bearer", "expires_in": 8, "iss": "i",
    }  # fmt: skip


async def test_contract_4_17_scopes_named_like_members_leave_those_their_values(service):
    names = "access_token expires_in uid client_id realm scope token_type grant_type iss jti aud"
    plain = await service.info(token(scope=""))
    named = await service.info(token(scope=names))
    assert named.status == 200
    ignored = {"access_token", "scope"}
    assert {k: v for k, v in named.json.items() if k not in ignored} == {
        k: v for k, v in plain.json.items() if k not in ignored
    }
    assert named.json["scope"] == sorted(names.split())


async def test_the_array_form_of_scope_is_read(service):
    answer = await service.info(token(scope=["b", "a"]))
    assert answer.json["scope"] == ["a", "b"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_taken_in_any_letter_case(service, scheme):
    answer = await service.ask("GET", PATH, headers={"Authorization": f"{scheme} {token()}"})
    assert answer.status == 200


async def test_the_token_may_come_in_the_query_or_in_a_form(service):
    good = token()
    for answer in (
        await service.ask("GET", PATH, params={"access_token": good}),
        await service.ask("POST", PATH, data={"access_token": good}),
        await service.ask("POST", PATH, headers=bearer(good)),
        await service.ask("POST", PATH, headers=bearer(good), json={"access_token": "ignored"}),
        await service.ask("GET", PATH, headers=bearer(good), params={"access_token": ""}),
    ):
        assert (answer.status, answer.json["access_token"]) == (200, good)


async def test_an_audience_is_checked_when_it_is_named(service):
    for audience, status in (("https://orders.example", 200), ("https://payments.example", 401)):
        assert (await service.info(token(), params={"audience": audience})).status == status
        posted = await service.ask("POST", PATH, data={"access_token": token(), "audience": audience})
        assert posted.status == status


# --- no token, too many tokens (D59 to D61) -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "params"),
    [
        ({}, {}),
        ({}, {"access_token": ""}),
        ({"Authorization": "Basic dTpw"}, {}),
        ({"Authorization": "Bearer"}, {}),
        ({"Authorization": "Bearer "}, {}),
        ({"Authorization": ""}, {}),
    ],
)
async def test_no_token_is_400_as_in_plan_b(service, headers, params):
    answer = await service.ask("GET", PATH, headers=headers, params=params)
    assert (answer.status, answer.body) == (400, NO_TOKEN)


async def test_two_tokens_are_400_wherever_they_are(service):
    good = token()
    for answer in (
        await service.ask("GET", PATH, headers=bearer(good), params={"access_token": good}),
        await service.ask("GET", PATH, params=[("access_token", good), ("access_token", good)]),
        await service.ask("POST", PATH, headers=bearer(good), data={"access_token": good}),
        await service.ask("POST", PATH, params={"access_token": good}, data={"access_token": good}),
        await service.ask("GET", PATH, headers=[("Authorization", f"Bearer {good}")] * 2),
    ):
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        assert good not in answer.body.decode()


async def test_a_form_of_an_odd_charset_is_400(service):
    form = "application/x-www-form-urlencoded; charset=bogus"
    answer = await service.ask("POST", PATH, data=b"access_token=x", headers={"Content-Type": form})
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


# --- a bad token --------------------------------------------------------------------------------------------


OVER_HTTP = {
    name: (text, reason)
    for name, (text, reason) in HOSTILE.items()
    # Those that no HTTP header can carry, and those whose audience nobody here asked about.
    if text and len(text) < 15_000 and not set(text) & set("\r\n\0") and text == text.strip() and name not in AUDIENCES
}


async def test_contract_4_19_every_bad_token_gets_the_same_401(service):
    challenges = set()
    reasons = {reason: 0 for _, reason in OVER_HTTP.values()}
    for name, (text, reason) in OVER_HTTP.items():
        sent = text.encode("utf-8", "surrogateescape")
        head = b"GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
        answer = await raw(service, head + sent + b"\r\n\r\n")
        top, _, body = answer.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 401"), name
        assert body == INVALID, name
        challenges.add(next(line for line in top.split(b"\r\n") if line.startswith(b"WWW-Authenticate")))
        reasons[reason] += 1
    assert challenges == {b'WWW-Authenticate: Bearer error="invalid_token", error_description="Access Token not valid"'}
    for reason, count in reasons.items():
        assert service.metric("tokenry_validations_total", result=reason) == count, reason


async def test_what_a_header_cannot_carry_is_refused_in_the_query_too(service):
    for text in (f"{token()}\n", f"{token()}\0", f" {token()}", f"{token()}é"):
        answer = await service.ask("GET", PATH, params={"access_token": text})
        assert (answer.status, answer.body) == (401, INVALID)


async def test_bytes_that_are_no_text_are_a_bad_token(service):
    answer = await raw(
        service,
        b"GET /oauth2/tokeninfo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 401")
    assert answer.endswith(INVALID)


async def test_two_spaces_are_a_bad_token(service):
    answer = await raw(
        service,
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer  {token()}\r\n\r\n".encode(),
    )
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_revoked_token_is_refused_in_every_spelling_and_place(service):
    good = token()
    assert (await service.info(good)).status == 200
    service.simulator.revoke_token(
        iss=ISSUER, jti="MTIzNDU2Nzg5MGFiY2RlZg", signing_input=good.rpartition(".")[0], exp=NOW + 3600
    )
    service.renew_list()
    for answer in (
        await service.info(good),
        await service.info(jws.twin(good)),
        await service.ask("GET", PATH, params={"access_token": good}),
        await service.ask("POST", PATH, data={"access_token": good}),
        await service.ask("GET", "/auth?authenticated=1", headers=bearer(good)),
    ):
        assert (answer.status, answer.body) == (401, INVALID)
    assert (await service.introspect(good)).body == b'{"active":false}'
    assert service.metric("tokenry_validations_total", result=Reason.REVOKED) >= 4


async def test_a_revocation_by_claims_hits_by_name_and_value(service):
    service.simulator.revoke_claims({"sub": "stock"}, issued_before=NOW + 1)
    service.renew_list()
    assert (await service.info(token())).status == 401
    assert (await service.info(token(sub="other", client_id="stock", azp="stock"))).status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "HEAD", "PATCH", "OPTIONS"])
async def test_other_methods_are_405_and_echo_nothing(service, method):
    answer = await service.ask(method, PATH, headers=bearer(token()))
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,POST")
    assert token() not in answer.body.decode()


# --- what cannot be told ------------------------------------------------------------------------------------


async def test_contract_4_19_without_keys_a_list_or_a_fresh_list_it_says_neither_yes_nor_no(service):
    good = token()
    held_keys, held_list = service.keys.held, service.revocations.held
    outcomes = []
    for keys, revocations, age in ((None, held_list, 0), (held_keys, None, 0), (held_keys, held_list, 901)):
        service.keys.held, service.revocations.held = keys, revocations
        service.clock.advance(age)
        outcomes.append(await service.info(good))
        outcomes.append(await service.ask("GET", "/auth?authenticated=1", headers=bearer(good)))
    for answer in outcomes:
        assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert service.metric("tokenry_validations_total", result="not_ready") == 6


async def test_an_unknown_key_is_asked_for_once_before_the_token_is_refused(service):
    from tests.support.hostile_tokens import STRANGER

    assert (await service.info(token(key=STRANGER))).status == 401
    assert service.keys.refetched == [ISSUER]


async def test_the_list_that_judged_is_named_on_every_answer(service):
    service.clock.advance(7)
    for answer in (
        await service.info(token()),
        await service.info("bad"),
        await service.ask("GET", PATH),
        await service.introspect(token()),
        await service.introspect(token(), headers={}),
        await service.ask("GET", "/auth?authenticated=1", headers=bearer(token())),
        await service.ask("GET", "/auth"),
    ):
        stamp = ListStamp.parse(answer.headers["Tokenry-List"], with_epoch=False)
        assert (stamp.as_of, stamp.age) == (NOW, 7)


async def test_before_the_first_list_none_is_named(service):
    service.revocations.held = None
    assert "Tokenry-List" not in (await service.info(token())).headers


# --- logs ---------------------------------------------------------------------------------------------------


async def test_contract_4_7_no_token_is_in_any_output_or_metric(service, capsys):
    good, bad = token(), token(exp=NOW)
    for text in (good, bad, "opaque-canary"):
        await service.info(text)
        await service.ask("GET", PATH, params={"access_token": text})
        await service.introspect(text)
        await service.ask("TRACE", PATH, headers=bearer(text))
    captured = capsys.readouterr()
    metrics = (await service.ask("GET", "/metrics")).body.decode()
    for sink in (captured.out, captured.err, metrics):
        for text in (good, bad):
            assert text.split(".")[1] not in sink
        assert "opaque-canary" not in sink
    assert "token refused" in captured.out
    assert "expired" in captured.out


def test_the_body_of_a_refusal_is_json():
    assert json.loads(INVALID)["error"] == "invalid_token"
