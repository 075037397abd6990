"""D59 to D69: token info and introspection. D85: a service with the library."""

import json
import secrets
import time
from urllib.parse import urlencode

import pytest

from tests.support.access_tokens import Forge
from tests.support.attacked import (
    OTHER_AUDIENCE,
    PROBER,
    SENDER,
    AttackedPlatform,
    Presenter,
    Talker,
    given_away,
    raw_exchange,
)
from tests.support.http import Answer, call

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

TOKENINFO, INTROSPECT = "/oauth2/tokeninfo", "/oauth2/introspect"
NO_TOKEN = {"error": "invalid_request", "error_description": "Access Token not valid"}
INVALID = {"error": "invalid_token", "error_description": "Access Token not valid"}
INACTIVE = b'{"active":false}'


@pytest.fixture
def forge(platform: AttackedPlatform) -> Forge:
    return platform.forge()


@pytest.fixture
def tokeninfo(platform: AttackedPlatform):
    talker = Talker(platform.address("tokeninfo"))
    yield talker
    talker.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("target", [TOKENINFO, f"{TOKENINFO}?access_token=", f"{TOKENINFO}?access_token"])
def test_D59_without_a_token_the_request_is_malformed(tokeninfo, target) -> None:
    for answer in (tokeninfo.ask("GET", target), tokeninfo.post_form(target, {"access_token": ""})):
        assert (answer.status, answer.json) == (400, NO_TOKEN)


def test_D60_a_token_sent_twice_is_a_malformed_request(platform, tokeninfo, forge) -> None:
    token = forge.token()
    for answer in (
        tokeninfo.ask("GET", f"{TOKENINFO}?access_token={token}", headers=bearer(token)),
        tokeninfo.ask("GET", f"{TOKENINFO}?access_token={token}&access_token={token}"),
        tokeninfo.post_form(f"{TOKENINFO}?access_token={token}", {"access_token": token}),
        tokeninfo.post_form(TOKENINFO, {"access_token": token}, bearer=token),
    ):
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    twice = (
        f"GET {TOKENINFO} HTTP/1.1\r\nHost: x\r\n"
        + f"Authorization: Bearer {token}\r\n" * 2
        + "Connection: close\r\n\r\n"
    )
    answer, _ = raw_exchange(platform.address("tokeninfo"), twice.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    # A gateway takes 400 for an outage: /auth answers 401 all the same.
    answer, _ = raw_exchange(platform.address("tokeninfo"), twice.replace(TOKENINFO, "/auth?authenticated=1").encode())
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer ", "Digest x", "", "bearer\tx", "BearerX x"])
def test_D61_what_is_no_bearer_token_is_none(tokeninfo, value) -> None:
    answer = tokeninfo.ask("GET", TOKENINFO, headers={"Authorization": value})
    assert (answer.status, answer.json) == (400, NO_TOKEN)


@pytest.mark.parametrize("value", [b"Bearer  x", b"Bearer x y", b"bearer x,y", b"Bearer \xff\xfe", b"Bearer \xc3\xa9"])
def test_D61_D62_what_stands_behind_the_scheme_is_a_token_and_a_bad_one(tokeninfo, value) -> None:
    answer = tokeninfo.ask("GET", TOKENINFO, headers={"Authorization": value})
    assert (answer.status, answer.json) == (401, INVALID)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "PATCH", "CONNECT", "BREW"])
def test_D63_other_methods_are_refused_and_echo_nothing(platform, forge, method) -> None:
    token = forge.token()
    platform.sent.add(token)
    head = f"{method} {TOKENINFO} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    answer, _ = raw_exchange(platform.address("tokeninfo"), head.encode())
    assert answer.split()[1] in {b"405", b"400", b"404"}, answer
    assert token.encode() not in answer
    assert method in {"CONNECT", "BREW"} or b"Allow: GET,HEAD,POST" in answer or b"Allow: GET,POST" in answer, answer


def test_D64_scopes_cannot_overwrite_members(tokeninfo, forge) -> None:
    names = ["access_token", "expires_in", "uid", "client_id", "token_type", "scope", "realm", "iss", "free"]
    token = forge.token(scope=" ".join(names))
    answer = tokeninfo.ask("GET", TOKENINFO, headers=bearer(token))
    assert answer.status == 200
    told = answer.json
    assert told["access_token"] == token
    assert (told["uid"], told["client_id"], told["realm"]) == (forge.client, forge.client, "/services")
    assert 0 < told["expires_in"] <= forge.lifetime
    assert (told["token_type"], told["iss"], told["free"]) == ("Bearer", forge.issuer, True)
    assert sorted(told["scope"]) == sorted(names)


def introspect(tokeninfo: Talker, form, **fields) -> Answer:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **fields}
    return tokeninfo.ask("POST", INTROSPECT, headers=headers, body=urlencode(form).encode())


def test_D65_only_a_caller_that_is_known_may_ask(platform, tokeninfo, forge) -> None:
    token = {"token": forge.token()}
    expired = forge.token(scope="token.introspect", iat=forge.now - 100, exp=forge.now - 50)
    elsewhere = forge.token(scope="token.introspect", aud="https://other.example")
    assert introspect(tokeninfo, token).status == 401
    for caller in (expired, elsewhere, "garbage", ""):
        assert introspect(tokeninfo, token, **bearer(caller)).status == 401, caller
    assert introspect(tokeninfo, token, **bearer(forge.token(scope="orders.read"))).status == 403
    unknown = call(
        "POST", platform.url("tokeninfo", INTROSPECT), form=token, basic=("nobody", "wrong-secret-0123456789")
    )
    wrong = call("POST", platform.url("tokeninfo", INTROSPECT), form=token, basic=(PROBER, "wrong-secret-0123456789"))
    assert (unknown.status, unknown.body) == (wrong.status, wrong.body)
    assert (wrong.status, wrong.json["error"]) == (401, "invalid_client")
    assert call("POST", platform.url("tokeninfo", INTROSPECT), form=token, basic=platform.basic(PROBER)).status == 200
    assert call("POST", platform.url("tokeninfo", INTROSPECT), form=token, basic=platform.basic(SENDER)).status == 403


def test_D66_one_token_is_asked_about_at_a_time(platform, tokeninfo, forge) -> None:
    admin = bearer(platform.admin_bearer())
    for form in ([], [("token", "")], [("token", "a"), ("token", "b")], [("token", forge.token())] * 2):
        answer = introspect(tokeninfo, form, **admin)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request"), form


def test_D68_a_caller_learns_nothing_about_tokens_for_others(platform, tokeninfo) -> None:
    token = platform.fresh(SENDER, audience=OTHER_AUDIENCE)
    answer = call("POST", platform.url("tokeninfo", INTROSPECT), form={"token": token}, basic=platform.basic(PROBER))
    assert (answer.status, answer.body) == (200, INACTIVE)
    assert introspect(tokeninfo, {"token": token}, **bearer(platform.admin_bearer())).json["active"] is True


def test_D67_guessing_is_answered_inactive_and_then_slowed_down(platform, tokeninfo) -> None:
    caller = bearer(platform.fresh(PROBER))
    answers: list[Answer] = []
    while len(answers) < 10_000 and (not answers or answers[-1].status != 429):
        answers.append(introspect(tokeninfo, {"token": secrets.token_urlsafe(32)}, **caller))
    assert len(answers) > 1500
    assert {(answer.status, answer.body) for answer in answers[:-1]} == {(200, INACTIVE)}
    assert answers[-1].status == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    # Another caller has an allowance of its own.
    assert introspect(tokeninfo, {"token": "x"}, **bearer(platform.admin_bearer())).body == INACTIVE


@pytest.mark.parametrize("hint", ["refresh_token", "access_token", "bogus", "", "x" * 1000])
def test_D69_a_hint_changes_nothing(platform, tokeninfo, forge, hint) -> None:
    admin, token = bearer(platform.admin_bearer()), forge.token()
    with_hint = introspect(tokeninfo, {"token": token, "token_type_hint": hint}, **admin)
    assert with_hint.body == introspect(tokeninfo, {"token": token}, **admin).body
    assert with_hint.json["active"] is True


@pytest.mark.parametrize(
    "query", ["", "?scope=", "?any=1", "?scope=a&unknown=1", "?scope=%ff", "?scope=a%22b", "?any=2&scope=a"]
)
def test_a_gateway_policy_that_is_not_understood_never_lets_anybody_in(platform, forge, query) -> None:
    """A fault of the gateway's owner, so it is loud: 500, as documented, and never 200."""
    answer = call("GET", platform.url("tokeninfo", f"/auth{query}"), bearer=forge.token())
    assert answer.status in {400, 500}, answer


def test_a_caller_cannot_choose_the_policy_of_the_gateway(platform, forge) -> None:
    token = forge.token(scope="a")
    url = platform.url("tokeninfo", "/auth/orders?authenticated=1&scope=a")
    required = call("GET", url, bearer=token, headers={"Tokenry-Require": "scope=admin; any=0"})
    assert required.status == 403
    assert call("GET", url, bearer=token, headers={"Tokenry-Require": "scope=a; any=0"}).status == 200
    own = call(
        "GET", platform.url("tokeninfo", "/auth?scope=admin"), bearer=token, headers={"Tokenry-Require": "scope=a"}
    )
    assert own.status == 403


def test_identity_headers_cannot_be_broken_out_of(platform, forge) -> None:
    token = forge.token(sub="a\r\nX-Auth-Scopes: admin", client_id="é%\x00", azp="é%\x00", scope="a")
    answer = call("GET", platform.url("tokeninfo", "/auth?scope=a"), bearer=token)
    assert answer.status in {200, 401}
    if answer.status == 200:
        assert answer.headers["x-auth-scopes"] == "a"
        for name in ("x-auth-subject", "x-auth-client"):
            assert answer.headers[name].isascii()
            assert "\n" not in answer.headers[name]


def test_D85_a_guarded_handler_does_not_run_without_its_token(platform, forge) -> None:
    url = platform.url("guarded", "/orders")
    nobody = call("GET", url)
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    poor = call("GET", url, bearer=forge.token(scope="orders.write"))
    assert poor.status == 403
    assert 'error="insufficient_scope"' in poor.headers["www-authenticate"]
    assert 'scope="orders.read"' in poor.headers["www-authenticate"]
    for answer in (nobody, poor):
        assert b'orders":' not in answer.body
    for path in ("/no-such-place", "/orders/", "/orders%2F..%2F"):
        assert call("GET", platform.url("guarded", path)).status == 401, path


def test_D85_no_other_method_gets_around_the_guard(platform) -> None:
    for method in ("HEAD", "POST", "PUT", "OPTIONS"):
        assert call(method, platform.url("guarded", "/orders")).status == 401, method


def test_no_answer_to_a_bad_token_can_be_cached(platform, presenter: Presenter, forge) -> None:
    for channel, answer in presenter.everywhere(forge.token(exp=forge.now - 1)).items():
        assert answer.headers["cache-control"] == "no-store", channel


def test_a_token_in_the_query_is_in_no_log(platform, presenter: Presenter, forge) -> None:
    """What must be logged is the route; the oracle of this folder looks for the token itself."""
    token = forge.token()
    platform.sent.add(token)
    for target in (f"{TOKENINFO}?access_token={token}", f"/no/such/{token}", f"/auth/{token}?scope={token}"):
        call("GET", platform.url("tokeninfo", target))
        call("GET", platform.url("issuer", target))
        call("GET", platform.url("revocation", target))
    time.sleep(0.3)


def test_what_the_openapi_document_says_has_no_secret(platform) -> None:
    for service in ("issuer", "tokeninfo", "revocation"):
        document = call("GET", platform.url(service, "/openapi.json")).body.decode()
        assert json.loads(document)["openapi"].startswith("3.")
        assert not given_away(platform.sent, document), service
