"""The token endpoint, row by row: what it grants, what it refuses, and in which words."""

import asyncio
import base64
import json
import re

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.services.issuer.support import (
    FORM,
    ISSUER_URL,
    NOW,
    OTHER_SECRET,
    PASSWORD,
    SECRET,
    basic,
    running,
    weak_argon2,
)
from tokenry.serving.application import MAX_BODY_BYTES
from tokenry_registry.bootstrap import hash_secret

GRANT = {"grant_type": "client_credentials", "realm": "services"}
ALLOWED_IN_ERRORS = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]*")
ORDERS = "realms/services/clients/orders.json"
ERRORS = {
    "invalid_request", "invalid_client", "invalid_grant", "invalid_scope", "invalid_target", "missing_realm",
    "realm_not_found", "temporarily_unavailable", "unauthorized_client", "unsupported_grant_type",
}  # fmt: skip


def refused(answer, status, error):
    """Assert the whole shape of a refusal (RFC 6749 section 5.2)."""
    assert (answer.status, answer.error) == (status, error), answer.body
    assert set(answer.json) == {"error", "error_description"}
    assert ALLOWED_IN_ERRORS.fullmatch(answer.json["error_description"])
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    return True


# --- what is granted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/oauth2/token", "/oauth2/access_token"])
async def test_T09_T10_T12_a_token_comes_with_all_that_was_promised(issuer, path):
    answer = await issuer.token({**GRANT, "scope": "orders.write orders.read"}, path=path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    body = answer.json
    assert set(body) == {"access_token", "token_type", "expires_in", "scope", "realm"}
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 3600
    assert type(body["expires_in"]) is int
    assert body["scope"] == "orders.read orders.write"
    assert body["realm"] == "/services"
    assert answer.claims["exp"] - int(issuer.clock.now()) == body["expires_in"]


@pytest.mark.parametrize(("client", "lifetime"), [("orders", 3600), ("slow", 300)])
async def test_T10_expires_in_is_the_life_of_the_token_whoever_asks(issuer, client, lifetime):
    answer = await issuer.token(GRANT, client=(client, SECRET))
    assert answer.json["expires_in"] == lifetime == answer.claims["exp"] - answer.claims["iat"]
    assert abs(answer.claims["exp"] - issuer.clock.now() - answer.json["expires_in"]) < 1
    issuer.clock.advance(0.9)
    later = await issuer.password_token(realm="services")
    assert abs(later.claims["exp"] - issuer.clock.now() - later.json["expires_in"]) < 1


async def test_T12_no_answer_of_the_token_endpoint_may_be_stored(issuer):
    answers = [
        await issuer.token(GRANT),
        await issuer.password_token(realm="services"),
        await issuer.token(GRANT, client=("orders", "wrong")),
        await issuer.token({**GRANT, "scope": "nobody.has.this"}),
        await issuer.token("=&=&", content_type="text/plain"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 401, 400, 415]
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Pragma"] == "no-cache"


async def test_T11_the_granted_scope_is_told_also_when_none_was_asked_for(issuer):
    assert (await issuer.token(GRANT)).json["scope"] == "orders.read"
    assert (await issuer.token({**GRANT, "scope": ""})).json["scope"] == "orders.read"


async def test_T13_there_is_no_refresh_token(issuer):
    assert "refresh_token" not in (await issuer.token(GRANT)).json
    assert "refresh_token" not in (await issuer.password_token(realm="services")).json


async def test_J02_the_token_says_who_when_and_for_whom(issuer):
    answer = await issuer.token({**GRANT, "scope": "uid"})
    claims = answer.claims
    assert {**claims, "jti": "?"} == {
        "iss": ISSUER_URL, "sub": "orders", "aud": ISSUER_URL, "client_id": "orders", "azp": "orders",
        "exp": NOW + 3600, "iat": NOW, "jti": "?", "scope": "uid", "realm": "/services",
    }  # fmt: skip
    assert len(base64.urlsafe_b64decode(claims["jti"] + "=")) == 20
    assert answer.header["typ"] == "at+jwt"


async def test_J07_no_two_tokens_share_an_id(issuer):
    ids = {(await issuer.token(GRANT)).claims["jti"] for _ in range(20)}
    assert len(ids) == 20


async def test_J12_no_secret_enters_the_token(issuer):
    answer = await issuer.password_token(realm="services", scope="uid")
    assert SECRET not in json.dumps([answer.header, answer.claims])
    assert PASSWORD not in json.dumps([answer.header, answer.claims])


async def test_the_password_grant_names_the_user_and_keeps_the_client(issuer):
    claims = (await issuer.password_token(realm="services", scope="uid orders.read")).claims
    assert (claims["sub"], claims["client_id"], claims["azp"]) == ("robot", "orders", "orders")
    assert claims["scope"] == "orders.read uid"


async def test_the_plan_b_realm_writes_scope_as_a_list_and_its_own_typ_and_lifetime(issuer):
    answer = await issuer.token({"grant_type": "client_credentials", "realm": "/plan-b", "scope": "uid orders.read"})
    assert answer.claims["scope"] == ["orders.read", "uid"]
    assert answer.json["scope"] == "orders.read uid"
    assert answer.header["typ"] == "JWT"
    assert answer.json["expires_in"] == 600


async def test_a_client_may_have_a_shorter_life_than_its_realm(issuer):
    assert (await issuer.token(GRANT, client=("slow", SECRET))).json["expires_in"] == 300


async def test_J11_a_token_never_outlives_the_publication_of_its_key():
    async with running() as issuer:
        for hours in range(0, 30 * 24, 7):
            issuer.clock.advance(hours=7 if hours else 0)
            await issuer.issuer.credentials.refresh()
            answer = await issuer.token(GRANT)
            if answer.status == 503:
                continue
            states = issuer.issuer.keyring.states(lifetime=3600)
            assert answer.claims["exp"] < states[answer.header["kid"]][1].retire_at
        issuer.clock.advance(hours=24)
        await issuer.issuer.credentials.refresh()
        assert refused(await issuer.token(GRANT), 503, "temporarily_unavailable")


# --- audience -------------------------------------------------------------------------------------------------


async def test_T20_without_resource_the_audience_is_the_realms_or_the_issuer(issuer):
    assert (await issuer.token(GRANT)).claims["aud"] == ISSUER_URL
    modern = await issuer.token({**GRANT, "realm": "modern"})
    assert modern.claims["aud"] == "https://api.example.org"


@pytest.mark.parametrize("grant", ["client_credentials", "password"])
async def test_T19_with_resource_the_audience_is_that_in_every_grant(issuer, grant):
    user = [("username", "robot"), ("password", PASSWORD)] if grant == "password" else []
    form = [("grant_type", grant), ("realm", "services"), ("scope", "uid"), *user]
    one = await issuer.token([*form, ("resource", "https://a.example.org")])
    assert one.claims["aud"] == "https://a.example.org"
    two = await issuer.token([*form, ("resource", "https://b.example.org"), ("resource", "https://a.example.org")])
    assert two.claims["aud"] == ["https://b.example.org", "https://a.example.org"]
    assert (await issuer.token([*form, ("audience", "stock")])).claims["aud"] == "stock"


@pytest.mark.parametrize(
    "target",
    [("resource", "https://c.example.org"), ("resource", "stock"), ("resource", "https://a.example.org#x"),
     ("resource", "/relative"), ("audience", "unknown"), ("resource", "https://a.example.org/")],
)  # fmt: skip
async def test_T18_a_target_that_is_malformed_or_not_allowed_is_invalid(issuer, target):
    assert refused(await issuer.token([*GRANT.items(), target]), 400, "invalid_target")


async def test_resource_and_audience_exclude_each_other_and_audience_comes_once(issuer):
    both = [*GRANT.items(), ("resource", "https://a.example.org"), ("audience", "stock")]
    assert refused(await issuer.token(both), 400, "invalid_request")
    twice = [*GRANT.items(), ("audience", "stock"), ("audience", "stock")]
    assert refused(await issuer.token(twice), 400, "invalid_request")


# --- the request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/oauth2/token", "/oauth2/access_token"])
async def test_T01_D45_only_post_is_accepted(issuer, method, path):
    answer = await issuer.call(method, path, headers={"Authorization": basic("orders", SECRET)})
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"
    assert answer.headers["Cache-Control"] == "no-store"
    if method != "HEAD":
        assert answer.error == "invalid_request"


async def test_T02_unknown_parameters_are_ignored_wherever_they_stand(issuer):
    answer = await issuer.token({**GRANT, "json": "true", "x": "1"}, path="/oauth2/token?foo=bar&foo=baz")
    assert answer.status == 200


async def test_T03_an_empty_parameter_counts_as_absent(issuer):
    assert (await issuer.token({**GRANT, "scope": "", "resource": "", "audience": ""})).status == 200
    assert refused(await issuer.token({"grant_type": ""}), 400, "invalid_request")


@pytest.mark.parametrize("name", ["grant_type", "scope", "realm", "client_id", "client_secret", "audience"])
async def test_T04_a_parameter_sent_twice_is_refused(issuer, name):
    value = {"grant_type": "client_credentials", "realm": "services"}.get(name, "uid")
    form = [(key, each) for key, each in GRANT.items() if key != name]
    assert refused(await issuer.token([*form, (name, value), (name, value)]), 400, "invalid_request")


@pytest.mark.parametrize("name", ["username", "password"])
async def test_T04_user_and_password_sent_twice_are_refused(issuer, name):
    form = [("grant_type", "password"), ("realm", "services"), ("username", "robot"), ("password", PASSWORD)]
    assert refused(await issuer.token([*form, (name, "x")]), 400, "invalid_request")


async def test_T05_D47_a_missing_grant_type_and_an_unknown_one(issuer):
    assert refused(await issuer.token({"realm": "services"}), 400, "invalid_request")
    for unknown in ("foo", "refresh_token", "authorization_code", "CLIENT_CREDENTIALS", "client_credentials "):
        answer = await issuer.token({"realm": "services", "grant_type": unknown})
        assert refused(answer, 400, "unsupported_grant_type")


async def test_T06_a_grant_that_the_client_was_not_given(issuer):
    form = {"grant_type": "password", "realm": "services", "username": "robot", "password": PASSWORD}
    assert refused(await issuer.token(form, client=("slow", SECRET)), 400, "unauthorized_client")


async def test_T08_the_password_grant_is_off_unless_the_realm_asks_for_it(issuer):
    answer = await issuer.password_token(realm="modern")
    assert refused(answer, 400, "unsupported_grant_type")


async def test_D46_another_content_type_is_415(issuer):
    body = json.dumps({"grant_type": "client_credentials"}).encode()
    for content_type in ("application/json", "multipart/form-data; boundary=x", "text/plain", None):
        assert refused(await issuer.token(body, content_type=content_type), 415, "invalid_request")


@pytest.mark.parametrize("charset", ["bogus", "utf-16", "latin-1", "utf-8;charset=utf-16"])
async def test_D51_an_odd_charset_is_refused(issuer, charset):
    answer = await issuer.token(GRANT, content_type=f"{FORM}; charset={charset}")
    assert refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("content_type", [f"{FORM}; charset=UTF-8", f"{FORM};charset=utf-8", FORM.upper()])
async def test_the_usual_spellings_of_the_content_type_are_taken(issuer, content_type):
    assert (await issuer.token(GRANT, content_type=content_type)).status == 200


async def test_D52_a_body_that_is_too_large_is_413_and_the_connection_ends(issuer):
    answer = await issuer.token(b"a" * (MAX_BODY_BYTES + 1))
    assert refused(answer, 413, "invalid_request")
    assert answer.headers["Connection"] == "close"
    assert (await issuer.token(GRANT)).status == 200


async def test_D52_too_many_fields_are_refused(issuer):
    form = "&".join(f"f{number}=1" for number in range(5_000))
    assert refused(await issuer.token(form), 400, "invalid_request")


@pytest.mark.parametrize("place", ["username", "password", "scope", "client_id", "client_secret", "grant_type",
                                   "resource", "audience", "client_assertion"])  # fmt: skip
async def test_D58_what_belongs_into_the_body_is_refused_in_the_query(issuer, place):
    path = f"/oauth2/token?{place}={SECRET}"
    with capture_logs() as logs:
        answer = await issuer.token(GRANT, path=path)
    assert refused(answer, 400, "invalid_request")
    assert SECRET not in answer.body.decode()
    assert SECRET not in json.dumps(logs, default=str)


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", b"grant_type=%ff&realm=services", b"grant_type=client_credentials&realm=%zz", b"=", b"&&&", b"",
     b"grant_type", b"\0", b"grant_type=client_credentials%00&realm=services"],
    ids=repr,
)  # fmt: skip
async def test_a_malformed_form_is_refused(issuer, body):
    answer = await issuer.token(body)
    assert answer.status == 400
    assert answer.error in {"invalid_request", "unsupported_grant_type"}


# --- realm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("realm", ["services", "/services", "%2Fservices"])
async def test_the_realm_may_stand_in_the_query_as_plan_b_has_it(issuer, realm):
    answer = await issuer.token({"grant_type": "client_credentials"}, path=f"/oauth2/access_token?realm={realm}")
    assert answer.json["realm"] == "/services"


async def test_the_realm_in_query_and_body_counts_as_twice(issuer):
    answer = await issuer.token(GRANT, path="/oauth2/token?realm=services")
    assert refused(answer, 400, "invalid_request")
    answer = await issuer.token({"grant_type": "client_credentials"}, path="/oauth2/token?realm=a&realm=b")
    assert refused(answer, 400, "invalid_request")


async def test_an_unknown_realm_is_not_found(issuer):
    assert refused(await issuer.token({**GRANT, "realm": "nowhere"}), 400, "realm_not_found")


async def test_no_realm_that_could_be_told_is_missing(issuer):
    assert refused(await issuer.token({"grant_type": "client_credentials"}), 400, "missing_realm")


@pytest.mark.parametrize("host", ["services.example.org", "auth-services.example.org:8443", "x.plan-b.example.org"])
async def test_the_realm_is_told_from_the_host(issuer, host):
    answer = await issuer.token({"grant_type": "client_credentials"}, headers={"Host": host})
    assert answer.json["realm"] == ("/plan-b" if "plan-b" in host else "/services")


async def test_the_parameter_beats_the_host(issuer):
    answer = await issuer.token({**GRANT, "realm": "plan-b"}, headers={"Host": "services.example.org"})
    assert answer.json["realm"] == "/plan-b"


async def test_the_only_realm_needs_no_name():
    async with running(only_realm="services") as issuer:
        assert (await issuer.token({"grant_type": "client_credentials"})).json["realm"] == "/services"


@pytest.mark.parametrize("realm", ["../admin", "/services%00", "%2e%2e%2fadmin", "a b", "/", "//services", "%0d%0a",
                                   "x" * 64, "services/", "/services/clients"])  # fmt: skip
async def test_D55_a_malformed_realm_is_refused(issuer, realm):
    answer = await issuer.token({"grant_type": "client_credentials"}, path=f"/oauth2/token?realm={realm}")
    assert refused(answer, 400, "invalid_request")


# --- scope ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["unknown", "orders.read unknown", "Orders.read", "orders.rea", "orders.read uid x"])
async def test_T17_D54_a_scope_that_is_not_the_clients_is_refused_and_named(issuer, scope):
    answer = await issuer.token({**GRANT, "scope": scope})
    assert refused(answer, 400, "invalid_scope")
    extra = set(scope.split()) - {"orders.read", "orders.write", "uid"}
    assert all(name in answer.json["error_description"] for name in extra)


@pytest.mark.parametrize("scope", ['a b"c', "a\\b", "a  b", " a", "a ", "\u00e4", "a\tb", "a\0b", "a\r\nb"])
async def test_T16_T17_D54_a_malformed_scope_is_refused_in_allowed_characters(issuer, scope):
    assert refused(await issuer.token({**GRANT, "scope": scope}), 400, "invalid_scope")


async def test_T17_the_password_grant_gives_only_what_the_user_has_too(issuer):
    answer = await issuer.password_token(realm="services", scope="orders.write")
    assert refused(answer, 400, "invalid_scope")
    assert "orders.write" in answer.json["error_description"]


# --- the client -----------------------------------------------------------------------------------------------


async def test_C02_the_secret_may_stand_in_the_body(issuer):
    form = {**GRANT, "client_id": "orders", "client_secret": SECRET}
    assert (await issuer.token(form, client=None)).status == 200


async def test_C01_D49_two_methods_in_one_request_are_refused(issuer):
    form = {**GRANT, "client_id": "orders", "client_secret": SECRET}
    assert refused(await issuer.token(form), 400, "invalid_request")


async def test_D48_two_authorization_headers_are_refused(issuer):
    headers = [basic("orders", SECRET)] * 2
    assert refused(await issuer.token(GRANT, authorization=headers), 400, "invalid_request")


async def test_T07_without_authentication_there_is_no_token(issuer):
    answer = await issuer.token(GRANT, client=None)
    assert refused(answer, 401, "invalid_client")
    assert "WWW-Authenticate" not in answer.headers
    assert refused(await issuer.token({**GRANT, "client_id": "orders"}, client=None), 401, "invalid_client")


async def test_T07_a_public_client_cannot_authenticate(issuer):
    for secret in ("", "x"):
        assert refused(await issuer.token(GRANT, client=("public", secret)), 401, "invalid_client")
    form = {**GRANT, "client_id": "public", "client_secret": "x"}
    assert refused(await issuer.token(form, client=None), 401, "invalid_client")


async def test_T15_a_failed_basic_is_401_with_a_basic_challenge(issuer):
    answer = await issuer.token(GRANT, client=("orders", "wrong"))
    assert refused(answer, 401, "invalid_client")
    assert re.fullmatch(r'Basic realm="[^"]+"', answer.headers["WWW-Authenticate"])


async def test_a_failed_post_is_401_without_a_challenge(issuer):
    answer = await issuer.token({**GRANT, "client_id": "orders", "client_secret": "x"}, client=None)
    assert refused(answer, 401, "invalid_client")
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    "value",
    ["Basic", "Basic ", "Basic !!!", "Basic " + base64.b64encode(b"no-colon").decode(),
     "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Basic " + base64.b64encode(b":x").decode(),
     "Basic " + base64.b64encode(b"orders:").decode(), "Bearer abc", "Digest x", "Basic b3JkZXJz=OnM", "x",
     "Basic " + "A" * 10_000, "Basic " + base64.b64encode(b"orders:\xed\xa0\x80").decode()],
    ids=lambda value: value[:24],
)  # fmt: skip
async def test_D50_a_malformed_header_is_401(issuer, value):
    assert refused(await issuer.token(GRANT, authorization=[value]), 401, "invalid_client")


@pytest.mark.parametrize("grant", ["client_credentials", "password"])
async def test_contract_4_13_no_client_gets_anything_without_its_secret(issuer, grant):
    form = (
        GRANT
        if grant == "client_credentials"
        else {**GRANT, "grant_type": grant, "username": "robot", "password": PASSWORD}
    )
    for secret in ("", "wrong", SECRET + "x", SECRET[:-1]):
        answer = await issuer.token(form, client=("orders", secret))
        assert refused(answer, 401, "invalid_client"), secret
    assert (await issuer.token(form, client=("orders", SECRET))).status == 200


async def test_contract_4_17_no_scope_is_granted_by_itself(issuer):
    answer = await issuer.token(GRANT)
    assert answer.claims["scope"] == "orders.read"  # the default; `uid`, which the client may have, was not asked for
    assert refused(await issuer.token({**GRANT, "scope": "uid"}, client=("slow", SECRET)), 400, "invalid_scope")


async def test_C04_D44_unknown_wrong_and_disabled_are_answered_alike(issuer):
    answers = [
        await issuer.token(GRANT, client=client)
        for client in (("orders", "wrong"), ("nobody", "wrong"), ("off", SECRET), ("public", "x"), ("robot", PASSWORD))
    ]
    bodies = {(answer.status, answer.body, answer.headers["WWW-Authenticate"]) for answer in answers}
    assert len(bodies) == 1
    assert refused(answers[0], 401, "invalid_client")


HARD_SECRETS = ["a:b", "100%", "a+b", "a b", "%41", "ä€🗝", "a&b=c", "%", "%zz", "+"]


@pytest.mark.parametrize("secret", HARD_SECRETS)
@pytest.mark.parametrize("client_id", ["plain", "a b+c%41ü"])
@pytest.mark.parametrize("encode", [True, False], ids=["encoded", "literal"])
async def test_C03_basic_is_read_encoded_and_as_plan_b_sends_it(issuer, client_id, secret, encode):
    from urllib.parse import quote_plus

    issuer.store.put(
        f"realms/services/clients/{client_id}.json",
        {"client_id": client_id, "secrets": [{"hash": hash_secret(secret), "created_at": 1}]},
    )
    await issuer.refresh()
    sent = [quote_plus(client_id), quote_plus(secret)] if encode else [client_id, secret]
    assert (await issuer.token(GRANT, authorization=[basic(*sent)])).status == 200


async def test_the_two_readings_of_basic_are_one_failure():
    async with running(failures_per_client=3) as issuer:
        for _ in range(2):
            answer = await issuer.token(GRANT, client=("orders", "wro%41ng"))
            assert refused(answer, 401, "invalid_client")
        assert (await issuer.token(GRANT)).status == 200


async def test_a_rotation_accepts_both_secrets_and_an_expired_one_no_more(issuer):
    issuer.store.change(
        ORDERS,
        secrets=[
            {"hash": hash_secret(SECRET), "created_at": 1, "expires_at": NOW + 60},
            {"hash": weak_argon2(OTHER_SECRET), "created_at": 2},
        ],
    )
    await issuer.refresh()
    assert (await issuer.token(GRANT)).status == 200
    assert (await issuer.token(GRANT, client=("orders", OTHER_SECRET))).status == 200
    issuer.clock.advance(60)
    assert refused(await issuer.token(GRANT), 401, "invalid_client")
    assert (await issuer.token(GRANT, client=("orders", OTHER_SECRET))).status == 200


# --- the user -------------------------------------------------------------------------------------------------


async def test_D43_every_failure_of_a_user_is_answered_alike(issuer):
    attempts = [("robot", "wrong"), ("nobody", "wrong"), ("gone", PASSWORD), ("bound", PASSWORD), ("orders", SECRET),
                ("robot", PASSWORD + "x"), ("Robot", PASSWORD)]  # fmt: skip
    answers = [await issuer.password_token(*attempt, realm="services") for attempt in attempts]
    assert len({(answer.status, answer.body) for answer in answers}) == 1
    assert refused(answers[0], 400, "invalid_grant")


async def test_contract_4_13_a_user_may_name_the_clients_that_may_use_it(issuer):
    issuer.store.change("realms/services/users/bound.json", clients=["orders"])
    await issuer.refresh()
    answer = await issuer.password_token("bound", PASSWORD, realm="services", scope="orders.read")
    assert answer.claims["sub"] == "bound"


@pytest.mark.parametrize("password", ["x" * 73, "x" * 10_000, " ", "null", "\0", "\r\n", "ü" * 40], ids=repr)
async def test_D53_D57_an_odd_password_is_just_wrong(issuer, password):
    assert refused(await issuer.password_token("robot", password, realm="services"), 400, "invalid_grant")


async def test_D57_an_empty_password_is_a_wrong_one_and_a_missing_one_is_malformed(issuer):
    assert refused(await issuer.password_token("robot", "", realm="services"), 400, "invalid_grant")
    assert refused(await issuer.password_token("", PASSWORD, realm="services"), 400, "invalid_request")
    form = {"grant_type": "password", "realm": "services", "username": "robot"}
    assert refused(await issuer.token(form), 400, "invalid_request")


async def test_the_client_is_asked_before_the_user(issuer):
    form = {"grant_type": "password", "realm": "services", "username": "robot", "password": PASSWORD}
    assert refused(await issuer.token(form, client=("orders", "wrong")), 401, "invalid_client")
    assert refused(await issuer.token(form, client=None), 401, "invalid_client")


async def test_D56_a_name_with_a_line_break_makes_one_record_and_is_not_in_it(issuer):
    with capture_logs() as logs:
        answer = await issuer.password_token("x\r\nfake log line", PASSWORD, realm="services")
    assert refused(answer, 400, "invalid_grant")
    audit = [entry for entry in logs if entry["event"] == "token_refused"]
    assert len(audit) == 1
    assert "fake" not in json.dumps(logs, default=str)


# --- too many failures ----------------------------------------------------------------------------------------


async def test_T22_after_too_many_failures_the_right_secret_is_refused_too():
    async with running(failures_per_client=3) as issuer:
        for _ in range(3):
            assert refused(await issuer.token(GRANT, client=("orders", "wrong")), 401, "invalid_client")
        answer = await issuer.token(GRANT)
        assert refused(answer, 429, "temporarily_unavailable")
        wait = int(answer.headers["Retry-After"])
        assert wait > 0
        issuer.clock.advance(wait)
        assert (await issuer.token(GRANT)).status == 200


async def test_T22_users_are_protected_like_clients():
    async with running(failures_per_client=3) as issuer:
        for _ in range(3):
            answer = await issuer.password_token("robot", "wrong", realm="services")
            assert refused(answer, 400, "invalid_grant")
        assert refused(await issuer.password_token(realm="services"), 429, "temporarily_unavailable")
        assert (await issuer.token(GRANT)).status == 200


async def test_T22_an_address_that_tries_many_names_is_refused():
    async with running(failures_per_address=5) as issuer:
        for number in range(5):
            await issuer.token(GRANT, client=(f"guess-{number}", "x"))
        assert refused(await issuer.token(GRANT), 429, "temporarily_unavailable")


async def test_T22_a_client_that_is_guessed_at_from_elsewhere_is_delayed_by_at_most_a_second():
    async with running(trusted_proxies="127.0.0.0/8") as issuer:
        for number in range(60):
            await issuer.token(GRANT, client=("orders", "wrong"), headers={"X-Forwarded-For": f"198.51.100.{number}"})
        answer = await issuer.token(GRANT, headers={"X-Forwarded-For": "192.0.2.1"})
        assert answer.status == 200
        assert 0 < issuer.slept[-1] <= 1.0
        issuer.slept.clear()
        await issuer.token(GRANT, headers={"X-Forwarded-For": "192.0.2.1"})
        assert issuer.slept == []


async def test_T25_without_a_trusted_proxy_nobody_chooses_the_address_that_is_counted():
    async with running(failures_per_address=3) as issuer:
        for number in range(3):
            await issuer.token(
                GRANT, client=(f"guess-{number}", "x"), headers={"X-Forwarded-For": f"198.51.100.{number}"}
            )
        answer = await issuer.token(GRANT, headers={"X-Forwarded-For": "192.0.2.1"})
        assert refused(answer, 429, "temporarily_unavailable")


# --- not able to answer -----------------------------------------------------------------------------------------


async def test_before_the_credentials_are_loaded_it_is_503():
    async with running(load=False) as issuer:
        answer = await issuer.token(GRANT)
        assert refused(answer, 503, "temporarily_unavailable")
        assert int(answer.headers["Retry-After"]) > 0


async def test_without_a_key_it_is_503():
    async with running(load=False) as issuer:
        await issuer.issuer.credentials.refresh()
        answer = await issuer.token(GRANT)
        assert refused(answer, 503, "temporarily_unavailable")
        assert int(answer.headers["Retry-After"]) > 0


async def test_F01_credentials_that_are_too_old_are_not_believed(issuer):
    issuer.clock.advance(hours=24)
    assert (await issuer.token(GRANT)).status == 200
    issuer.clock.advance(1)
    assert refused(await issuer.token(GRANT), 503, "temporarily_unavailable")


async def test_no_request_waits_for_the_store(issuer):
    issuer.store.outage = "timeout"
    reads, listings = len(issuer.store.reads), issuer.store.listings
    assert (await issuer.token(GRANT)).status == 200
    assert (await issuer.call("GET", "/.well-known/jwks.json")).status == 200
    assert (len(issuer.store.reads), issuer.store.listings) == (reads, listings)


async def test_a_full_queue_of_slow_checks_is_503_and_fast_clients_go_on():
    import asyncio

    async with running(secret_check_threads=1, secret_check_queue=1) as issuer:
        answers = await asyncio.gather(
            *(issuer.token(GRANT, client=("slow", f"guess-{number}")) for number in range(12))
        )
        busy = [answer for answer in answers if answer.status == 503]
        assert {answer.status for answer in answers} <= {401, 503}
        for answer in busy:
            assert refused(answer, 503, "temporarily_unavailable")
            assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert (await issuer.token(GRANT, client=("orders", SECRET))).status in {200, 429}


# --- what is never said -----------------------------------------------------------------------------------------


async def test_contract_4_11_a_fault_of_ours_is_a_server_error_without_its_text(issuer):
    class Broken:
        def current(self):
            raise RuntimeError(f"internal detail {SECRET}")

    issuer.issuer.issuance._credentials = Broken()
    answer = await issuer.token(GRANT)
    assert answer.status == 500
    assert answer.error == "server_error"
    assert "internal detail" not in answer.body.decode()
    assert answer.headers["X-Request-Id"] in answer.json["error_description"]


async def test_every_token_and_every_refusal_leaves_one_audit_record_without_a_secret(issuer):
    with capture_logs() as logs:
        issued = await issuer.token({**GRANT, "scope": "uid"})
        await issuer.token(GRANT, client=("orders", "wr0ng-s3cret"))
        await issuer.password_token("robot", "wr0ng-passw0rd", realm="services")
        await issuer.token({**GRANT, "scope": "nope"})
    audit = [entry for entry in logs if entry["event"] in {"token_issued", "token_refused"}]
    assert [entry["event"] for entry in audit] == ["token_issued", *["token_refused"] * 3]
    record = audit[0]
    assert (record["client_id"], record["subject"], record["realm"]) == ("orders", "orders", "/services")
    assert (record["method"], record["grant_type"]) == ("client_secret_basic", "client_credentials")
    assert (record["scope_requested"], record["scope"]) == ("uid", "uid")
    assert record["jti"] == issued.claims["jti"]
    assert record["kid"] == issued.header["kid"]
    assert [entry["error"] for entry in audit[1:]] == ["invalid_client", "invalid_grant", "invalid_scope"]
    text = json.dumps(logs, default=str)
    for secret in (SECRET, PASSWORD, "wr0ng", issued.json["access_token"]):
        assert secret not in text


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (("orders", "wrong"), "wrong secret"),
        (("nobody", "wrong"), "unknown client"),
        (("off", SECRET), "client is disabled"),
        (("public", "x"), "client has no secret in force"),
    ],
)
async def test_the_record_says_why_a_client_was_refused_and_the_answer_does_not(issuer, client, reason):
    with capture_logs() as logs:
        answer = await issuer.token(GRANT, client=client)
    assert [entry["reason"] for entry in logs if entry["event"] == "token_refused"] == [reason]
    assert reason not in answer.body.decode()


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        (("robot", "wrong"), "wrong password"),
        (("nobody", "wrong"), "unknown user"),
        (("gone", PASSWORD), "user is disabled"),
        (("bound", PASSWORD), "user may not be used by this client"),
    ],
)
async def test_the_record_says_why_a_user_was_refused(issuer, user, reason):
    with capture_logs() as logs:
        await issuer.password_token(*user, realm="services")
    assert [entry["reason"] for entry in logs if entry["event"] == "token_refused"] == [reason]


async def test_a_request_that_cannot_be_read_leaves_a_record_too_and_targets_are_in_it(issuer):
    with capture_logs() as logs:
        await issuer.token(GRANT, content_type="application/json")
        await issuer.token("a=%ff")
        await issuer.token({**GRANT, "audience": "stock"})
        await issuer.token({**GRANT, "audience": "nobody"})
    audit = [entry for entry in logs if entry["event"] in {"token_issued", "token_refused"}]
    assert [entry.get("error") for entry in audit] == ["invalid_request", "invalid_request", None, "invalid_target"]
    assert all(entry["client_address"] == "127.0.0.1" for entry in audit)
    assert [entry["audience_requested"] for entry in audit[2:]] == [["stock"], ["nobody"]]


async def test_a_secret_typed_in_the_place_of_a_name_is_not_in_the_record(issuer):
    with capture_logs() as logs:
        await issuer.token(GRANT, client=(SECRET, "orders"))
        await issuer.password_token(PASSWORD, "robot", realm="services")
    assert SECRET not in json.dumps(logs, default=str)
    assert PASSWORD not in json.dumps(logs, default=str)


async def test_what_happens_is_counted(issuer):
    await issuer.token(GRANT)
    await issuer.token({**GRANT, "realm": "plan-b"})
    await issuer.token({**GRANT, "scope": "nope"})
    await issuer.token(b"{}", content_type="application/json")
    await issuer.token(GRANT, client=("slow", SECRET))
    metrics = (await issuer.call("GET", "/metrics")).body.decode()
    for line in (
        'tokenry_tokens_issued_total{grant_type="client_credentials",profile="rfc9068"} 2.0',
        'tokenry_tokens_issued_total{grant_type="client_credentials",profile="plan-b"} 1.0',
        'tokenry_token_request_errors_total{error="invalid_scope"} 1.0',
        'tokenry_token_request_errors_total{error="invalid_request"} 1.0',
        'tokenry_secret_check_duration_seconds_count{kind="argon2id"} 1.0',
        "tokenry_credentials_age_seconds 0.0",
    ):
        assert line in metrics


# --- anything at all --------------------------------------------------------------------------------------------

NAMES = st.sampled_from([
    "grant_type", "scope", "realm", "client_id", "client_secret", "username", "password", "resource", "audience",
    "client_assertion", "x",
])  # fmt: skip
VALUES = st.sampled_from([
    "client_credentials", "password", "services", "/services", "orders", SECRET, "robot", PASSWORD, "uid",
    "https://a.example.org", "", " ", "\0", '"', "\\", "ä", "\r\n", "a" * 2000,
]) | st.text(max_size=30)  # fmt: skip


def sane(answer):
    """Whatever was sent: a token, or an error of ours in allowed characters."""
    if answer.status == 200:
        return True
    assert answer.status in {400, 401, 413, 415, 429}, answer
    assert answer.error in ERRORS
    assert ALLOWED_IN_ERRORS.fullmatch(answer.json["error_description"])
    return True


async def test_T14_T16_any_form_gets_a_token_or_an_error_of_ours():
    import asyncio

    async with running(failures_per_client=10_000, failures_per_address=10_000) as issuer:
        loop = asyncio.get_running_loop()

        @given(st.lists(st.tuples(NAMES, VALUES), max_size=10), st.booleans())
        @examples(max_examples=150, suppress_health_check=list(HealthCheck))
        def anything(pairs, authenticated):
            pairs = [(name, value.encode("utf-8", "replace").decode()) for name, value in pairs]
            call = issuer.token(pairs, client=("orders", SECRET) if authenticated else None)
            assert sane(asyncio.run_coroutine_threadsafe(call, loop).result(20))

        await loop.run_in_executor(None, anything)


async def test_any_bytes_and_any_header_get_an_error_of_ours():
    import asyncio

    header = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80)
    async with running(failures_per_client=10_000, failures_per_address=10_000) as issuer:
        loop = asyncio.get_running_loop()

        @given(st.binary(max_size=200), st.lists(header.map("Basic {}".format) | header, max_size=2))
        @examples(max_examples=150, suppress_health_check=list(HealthCheck))
        def anything(body, authorization):
            call = issuer.token(body, authorization=authorization, client=None)
            assert sane(asyncio.run_coroutine_threadsafe(call, loop).result(20))

        await loop.run_in_executor(None, anything)


# --- a cluster restarts -------------------------------------------------------------------------------------------


async def test_a_burst_of_first_requests_is_served_without_a_500_and_nobody_starves():
    """The small form of tests/soak/test_first_requests.py: everybody at once, each told when to come back."""
    import asyncio

    async with running(secret_check_threads=2, secret_check_queue=8) as issuer:
        for number in range(20):
            client = f"slow-{number}"
            secrets = [{"hash": weak_argon2(f"{SECRET}-{number}"), "created_at": 1}]
            issuer.store.put(f"realms/services/clients/{client}.json", {"client_id": client, "secrets": secrets})
        await issuer.refresh()
        statuses = []

        async def instance(client, secret):
            for _ in range(50):
                answer = await issuer.token(GRANT, client=(client, secret))
                statuses.append(answer.status)
                if answer.status == 200:
                    return True
                assert refused(answer, 503, "temporarily_unavailable")
                await asyncio.sleep(0.01 * int(answer.headers["Retry-After"]))
            return False

        fast = [instance("orders", SECRET) for _ in range(150)]
        shared = [instance("slow", SECRET) for _ in range(150)]  # one slow secret, many instances: one check
        each = [instance(f"slow-{number}", f"{SECRET}-{number}") for number in range(20) for _ in range(5)]
        served = await asyncio.gather(*fast, *shared, *each)
        assert all(served)
        assert set(statuses) <= {200, 503}
        assert statuses[:150].count(503) < 150


# --- refused before it was read ----------------------------------------------------------------------------


async def _drip(issuer, head, *pieces):
    """Send *head* and *pieces*, and return the status of the answer."""
    host, port = issuer.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    status = int((await reader.readline()).split(b" ")[1])
    writer.close()
    return status


@pytest.mark.parametrize(
    ("fields", "pieces", "status"),
    [
        ("Content-Length: 1000000\r\n", [], 413),
        ("Transfer-Encoding: chunked\r\n", [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 2, 413),
        ("Content-Encoding: gzip\r\nContent-Length: 4\r\n", [b"abcd"], 415),
        ("Content-Length: 50\r\n", [b"grant_type="], 408),
    ],
)
async def test_a_request_that_is_refused_unread_is_recorded_and_counted(fields, pieces, status):
    async with running(body_deadline=0.2) as issuer:
        count = 'tokenry_token_request_errors_total{error="invalid_request"} 1.0'
        assert count not in issuer.issuer.metrics.render().decode()
        with capture_logs() as logs:
            head = f"POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n{fields}\r\n"
            assert await _drip(issuer, head, *pieces) == status
        refused = [each for each in logs if each["event"] == "token_refused"]
        assert [(each["error"], each["status"]) for each in refused] == [("invalid_request", status)]
        assert refused[0]["client_address"] == "127.0.0.1"
        assert refused[0]["reason"]
        assert count in issuer.issuer.metrics.render().decode()
